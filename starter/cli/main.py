"""The command line: `python -m starter COMMAND`."""

import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated

import typer
from typer import TyperException
from typer.main import get_command

from starter.cli.commands import LazyGroup
from starter.cli.input.optional_values import with_seconds

_WELCOME = """Bellwire: publish an event once, and every matching subscription gets it: by email, SMS, push, chat or webhook.

Start with `demo`, which needs nothing, or with `dev`, a whole stack on this machine. For your own stack: `setup` once,
`python worker.py`, then `subscribe` and `publish`. TEMPORAL_* and BELLWIRE_* variables configure all commands."""

app = typer.Typer(
    cls=LazyGroup,
    help=_WELCOME,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"bellwire {version('bellwire')}")
        raise typer.Exit


@app.callback()
def options(
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Nothing of its own: each command follows."""


def main(arguments: Sequence[str]) -> int:
    """Run a command and return its exit status: 0 done, 1 failed, 2 bad input, 130 interrupted."""
    for position, argument in enumerate(arguments, 1):
        if not argument.isascii() and any("\ud800" <= character <= "\udfff" for character in argument):
            typer.echo(f"error: argument {position}: is not UTF-8", err=True)
            return 2
    try:
        status = get_command(app).main(with_seconds(arguments), prog_name="python -m starter", standalone_mode=False)
        sys.stdout.flush()
    except TyperException as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # typer does not export it; the message is the help
            typer.echo(error.format_message(), err=True)
            return error.exit_code
        _put_into_own_words(error)
        typer.echo(f"error: {' '.join(error.format_message().split()).rstrip('.')}; see --help", err=True)
        return error.exit_code
    except BrokenPipeError:
        # The reader of stdout has closed it. What is left in the buffer must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (KeyboardInterrupt, typer.Abort):
        return 130
    return status if isinstance(status, int) else 0


def _put_into_own_words(error: TyperException) -> None:
    """Say what is wrong with the value of an option as other errors do: typer repeats what pydantic says."""
    # Loaded by typer as well, but only for an option that has a value.
    from pydantic import ValidationError

    from bellwire.errors import problem_text

    if isinstance(error.__cause__, ValidationError):
        error.message = problem_text(error.__cause__.errors(include_url=False)[0])
