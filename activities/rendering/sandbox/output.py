"""Renders a template and checks its output: bounded size, printable text, valid JSON."""

from collections.abc import Callable, Mapping
from json import JSONDecodeError, loads
from typing import Any

from jinja2 import Template, TemplateError

from activities.rendering.sandbox.budget import LimitExceeded
from activities.rendering.sandbox.environment import TemplateEnvironment
from activities.rendering.text import printable, valid_unicode

#: Largest output of one template, in bytes of UTF-8.
MAX_OUTPUT_BYTES = 256 * 1024


class NotJson(TemplateError):
    """The output of a JSON template is not valid JSON."""


def render(
    environment: TemplateEnvironment,
    name: str,
    load: Callable[[], Template],
    context: Mapping[str, Any],
    *,
    markup: Callable[[str], str] | None = None,
) -> str:
    """The output of the template that `load` returns, checked by the extension of `name`. Raises what templates raise.

    `markup` escapes values in the markup that the template writes.

    HTML is not safe before `activities.rendering.html.final` has finished it.
    """
    environment.budget.reset()
    environment.writes_json, environment.markup = name.endswith(".json"), markup
    pieces: list[str] = []
    bytes_left = MAX_OUTPUT_BYTES
    for piece in load().generate(context):
        bytes_left -= len(piece.encode(errors="surrogatepass"))
        if bytes_left < 0:
            raise LimitExceeded(f"too large: the result has more than {MAX_OUTPUT_BYTES:,} bytes")
        pieces.append(piece)
    text = valid_unicode("".join(pieces))
    if name.endswith(".json"):
        check_json(text)
        return text
    return printable(text)


def check_json(text: str) -> None:
    """Raise NotJson, with line and problem, if the text is not valid JSON.

    `bellwire.formats.strict_json` does the same, but the child process must not load `bellwire` with its dependencies.
    """
    try:
        loads(text, parse_constant=_refuse)
    except JSONDecodeError as error:
        raise NotJson(f"the result is not JSON: line {error.lineno}: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise NotJson("the result is not JSON") from error


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
