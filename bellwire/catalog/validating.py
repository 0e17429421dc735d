"""SchemaValidator: checks data against a schema, with problems that point into the data. It needs jsonschema-rs.

Patterns are matched in linear time; so a schema cannot use look-around or back references.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from bellwire.catalog.places import in_data
from bellwire.catalog.schema_checks import check_schema
from bellwire.errors import SchemaInvalid

if TYPE_CHECKING:
    from jsonschema_rs import Draft202012Validator, ValidationError

#: Problems that are listed of one value.
MAX_PROBLEMS = 20
#: Problems that the library may collect, at some 30 µs each.
_MAX_COLLECTED = 5_000
#: Times that subschemas are applied to values of one event, at most: about a quarter of a second, in which nothing else runs.
MAX_APPLIED = 3_000_000
#: What an event of 256 KiB has at most: each value takes two bytes.
_MAX_VALUES = 128 * 1024
#: Bytes of a compiled pattern.
_MAX_PATTERN_BYTES = 1024 * 1024
#: Keywords that forbid properties.
_CLOSING = {"additionalProperties", "unevaluatedProperties"}
#: What messages have in place of values, which may be private.
_MASK = "the value"


class DataProblem(NamedTuple):
    """What is wrong with a value."""

    #: Where it is, such as `data.items[3].price`.
    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


class SchemaValidator:
    """Checks data against one schema. Making one takes far longer than using it."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        """Raises SchemaInvalid with each reason why the schema is refused."""
        check = check_schema(schema)
        if check.problems:
            raise SchemaInvalid.of(check.problems[:MAX_PROBLEMS])
        self._work = check.work
        self._validator = _compiled(schema)

    def problems(self, data: object, *, root: str = "data") -> Sequence[DataProblem]:
        """What is wrong with `data`, the first ones; of large data only the first one. Empty if it is valid."""
        allowed = MAX_APPLIED // self._work
        if allowed < _MAX_VALUES and not has_at_most(allowed, data):
            message = (
                f"has more than {allowed:,} values, too many for its schema; send fewer, or make the schema simpler"
            )
            return [DataProblem(root, message)]
        if self._validator.is_valid(data):
            return ()
        # The library collects all problems before it returns the first.
        if has_at_most(_MAX_COLLECTED // self._work, data):
            errors = self._validator.iter_errors(data)
        else:
            errors = iter([_first_error(self._validator, data)])
        return list(islice((problem for error in errors for problem in _problems(error, root)), MAX_PROBLEMS))


def has_at_most(number: int, data: object) -> bool:
    """Whether data has at most this many values, those within others included."""
    left, waiting = number, [data]
    while waiting:
        left -= 1
        if left < 0:
            return False
        value = waiting.pop()
        if isinstance(value, dict | list):
            if len(value) > left:
                return False
            waiting += value.values() if isinstance(value, dict) else value
    return True


def _first_error(validator: "Draft202012Validator", data: object) -> "ValidationError":
    from jsonschema_rs import ValidationError

    try:
        validator.validate(data)
    except ValidationError as error:
        return error
    raise AssertionError("data that is not valid has an error")


def _problems(error: "ValidationError", root: str) -> Iterator[DataProblem]:
    path = list(error.instance_path)
    kind = error.kind.as_dict()
    match error.kind.name:
        case "required":
            yield DataProblem(in_data([*path, str(kind["property"])], root=root), "is missing")
        case "additionalProperties" | "unevaluatedProperties":
            for name in kind["unexpected"]:
                yield DataProblem(in_data([*path, str(name)], root=root), "is not a known property; leave it out")
        case "falseSchema" if error.schema_path and error.schema_path[-1] in _CLOSING:
            yield DataProblem(in_data(path, root=root), "has properties that are not known; leave them out")
        case "falseSchema":
            yield DataProblem(in_data(path, root=root), "is not allowed; leave it out")
        case _:
            yield DataProblem(in_data(path, root=root), _message(error))


def _message(error: "ValidationError") -> str:
    text = str(error.message)
    return text.removeprefix(f"{_MASK} ") if text.startswith(_MASK) else text


def _compiled(schema: Mapping[str, Any]) -> "Draft202012Validator":
    try:
        from jsonschema_rs import Draft202012Validator, RegexOptions, ValidationError
    except ImportError as error:
        raise SchemaInvalid(
            "checking data against schemas needs jsonschema-rs; run `pip install bellwire[catalog]`"
        ) from error

    try:
        return Draft202012Validator(
            dict(schema),
            mask=_MASK,
            retriever=_refuse,
            validate_formats=False,
            pattern_options=RegexOptions(size_limit=_MAX_PATTERN_BYTES, dfa_size_limit=_MAX_PATTERN_BYTES),
        )
    except ValidationError as error:
        place, message = in_data(error.instance_path, root="schema"), _message(error)
        if message.endswith('"regex"'):
            message = "is not a pattern that can be matched in linear time; leave out look-around and back references"
        raise SchemaInvalid.of([(place, message)]) from error
    except ValueError as error:
        raise SchemaInvalid.of([("schema", str(error)[:200])]) from error


def _refuse(uri: str) -> Any:
    raise ValueError(f"{uri[:80]!r} is outside the schema; copy it into $defs")
