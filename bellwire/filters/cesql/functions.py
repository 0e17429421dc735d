"""The functions of CESQL 1.0 §3.5."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

from bellwire.filters.cesql.errors import ErrorKind, EvaluationError
from bellwire.filters.cesql.nodes import Node, cast
from bellwire.filters.cesql.values import LARGEST, SMALLEST, Run, Value, Values, to_boolean, to_integer, to_string

#: Maximum characters of a text that a function returns.
MAX_RESULT = 1_000_000
#: White space of Unicode. `str.strip` would also remove the control characters 0x1C to 0x1F.
_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))


class Function(NamedTuple):
    """A function for one number of arguments."""

    compute: Callable[..., Value]
    result: type
    #: The types of the arguments; None takes any.
    parameters: tuple[type | None, ...]
    #: The type of any number of further arguments.
    further: type | None = None


def _failed(message: str, value: Value) -> NoReturn:
    raise EvaluationError(ErrorKind.FUNCTION_EVALUATION, message, value)


def _bounded(text: str) -> str:
    if len(text) > MAX_RESULT:
        _failed(f"the text has more than {MAX_RESULT:,} characters", "")
    return text


def _left(text: str, count: int) -> str:
    if count < 0:
        _failed("LEFT: the length is negative", text)
    return text[:count]


def _right(text: str, count: int) -> str:
    if count < 0:
        _failed("RIGHT: the length is negative", text)
    return text[max(len(text) - count, 0) :]


def _substring(text: str, position: int, count: int = LARGEST) -> str:
    """Positions count from 1, or from the end if they are negative."""
    if abs(position) > len(text):
        _failed(f"SUBSTRING: position {position} is outside a text of {len(text)} characters", "")
    if count < 0:
        _failed("SUBSTRING: the length is negative", "")
    if position == 0:
        return ""
    start = position - 1 if position > 0 else len(text) + position
    return text[start : start + count]


def _absolute(number: int) -> int:
    if number == SMALLEST:
        raise EvaluationError(ErrorKind.MATH, f"ABS: {-number} is out of range (32-bit integer)", LARGEST)
    return abs(number)


def _is(convert: Callable[[Value], Value]) -> Callable[[Value], bool]:
    def castable(value: Value) -> bool:
        try:
            convert(value)
        except EvaluationError:
            return False
        return True

    return castable


FUNCTIONS: dict[str, tuple[Function, ...]] = {
    "ABS": (Function(_absolute, int, (int,)),),
    "BOOL": (Function(to_boolean, bool, (None,)),),
    "CONCAT": (Function(lambda *texts: _bounded("".join(texts)), str, (), str),),
    "CONCAT_WS": (Function(lambda between, *texts: _bounded(between.join(texts)), str, (str,), str),),
    "INT": (Function(to_integer, int, (None,)),),
    "IS_BOOL": (Function(_is(to_boolean), bool, (None,)),),
    "IS_INT": (Function(_is(to_integer), bool, (None,)),),
    "LEFT": (Function(_left, str, (str, int)),),
    "LENGTH": (Function(len, int, (str,)),),
    "LOWER": (Function(str.lower, str, (str,)),),
    "RIGHT": (Function(_right, str, (str, int)),),
    "STRING": (Function(to_string, str, (None,)),),
    "SUBSTRING": (Function(_substring, str, (str, int)), Function(_substring, str, (str, int, int))),
    "TRIM": (Function(lambda text: text.strip(_SPACE), str, (str,)),),
    "UPPER": (Function(str.upper, str, (str,)),),
}


def find(name: str, arguments: int) -> Function | None:
    for one in FUNCTIONS.get(name, ()):
        if arguments == len(one.parameters) or (one.further and arguments > len(one.parameters)):
            return one
    return None


def call(function: Function, arguments: Sequence[Node]) -> Node:
    """The call of a function, whose arguments are cast to what it takes."""
    types = [*function.parameters, *[function.further] * (len(arguments) - len(function.parameters))]
    runs = [cast(node, to) if to else node.run for node, to in zip(arguments, types, strict=True)]
    compute: Callable[..., Any] = function.compute

    def run(values: Values) -> Value:
        given = [one(values) for one in runs]
        try:
            return compute(*given)  # type: ignore[no-any-return]
        except EvaluationError as error:
            error.operation = run
            raise

    return Node(run, function.result, 1 + max((node.depth for node in arguments), default=0))


def missing(name: str, arguments: int) -> Node:
    """The call of a function that does not exist for this number of arguments. Its value is false."""
    message = unknown(name, arguments)

    def run(_: Values) -> Value:
        raise EvaluationError(ErrorKind.MISSING_FUNCTION, message)

    fails: Run = run
    return Node(fails, None)


def unknown(name: str, arguments: int) -> str:
    if name in FUNCTIONS:
        return f"{name} does not take {arguments} argument{'' if arguments == 1 else 's'}"
    return f"{name} is not a function; functions are {', '.join(FUNCTIONS)}"
