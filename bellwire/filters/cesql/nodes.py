"""Node: a compiled part of an expression, and how the operators of CESQL are compiled (CESQL 1.0 §3.4)."""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bellwire.filters.cesql.errors import ErrorKind, EvaluationError
from bellwire.filters.cesql.like import like
from bellwire.filters.cesql.values import (
    CASTS,
    LARGEST,
    SMALLEST,
    Run,
    Value,
    Values,
    to_boolean,
    to_string,
)

#: Attributes that every event has.
REQUIRED = frozenset({"id", "source", "specversion", "type"})


@dataclass(frozen=True, slots=True)
class Node:
    """A part of an expression. `run` returns its value, or raises EvaluationError."""

    run: Run
    #: str, int or bool; None if it depends on the event.
    type: type | None
    #: Levels of operations.
    depth: int = 1
    literal: Value | None = None
    attribute: str | None = None


def literal(value: Value) -> Node:
    return Node(lambda _: value, type(value), literal=value)


def attribute(name: str) -> Node:
    def run(values: Values) -> Value:
        try:
            return values[name]
        except KeyError:
            raise missing(name) from None

    return Node(run, None, attribute=name)


def missing(name: str) -> EvaluationError:
    return EvaluationError(ErrorKind.MISSING_ATTRIBUTE, f"{name} is not set")


def exists(name: str) -> Node:
    if name in REQUIRED:
        return Node(lambda _: True, bool)
    return Node(lambda values: name in values, bool)


def negation(inner: Node) -> Node:
    """NOT. An Integer is not cast: the conformance suite wants a cast error, although §3.7 has a rule for it."""
    if inner.type is bool:
        return Node(lambda values: not inner.run(values), bool, inner.depth + 1)

    def run(values: Values) -> bool:
        value = inner.run(values)
        try:
            return not to_boolean(str(value) if type(value) is int else value)
        except EvaluationError as error:
            error.value, error.operation = True, run
            raise

    return Node(run, bool, inner.depth + 1)


def minus(inner: Node) -> Node:
    of = cast(inner, int)
    return Node(lambda values: _checked(-of(values)), int, inner.depth + 1)  # type: ignore[operator]


def cast(node: Node, to: type) -> Run:
    """What runs the node and casts its value."""
    run = node.run
    if node.type is to:
        return run
    if node.literal is not None and to is str:
        text = to_string(node.literal)
        return lambda _: text
    convert = CASTS[to]
    return lambda values: convert(run(values))


def _checked(number: int) -> int:
    if SMALLEST <= number <= LARGEST:
        return number
    raise EvaluationError(ErrorKind.MATH, f"{number} is out of range (32-bit integer)")


def _divide(x: int, y: int) -> int:
    """Rounds towards 0."""
    if y == 0:
        raise EvaluationError(ErrorKind.MATH, f"{x} cannot be divided by 0")
    return _checked(x // y if (x < 0) == (y < 0) else -(-x // y))


def _remainder(x: int, y: int) -> int:
    """Has the sign of `x`."""
    if y == 0:
        raise EvaluationError(ErrorKind.MATH, f"{x} cannot be divided by 0")
    return abs(x) % abs(y) * (-1 if x < 0 else 1)


_MATH: dict[str, Callable[[int, int], int]] = {
    "*": lambda x, y: _checked(x * y),
    "/": _divide,
    "%": _remainder,
    "+": lambda x, y: _checked(x + y),
    "-": lambda x, y: _checked(x - y),
}
_ORDER: dict[str, Callable[[int, int], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def arithmetic(symbol: str, left: Node, right: Node) -> Node:
    x, y, compute = cast(left, int), cast(right, int), _MATH[symbol]
    return Node(lambda values: compute(x(values), y(values)), int, _above(left, right))  # type: ignore[arg-type]


def comparison(symbol: str, left: Node, right: Node) -> Node:
    if symbol in _ORDER:
        x, y, compare = cast(left, int), cast(right, int), _ORDER[symbol]
        return Node(lambda values: compare(x(values), y(values)), bool, _above(left, right))  # type: ignore[arg-type]
    return Node(_equality(left, right, symbol == "="), bool, _above(left, right))


def _equality(left: Node, right: Node, wanted: bool) -> Run:
    """The left value is cast to the type of the right one."""
    if (name := left.attribute) is not None and type(text := right.literal) is str:

        def attribute_is(values: Values) -> bool:
            value = values.get(name)
            if type(value) is not str:
                value = to_string(attribute_of(values))
            return (value == text) is wanted

        attribute_of = left.run
        return attribute_is
    if right.type is not None:
        x, y = cast(left, right.type), right.run
        return lambda values: (x(values) == y(values)) is wanted
    left_of, right_of = left.run, right.run

    def equal(values: Values) -> bool:
        x, y = left_of(values), right_of(values)
        return (CASTS[type(y)](x) == y) is wanted

    return equal


def conjunction(terms: Sequence[Node]) -> Node:
    """Terms joined by AND. Those behind the first false one are not evaluated."""
    runs = [cast(term, bool) for term in terms]
    if len(runs) == 2:
        left, right = runs
        return Node(lambda values: left(values) and right(values), bool, _above(*terms))
    return Node(lambda values: all(run(values) for run in runs), bool, _above(*terms))


def disjunction(terms: Sequence[Node]) -> Node:
    """Terms joined by OR. Those behind the first true one are not evaluated."""
    runs = [cast(term, bool) for term in terms]
    if len(runs) == 2:
        left, right = runs
        return Node(lambda values: left(values) or right(values), bool, _above(*terms))
    return Node(lambda values: any(run(values) for run in runs), bool, _above(*terms))


def exclusion(terms: Sequence[Node]) -> Node:
    """Terms joined by XOR, from left to right."""
    runs = [cast(term, bool) for term in terms]
    return Node(lambda values: sum(bool(run(values)) for run in runs) % 2 == 1, bool, _above(*terms))


def matching(left: Node, pattern: str, wanted: bool) -> Node:
    """LIKE, or NOT LIKE."""
    text, fits = cast(left, str), like(pattern)
    return Node(lambda values: fits(text(values)) is wanted, bool, left.depth + 1)  # type: ignore[arg-type]


def membership(left: Node, items: Sequence[Node], wanted: bool) -> Node:
    """IN, or NOT IN. The items are cast to the type of the left value, until one is equal."""
    left_of, runs, depth = left.run, [item.run for item in items], _above(left, *items)
    literals = [item.literal for item in items]
    texts = frozenset(to_string(value) for value in literals if value is not None)
    only_literals = None not in literals

    def run(values: Values) -> bool:
        value = left_of(values)
        if only_literals and type(value) is str:
            return (value in texts) is wanted
        convert = CASTS[type(value)]
        return any(convert(item(values)) == value for item in runs) is wanted

    return Node(run, bool, depth)


def _above(*nodes: Node) -> int:
    return 1 + max(node.depth for node in nodes)
