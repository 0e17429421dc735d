"""Base models: Payload for values that travel between processes, StrictInput for values that people write."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError, ValidationInfo

from bellwire.errors import Place, SubscriptionInvalid, fields_in_error

#: The validation context for values that were validated before they were stored. Costly checks skip them.
TRUSTED = "trusted"

T = TypeVar("T")


def skip_when_trusted(check: Callable[[T], T]) -> AfterValidator:
    """Return a validator that runs the check, except with the context TRUSTED."""

    def unless_trusted(value: T, info: ValidationInfo[Any]) -> T:
        return value if info.context == TRUSTED else check(value)

    return AfterValidator(unless_trusted)


def _number(value: Any) -> Any:
    if isinstance(value, bool | str):
        raise ValueError("must be a number")  # noqa: TRY004 - pydantic reports ValueErrors
    return value


#: For an integer as JSON has it: 5 and 5.0, but neither true nor "5". It stands behind bounds.
json_number = BeforeValidator(_number)


class Payload(BaseModel):
    """A frozen value that travels between processes. Unknown fields are ignored, so that old code can read new payloads."""

    # Errors hide the input: it may be private, and errors go to logs and histories.
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)


class StrictInput(BaseModel):
    """A frozen value that a person or an API caller wrote. Unknown fields are errors, so that typing mistakes are found.

    Errors name the fields and hide the input, which may be private. The constructor raises SubscriptionInvalid; validation raises
    pydantic's ValidationError, which callers inside Bellwire turn into problems.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    if not TYPE_CHECKING:

        def __init__(self, **fields: Any) -> None:
            try:
                super().__init__(**fields)
            except ValidationError as error:
                raise SubscriptionInvalid(fields_in_error(error, known=self.known_fields)) from None

        # Validation, such as of JSON, does not go through the constructor.
        __init__.__pydantic_base_init__ = True

    @classmethod
    def known_fields(cls, place: Place) -> Iterable[str]:
        """The fields that one at this place may be, if it is misspelt."""
        return cls.model_fields if len(place) == 1 else ()
