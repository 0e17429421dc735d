"""Output: what a template puts out for an event, bounded while it comes; and what is said when it does not render."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from json import JSONDecodeError, loads
from types import TracebackType
from typing import Any

from jinja2 import Template, TemplateError, TemplateNotFound, TemplateSyntaxError

from activities.rendering.sandbox.budget import LimitExceeded
from activities.rendering.sandbox.environment import TemplateEnvironment
from activities.rendering.sandbox.link_safety import safe_links
from activities.rendering.text import printable

#: Largest rendered part, in bytes of UTF-8.
MAX_OUTPUT_BYTES = 256 * 1024


class NotJson(TemplateError):
    """What a template for JSON has put out is something else."""


@dataclass(frozen=True)
class Fault:
    """Why a template does not render: in which one, where, and what. It names variables, never values."""

    what: str
    template: str | None = None
    line: int | None = None

    def told(self, template: str) -> str:
        """For people: "template order.paid/email.txt line 3: total is missing"."""
        return f"template {self.template or template}{f' line {self.line}' if self.line else ''}: {self.what}"


def render(
    environment: TemplateEnvironment, name: str, find: Callable[[], Template], context: Mapping[str, Any]
) -> str:
    """The text of the template for this context, fit to be sent as what its name ends in. Raises whatever templates raise."""
    environment.budget.reset()
    pieces: list[str] = []
    room = MAX_OUTPUT_BYTES
    for piece in find().generate(context):
        room -= len(piece.encode())
        if room < 0:
            raise LimitExceeded(f"too large: the result has more than {MAX_OUTPUT_BYTES:,} bytes")
        pieces.append(piece)
    text = "".join(pieces)
    if name.endswith(".json"):
        check_json(text)
        return text
    text = printable(text)
    return safe_links(text) if name.endswith(".html") else text


def check_json(text: str) -> None:
    """Raises NotJson, which says where."""
    try:
        loads(text, parse_constant=_refuse)
    except JSONDecodeError as error:
        raise NotJson(f"the result is not JSON: line {error.lineno}: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise NotJson("the result is not JSON") from error


def fault_of(error: Exception, named: Callable[[str], str | None]) -> Fault:
    """What an error of compiling or rendering means. `named` tells which template a file of a traceback is, if any."""
    match error:
        case TemplateSyntaxError():
            return Fault(error.message or "is not valid", error.name, error.lineno)
        case TemplateNotFound():
            what = f"{error.name} does not exist"
        case UnicodeDecodeError():
            what = "is not UTF-8"
        case MemoryError():
            what = "too large: it takes more memory than one may"
        case RecursionError():
            what = "too large: it nests too deep"
        case TemplateError():
            what = error.message or "is not valid"
        case _:
            what = type(error).__name__  # its text may quote data
    template, line = _running(error.__traceback__, named) or (None, None)
    return Fault(what, template, line)


def _running(traceback: TracebackType | None, named: Callable[[str], str | None]) -> tuple[str, int] | None:
    """Template and line of the innermost template in a traceback, which Jinja2 rewrites so that it shows templates."""
    found = None
    while traceback is not None:
        name = named(traceback.tb_frame.f_code.co_filename)
        if name is not None:
            found = name, traceback.tb_lineno
        traceback = traceback.tb_next
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
