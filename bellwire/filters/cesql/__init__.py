"""CESQL 1.0: CloudEvents' language of expressions over the attributes of events: `subject LIKE 'order/%' AND priority > 5`.

`parse` checks and compiles an expression; `evaluate` returns its value for an event, and an error or None. AND, OR and XOR have
the same precedence and are evaluated from left to right, as §3.6 says.
"""

from bellwire.filters.cesql.errors import CesqlError, ErrorKind, EvaluationError
from bellwire.filters.cesql.expression import Expression, evaluate, parse
from bellwire.filters.cesql.parser import MAX_CHARACTERS
from bellwire.filters.cesql.values import TYPE_NAMES

__all__ = [
    "MAX_CHARACTERS",
    "TYPE_NAMES",
    "CesqlError",
    "ErrorKind",
    "EvaluationError",
    "Expression",
    "evaluate",
    "parse",
]
