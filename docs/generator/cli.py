"""The pages of commands: `python -m starter` and `bellwire` from their Typer apps, `worker.py` from its argument parser."""

import argparse
import re
from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from bellwire.cli.app import app as bellwire_app
from bellwire.service.worker_options import option_parser
from docs.generator.markdown import code, document, prose, sentence, table
from docs.generator.sources import CHECKOUT
from starter.cli.main import app

PROGRAM = "python -m starter"
#: What Typer appends to the help of an option: its default and its range.
_EXTRA = re.compile(r"\s*\[(?P<extra>[^\[\]]*(?:default: |required|<=|>=|<|>)[^\[\]]*)\]$")


def page() -> str:
    """The text of docs/reference/cli.md."""
    root: Any = get_command(app)
    context = root.make_context(PROGRAM, ["--help-not-given"], resilient_parsing=True)
    return document(
        "Command line",
        f"`{PROGRAM}` is for operators and developers, `python worker.py` runs the worker. Every command takes `--help`.",
        "Exit statuses: 0 done, 1 failed, 2 bad input, 130 interrupted. With `--json`, a command prints JSON to stdout;"
        " messages go to stderr.",
        *(part for name, command in root.commands.items() for part in _command(name, command, context, depth=2)),
        *_worker(),
    )


def bellwire_page() -> str:
    """The text of docs/reference/bellwire-command.md."""
    root: Any = get_command(bellwire_app)
    context = root.make_context("bellwire", ["--help-not-given"], resilient_parsing=True)
    return document(
        "The command bellwire",
        "`bellwire` is for developers who use a gateway: `pip install 'bellwire[cli]'`. `BELLWIRE_URL` names the gateway, and"
        " `BELLWIRE_KEY` is an API key.",
        "Exit statuses: 0 done, 1 failed, 2 bad input, 130 interrupted. With `--json`, a command prints JSON to stdout;"
        " messages go to stderr.",
        _options(root, context),
        *(part for name, command in root.commands.items() for part in _command(name, command, context, depth=2)),
    )


def _command(name: str, command: Any, above: Any, *, depth: int) -> Iterator[str]:
    context = command.make_context(name, [], parent=above, resilient_parsing=True)
    path = context.command_path
    yield f"{'#' * depth} {path.removeprefix(PROGRAM).removeprefix('bellwire ').strip()}"
    yield _paragraphs(command.help)
    below = getattr(command, "commands", {})
    if not below or command.invoke_without_command:
        yield f"```text\n{_usage(command, context)}\n```"
    yield _options(command, context)
    for each, inner in below.items():
        yield from _command(each, inner, context, depth=depth + 1)


def _usage(command: Any, context: Any) -> str:
    return (
        " ".join([context.command_path, *command.collect_usage_pieces(context)]).replace("[[", "[").replace("]]", "]")
    )


def _paragraphs(help_text: str | None) -> str:
    return "\n\n".join(prose(paragraph) for paragraph in (help_text or "").split("\n\n"))


def _options(command: Any, context: Any) -> str:
    rows = []
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is None or "--help" in parameter.opts:
            continue
        usage, text = record[0], " ".join(record[1].replace(f"{CHECKOUT}/", "").split())
        extra = _EXTRA.search(text)
        meaning = prose(text[: extra.start()] if extra else text)
        rows.append((code(_shown(usage)), " ".join([meaning, *(_extra(extra["extra"]) if extra else ())])))
    return table(("option or argument", "meaning"), rows) if rows else ""


def _shown(usage: str) -> str:
    """`--port INT` rather than `--port <int range>`, `FILE` rather than `[FILE] <str>`."""
    if usage.startswith("["):
        return usage.partition("]")[0].removeprefix("[")
    usage = re.sub(r"<list\[(\w+)\]>", lambda found: f"<{found[1]}>", usage)
    usage = re.sub(r"<(\w+) range>", lambda found: f"<{found[1]}>", usage)
    return re.sub(r"<(str|int|float|path)>", lambda found: {"str": "TEXT"}.get(found[1], found[1].upper()), usage)


def _extra(text: str) -> Iterator[str]:
    """Default and range, as sentences."""
    for part in text.split("; "):
        name, _, value = part.partition(": ")
        if name == "default":
            yield f"Default: {code(value)}."
        elif between := re.fullmatch(r"([\d.]+)<=x<=([\d.]+)", part):
            yield f"From {between[1]} to {between[2]}."
        elif least := re.fullmatch(r"x>=([\d.]+)", part):
            yield f"{least[1]} or more."
        else:
            yield sentence(part)


def _worker() -> Iterator[str]:
    parser = option_parser()
    yield "## worker.py"
    yield prose(parser.description or "")
    yield f"```text\npython {' '.join(parser.format_usage().removeprefix('usage: ').split())}\n```"
    rows = [
        (code(_named(action)), prose(action.help or ""))
        for action in parser._actions
        if action.help != argparse.SUPPRESS and not isinstance(action, argparse._HelpAction)
    ]
    yield table(("option", "meaning"), rows)


def _named(action: argparse.Action) -> str:
    value = [] if action.nargs == 0 else [action.metavar or action.dest.upper()]
    return " ".join([*action.option_strings[-1:], *map(str, value)])
