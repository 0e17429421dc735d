"""The commands of `bellwire`, and their common options."""

import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated

import typer
from typer.main import get_command

from bellwire.cli import explaining, following, listening, polling, publishing, subscribing
from bellwire.cli.output import note

app = typer.Typer(
    help="Publish events, subscribe to them and follow their deliveries over the HTTP API.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
for function in (
    publishing.publish,
    subscribing.subscribe,
    subscribing.subscriptions,
    subscribing.update,
    following.events,
    following.deliveries,
    following.redeliver,
    explaining.explain,
    explaining.simulate,
    listening.listen,
    polling.poll,
):
    app.command(function.__name__)(function)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"bellwire {version('bellwire')}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    url: Annotated[str, typer.Option(envvar="BELLWIRE_URL", help="The URL of the gateway.")] = "",
    key: Annotated[
        str, typer.Option(envvar="BELLWIRE_KEY", help="An API key. In the environment, other users cannot see it.")
    ] = "",
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """The gateway and the key, for all commands."""
    context.obj = (url, key)


def run(arguments: Sequence[str]) -> int:
    """Run a command and return its exit status: 0 done, 1 failed, 2 bad input, 130 interrupted."""
    try:
        status = get_command(app).main(list(arguments), prog_name="bellwire", standalone_mode=False)
        sys.stdout.flush()
    except typer.TyperException as error:
        note(error.format_message())
        return error.exit_code
    except BrokenPipeError:
        # The reader of stdout has closed it. What is left in the buffer must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (KeyboardInterrupt, typer.Abort):
        return 130
    return status if isinstance(status, int) else 0
