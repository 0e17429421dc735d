"""Expressions: text that is parsed once and evaluated on many events."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bellwire.events import Event
from bellwire.filters.cesql.errors import CesqlError, EvaluationError
from bellwire.filters.cesql.nodes import Node
from bellwire.filters.cesql.parser import Parser
from bellwire.filters.cesql.values import LARGEST, SMALLEST, ZERO, Value, Values
from bellwire.filters.event_view import EventView, read_values
from bellwire.formats.timestamps import format_timestamp


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression of CESQL."""

    text: str
    #: The attributes that it reads, in order.
    attributes: tuple[str, ...]
    #: Calls that fail on every event: of functions that do not exist.
    problems: tuple[CesqlError, ...]
    _root: Node

    @property
    def type(self) -> type | None:
        """str, int or bool, the type of its value; None if it depends on the event."""
        return self._root.type

    def run(self, values: Values) -> Value:
        """Return the value for these attributes. Raises EvaluationError."""
        return self._root.run(values)

    def value_after(self, error: EvaluationError) -> Value:
        """The value that an expression has beside an error (CESQL 1.0 §3.3): mostly the zero value of its type."""
        own = error.value is not None and error.operation is self._root.run
        return error.value if own and error.value is not None else ZERO[self._root.type]


def parse(text: str) -> Expression:
    """Parse an expression. Raises CesqlError with the kind `parse`, its position and a remedy."""
    parser = Parser(text)
    root = parser.parse()
    return Expression(text, tuple(parser.attributes), tuple(parser.problems), root)


def evaluate(expression: Expression, event: Event | EventView | Mapping[str, Any]) -> tuple[Value, CesqlError | None]:
    """Return the value of an expression for an event, and the first error, or None.

    Evaluation ends at the first error. An event may also be a mapping of attributes, as in the JSON format of CloudEvents.
    """
    values = _attributes(expression, event)
    try:
        return expression.run(values), None
    except EvaluationError as error:
        return expression.value_after(error), error


def _attributes(expression: Expression, event: Event | EventView | Mapping[str, Any]) -> Mapping[str, Value]:
    if isinstance(event, EventView):
        return event.given_values
    names = expression.attributes
    if isinstance(event, Event):
        if "time" in names and "time" not in event.model_fields_set:
            names = tuple(name for name in names if name != "time")
        return read_values(event, names)
    return {name: _value(event[name]) for name in names if name != "data" and event.get(name) is not None}


def _value(value: object) -> Value:
    if isinstance(value, datetime):
        return format_timestamp(value)
    if isinstance(value, bool) or (isinstance(value, int) and SMALLEST <= value <= LARGEST):
        return value
    return str(value)
