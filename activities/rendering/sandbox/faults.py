"""Fault: why a template cannot be compiled or rendered, in words that contain no data of the event."""

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from jinja2 import TemplateError, TemplateNotFound, TemplateSyntaxError
from jinja2.exceptions import FilterArgumentError


@dataclass(frozen=True)
class Fault:
    """A problem, and the template and line where it occurred. It names variables, never values."""

    problem: str
    template: str | None = None
    line: int | None = None

    def message(self, template: str) -> str:
        """The error message: "template order.paid/email.txt line 3: total is missing"."""
        return f"template {self.template or template}{f' line {self.line}' if self.line else ''}: {self.problem}"


def fault_of(error: Exception, template_of: Callable[[str], str | None]) -> Fault:
    """The fault that an error of compiling or rendering means.

    `template_of` returns the name of the template that a file of a traceback belongs to, or None.
    """
    match error:
        case TemplateSyntaxError():
            return Fault(error.message or "is not valid", error.name, error.lineno)
        case TemplateNotFound():
            problem = f"{error.name} does not exist"
        case UnicodeDecodeError():
            problem = "is not UTF-8"
        case MemoryError():
            problem = "too large: it needs too much memory"
        case RecursionError():
            problem = "too large: it is nested too deeply"
        case FilterArgumentError():
            problem = "a filter does not accept one of its arguments"  # its text may quote data
        case TemplateError():
            problem = error.message or "is not valid"
        case _:
            problem = type(error).__name__  # its text may quote data
    template, line = _innermost(error.__traceback__, template_of) or (None, None)
    return Fault(problem, template, line)


def _innermost(traceback: TracebackType | None, template_of: Callable[[str], str | None]) -> tuple[str, int] | None:
    """Name and line of the innermost template in a traceback. Jinja2 rewrites tracebacks so that they show templates."""
    found = None
    while traceback is not None:
        name = template_of(traceback.tb_frame.f_code.co_filename)
        if name is not None:
            found = name, traceback.tb_lineno
        traceback = traceback.tb_next
    return found
