"""SchemaValidator: checks data against a schema, with problems that point into the data. It needs jsonschema-rs.

Patterns are matched in linear time; so a schema cannot use look-around or back references.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from bellwire.catalog.places import in_data
from bellwire.catalog.schema_checks import problems_of_schema
from bellwire.errors import SchemaInvalid

if TYPE_CHECKING:
    from jsonschema_rs import Draft202012Validator, ValidationError

#: Problems that are listed of one value.
MAX_PROBLEMS = 20
#: Bytes of a compiled pattern.
_MAX_PATTERN_BYTES = 1024 * 1024
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
        if problems := list(islice(problems_of_schema(schema), MAX_PROBLEMS)):
            raise SchemaInvalid.of(problems)
        self._validator = _compiled(schema)

    def problems(self, data: object, *, root: str = "data") -> Sequence[DataProblem]:
        """What is wrong with `data`, the first ones; empty if it is valid."""
        if self._validator.is_valid(data):
            return ()
        errors = islice(self._validator.iter_errors(data), MAX_PROBLEMS)
        return [problem for error in errors for problem in _problems(error, root)][:MAX_PROBLEMS]


def _problems(error: "ValidationError", root: str) -> Iterator[DataProblem]:
    path = list(error.instance_path)
    kind = error.kind.as_dict()
    match error.kind.name:
        case "required":
            yield DataProblem(in_data([*path, str(kind["property"])], root=root), "is missing")
        case "additionalProperties" | "unevaluatedProperties":
            for name in kind["unexpected"]:
                yield DataProblem(in_data([*path, str(name)], root=root), "is not a known property; leave it out")
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
