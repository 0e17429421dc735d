"""Parameters of the providers' templates: texts in which {…} stands for a variable of the event."""

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_PATH = re.compile(r"[A-Za-z_][\w-]{0,63}(\.[\w-]{1,64}){0,15}")


def _expression(value: str) -> str:
    for found in _PLACEHOLDER.finditer(value):
        if not _PATH.fullmatch(found[1]):
            raise ValueError(f"{found[0]}: is not a variable; use {{text}}, or one of the event such as {{data.order}}")
    return value


#: Such as "{data.order}", "{data.items.0.name}" or "{text}".
Expression = Annotated[str, Field(max_length=500), AfterValidator(_expression)]


class MissingVariable(Exception):
    """The event does not have a variable. The exception's text is its path."""


def filled(expression: str, values: Mapping[str, Any], text: str) -> str:
    """The expression with its variables on one line. Raises MissingVariable."""
    return " ".join(
        _PLACEHOLDER.sub(lambda found: text if found[1] == "text" else _variable(found[1], values), expression).split()
    )


def _variable(path: str, values: Mapping[str, Any]) -> str:
    found: Any = values
    for step in path.split("."):
        if isinstance(found, Mapping):
            found = found.get(step)
        elif isinstance(found, list) and step.isascii() and step.isdecimal() and int(step[:6]) < len(found):
            found = found[int(step[:6])]
        else:
            found = None
    match found:
        case bool():
            return "true" if found else "false"
        case str() | int() | float():
            return str(found)
        case _:
            raise MissingVariable(path)
