"""How commands speak: answers on stdout, as a table or as JSON; progress, remarks and errors on stderr."""

import asyncio
import functools
import json
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Annotated, Any, ParamSpec

import typer
from rich.console import Console

from bellwire.client import Client
from bellwire.errors import BellwireError, EventInvalid, KeysInvalid, SubscriptionInvalid, TemplateInvalid
from bellwire.registry import Registry
from bellwire.service.settings import Settings, SettingsInvalid

#: Columns of a table that is written to a file or a pipe, which has no width of its own.
WIDTH_WITHOUT_TERMINAL = 160

#: Exit statuses: what was asked failed; what was asked makes no sense, and nothing was started or stored.
FAILURE, BAD_INPUT = 1, 2

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

_Arguments = ParamSpec("_Arguments")


class InputInvalid(BellwireError, ValueError):
    """An option or a file is not usable; the message names it. Nothing was started or stored."""


class CommandFailed(BellwireError):
    """The command did not succeed."""


_BAD_INPUT = (InputInvalid, EventInvalid, SubscriptionInvalid, TemplateInvalid, SettingsInvalid, KeysInvalid)


def console(*, stderr: bool = False) -> Console:
    """A console that takes text as it is: what tenants and receivers wrote is never markup."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else WIDTH_WITHOUT_TERMINAL
    return Console(stderr=stderr, width=width, markup=False, highlight=False, emoji=False)


def printable(value: object) -> str:
    """`value` as one line of text; control characters, which could steer the terminal, become question marks."""
    return "".join(character if character.isprintable() else "?" for character in str(value))


def print_json(value: object) -> None:
    """Print a JSON document on stdout."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def note(text: str) -> None:
    """Print a line on stderr, where it does not mix with the answer."""
    typer.echo(text, err=True)


def report(error: Exception) -> int:
    """Print an expected error, a line for each problem, and return the exit status it stands for."""
    for line in str(error).split("\n"):
        note(f"error: {printable(line)}")
    return BAD_INPUT if isinstance(error, _BAD_INPUT) else FAILURE


def command(function: Callable[_Arguments, Coroutine[Any, Any, None]]) -> Callable[_Arguments, None]:
    """The synchronous function that typer wants: runs `function`; Bellwire's errors become lines and exit statuses."""

    @functools.wraps(function)
    def run(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> None:
        try:
            asyncio.run(function(*args, **kwargs))
        except BellwireError as error:
            raise typer.Exit(report(error)) from error

    return run


@asynccontextmanager
async def opened_registry(settings: Settings) -> AsyncIterator[Registry]:
    """The registry that the settings name. Raises RegistryUnavailable, or NotSetUp if its schema is missing or old."""
    registry = await Registry.open(settings.registry_url, pool=settings.registry_pool, ring=settings.ring)
    try:
        await registry.check()
        yield registry
    finally:
        await registry.close()


async def connected() -> Client:
    """A client that encrypts as the settings say. Raises TemporalUnavailable."""
    return await Client.connect(keys=Settings.read().ring)
