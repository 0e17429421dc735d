"""The two manners of model: what travels, and what people write by hand."""

from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo

#: The context of a validation that reads back what was validated before it was stored; costly checks leave it out.
TRUSTED = "stored"

T = TypeVar("T")


def skip_when_trusted(check: Callable[[T], T]) -> AfterValidator:
    """A check of what comes from outside, which need not be repeated when it is read back."""

    def unless_stored(value: T, info: ValidationInfo[Any]) -> T:
        return value if info.context == TRUSTED else check(value)

    return AfterValidator(unless_stored)


class Payload(BaseModel):
    """A frozen value that travels between processes. Unknown fields are ignored, so that old code reads new payloads."""

    # Errors show no input: it may be private, and errors go to logs and histories.
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)


class StrictInput(BaseModel):
    """A frozen value that a person or an API caller wrote. Unknown fields are errors, so that a typing mistake is one.

    Errors name fields and repeat no input, which may be private.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
