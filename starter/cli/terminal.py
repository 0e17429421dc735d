"""How commands print: results on stdout, as a table or as JSON; progress, notes and errors on stderr."""

import asyncio
import functools
import getpass
import json
import os
import platform
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Annotated, Any, ParamSpec, get_type_hints

import typer
from rich.console import Console
from temporalio.service import RPCError
from typer.models import ArgumentInfo, OptionInfo

from bellwire.client import Client
from bellwire.errors import BellwireError, KeysInvalid
from bellwire.registry import Registry
from bellwire.registry.db.auditing import Actor, acting
from bellwire.registry.db.engine import missing_file
from bellwire.service.settings import Settings, SettingsInvalid, environment
from bellwire.service.variables import misspelt_variables
from bellwire.temporal.connection import address, translate
from starter.operations.problems import InputInvalid, Kind, OperationError, kind_of, problems_of, text_of

#: Columns of a table that is written to a file or a pipe, which has no width of its own.
WIDTH_WITHOUT_TERMINAL = 160

#: Exit statuses: the command failed; its input is not usable, and nothing was started or stored.
FAILURE, BAD_INPUT = 1, 2

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

_Arguments = ParamSpec("_Arguments")


def group(summary: str, *, needs_command: bool = True) -> typer.Typer:
    """A group of commands. Alone it shows its help, or does what its callback does."""
    return typer.Typer(help=summary, no_args_is_help=needs_command, add_completion=False, rich_markup_mode=None)


def console(*, stderr: bool = False) -> Console:
    """A console that prints text as it is: markup in texts of tenants and receivers has no effect."""
    width = None if has_width(stderr=stderr) else WIDTH_WITHOUT_TERMINAL
    return Console(stderr=stderr, width=width, markup=False, highlight=False, emoji=False)


def has_width(*, stderr: bool = False) -> bool:
    """Whether what is printed has a width: on a terminal, or where COLUMNS names one."""
    return (sys.stderr if stderr else sys.stdout).isatty() or os.environ.get("COLUMNS", "").isdigit()


def printable(value: object) -> str:
    """`value` as one line of text; control characters, which could steer the terminal, become question marks."""
    return "".join(character if character.isprintable() else "?" for character in str(value))


def print_json(value: object) -> None:
    """Print a JSON document on stdout."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def note(text: str) -> None:
    """Print a line on stderr, where it does not mix with the result."""
    typer.echo(text, err=True)


def confirm(question: str) -> None:
    """Ask on the terminal; "no" ends the command. Raises InputInvalid where there is no terminal, for the option --yes."""
    if not sys.stdin.isatty():
        raise InputInvalid("is needed where there is no terminal to ask on", field="--yes")
    typer.confirm(question, abort=True, err=True)


def report(error: BellwireError, names: dict[str, str]) -> int:
    """Print an expected error, a line for each problem, and return its exit status.

    `names` are the command's own names of the operation's fields: `--older-than` for `older_than`.
    """
    for line in text_of(problems_of(error), lambda field: names.get(field, field)).split("\n"):
        note(f"error: {printable(line)}")
    bad_input = kind_of(error) is Kind.INVALID or isinstance(error, (SettingsInvalid, KeysInvalid))
    return BAD_INPUT if bad_input else FAILURE


def command(function: Callable[_Arguments, Coroutine[Any, Any, None]]) -> Callable[_Arguments, None]:
    """The synchronous function that typer needs: it runs `function` and reports Bellwire's errors."""

    @functools.wraps(function)
    def run(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> None:
        for warning in misspelt_variables(environment(), Settings.model_fields):
            note(f"warning: {warning}")
        try:
            with acting(Actor(_user(), platform.node())):
                asyncio.run(function(*args, **kwargs))
        except BellwireError as error:
            raise typer.Exit(report(error, _names(function))) from error
        except RPCError as error:
            # What no operation expects, such as a server that is too old for a call.
            known = translate(error, address()) or OperationError(f"Temporal at {address()} refused: {error}")
            raise typer.Exit(report(known, {})) from error

    return run


def _user() -> str:
    """The user of the command line, for the audit log."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        return "unknown"


def _names(function: Callable[..., object]) -> dict[str, str]:
    """The options and arguments of a command by the names of its parameters."""
    names = {}
    for parameter, annotation in get_type_hints(function, include_extras=True).items():
        for info in getattr(annotation, "__metadata__", ()):
            if isinstance(info, OptionInfo):
                # Within Annotated, typer has the first name where the default would be.
                declared = [str(each) for each in (info.default, *(info.param_decls or ()))]
                own = (name.partition("/")[0] for name in declared if name.startswith("--"))
                names[parameter] = next(own, f"--{parameter.replace('_', '-')}")
            elif isinstance(info, ArgumentInfo):
                names[parameter] = info.metavar or parameter.upper()
    return names


@asynccontextmanager
async def opened_registry(settings: Settings) -> AsyncIterator[Registry]:
    """The registry that the settings name. Raises RegistryUnavailable, SettingsInvalid if it names a file that does not exist, or
    NotSetUp if its schema is missing or old."""
    if (file := missing_file(settings.registry_url)) is not None:
        raise SettingsInvalid(
            f"BELLWIRE_REGISTRY_URL: there is no registry at {file}; correct the path, or make it with `python -m starter setup`"
        )
    registry = await Registry.open(settings.registry_url, pool=settings.registry_pool, ring=settings.ring)
    try:
        await registry.check()
        yield registry
    finally:
        await registry.close()


async def connected() -> Client:
    """A client that encrypts as the settings say. Raises TemporalUnavailable."""
    return await Client.connect(keys=Settings.read().ring)
