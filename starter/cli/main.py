"""The command line: `python -m starter COMMAND`."""

import os
import re
import sys
from collections.abc import Sequence

import typer
from typer import TyperException
from typer.main import get_command

from starter.cli.admin import keys, limits
from starter.cli.admin.dev import dev
from starter.cli.admin.erase import erase
from starter.cli.admin.gateway import gateway
from starter.cli.admin.purge import purge
from starter.cli.admin.rekey import rekey
from starter.cli.admin.setup import setup
from starter.cli.delivery import deliveries, events
from starter.cli.delivery.publish import DEFAULT_WAIT, publish
from starter.cli.demo.command import demo
from starter.cli.subscribers import subscriptions, suppressions, templates
from starter.cli.subscribers.bounces import bounces
from starter.cli.subscribers.subscribe import subscribe
from starter.cli.terminal import BAD_INPUT, note

_WELCOME = """Bellwire: publish an event once; it is delivered to every matching subscription by email, SMS or webhook.

Start with `demo`, which needs nothing, or with `dev`, a whole stack on this machine. For your own stack: `setup` once,
`python worker.py`, then `subscribe` and `publish`. TEMPORAL_* and BELLWIRE_* variables configure all commands."""

_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")

app = typer.Typer(
    help=_WELCOME,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(demo)
app.command()(dev)
app.command()(setup)
app.command()(subscribe)
app.add_typer(subscriptions.app, name="subscriptions")
app.command()(publish)
app.add_typer(events.app, name="events")
app.add_typer(deliveries.app, name="deliveries")
app.add_typer(suppressions.app, name="suppressions")
app.command()(bounces)
app.add_typer(limits.app, name="limits")
app.add_typer(templates.app, name="templates")
app.command()(purge)
app.command()(erase)
app.add_typer(keys.app, name="keys")
app.command()(rekey)
app.command()(gateway)


def main(arguments: Sequence[str]) -> int:
    """Run a command and return its exit status: 0 done, 1 failed, 2 bad input, 130 interrupted."""
    for position, argument in enumerate(arguments, 1):
        if not argument.isascii() and any("\ud800" <= character <= "\udfff" for character in argument):
            note(f"error: argument {position}: is not UTF-8")
            return BAD_INPUT
    try:
        status = get_command(app).main(_with_seconds(arguments), prog_name="python -m starter", standalone_mode=False)
        sys.stdout.flush()
    except TyperException as error:
        note(f"error: {' '.join(error.format_message().split()).rstrip('.')}; see --help")
        return error.exit_code
    except BrokenPipeError:
        # The reader of stdout has closed it. What is left in the buffer must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (KeyboardInterrupt, typer.Abort):
        return 130
    return status if isinstance(status, int) else 0


def _with_seconds(arguments: Sequence[str]) -> list[str]:
    """The arguments, with a value for a bare --wait: typer has no options with an optional value."""
    completed = []
    for position, argument in enumerate(arguments):
        following = arguments[position + 1] if position + 1 < len(arguments) else ""
        bare = argument == "--wait" and not _NUMBER.fullmatch(following)
        completed.append(f"--wait={DEFAULT_WAIT}" if bare else argument)
    return completed
