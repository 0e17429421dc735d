"""The errors of CESQL 1.0 §3.3."""

from enum import StrEnum


class ErrorKind(StrEnum):
    """Why an expression cannot be parsed or evaluated."""

    PARSE = "parse"
    MATH = "math"
    CAST = "cast"
    MISSING_ATTRIBUTE = "missingAttribute"
    MISSING_FUNCTION = "missingFunction"
    FUNCTION_EVALUATION = "functionEvaluation"
    GENERIC = "generic"


class CesqlError(ValueError):
    """An expression cannot be parsed, or failed on an event. `position` counts characters from 1; it is 0 if there is none."""

    def __init__(self, kind: ErrorKind, message: str, position: int = 0) -> None:
        super().__init__(f"position {position}: {message}" if position else message)
        self.kind = kind
        self.message = message
        self.position = position


class EvaluationError(CesqlError):
    """An operation failed. Its value is the zero value of its type, unless `value` has another one."""

    def __init__(self, kind: ErrorKind, message: str, value: str | int | bool | None = None) -> None:
        super().__init__(kind, message)
        self.value = value
        #: The operation whose value `value` is.
        self.operation: object = None
