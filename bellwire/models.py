"""Base models: Payload for values that travel between processes, StrictInput for values that people write."""

from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo

#: The validation context for values that were validated before they were stored. Costly checks skip them.
TRUSTED = "trusted"

T = TypeVar("T")


def skip_when_trusted(check: Callable[[T], T]) -> AfterValidator:
    """Return a validator that runs the check, except with the context TRUSTED."""

    def unless_trusted(value: T, info: ValidationInfo[Any]) -> T:
        return value if info.context == TRUSTED else check(value)

    return AfterValidator(unless_trusted)


class Payload(BaseModel):
    """A frozen value that travels between processes. Unknown fields are ignored, so that old code can read new payloads."""

    # Errors hide the input: it may be private, and errors go to logs and histories.
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)


class StrictInput(BaseModel):
    """A frozen value that a person or an API caller wrote. Unknown fields are errors, so that typing mistakes are found.

    Errors name the fields and hide the input, which may be private.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
