"""`bounces`: reads reports of mail systems from files or a pipe, and suppresses the addresses that they are about."""

from dataclasses import asdict
from typing import Annotated

import typer

from bellwire.email.bounce_reports import MAX_BYTES
from bellwire.errors import NotSetUp, RegistryUnavailable
from bellwire.service.settings import Settings, SettingsInvalid
from starter.cli.input.mails import read_mails
from starter.cli.tables import print_table
from starter.cli.terminal import AsJson, command, note, opened_registry, print_json
from starter.operations.subscribers.bounces import process_report

#: The exit status that makes a mail server try again later (EX_TEMPFAIL of sysexits.h).
TRY_AGAIN = 75


@command
async def bounces(
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE", help="A mail, an mbox file or a Maildir; - or nothing reads a mail from stdin."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Read bounces and complaints, and suppress the addresses that they are about.

    Works in a mail server's pipe: it exits with 0 for every mail that it has read, and with 75 (try again later) if the
    registry cannot be reached. Reading a mail twice changes nothing.
    """
    try:
        settings = Settings.read()
        async with opened_registry(settings) as registry:
            processed = [
                await process_report(registry, settings.return_path, place, raw)
                for name in files or ["-"]
                for place, raw in read_mails(name, max_bytes=MAX_BYTES)
            ]
    except (RegistryUnavailable, NotSetUp, SettingsInvalid) as error:
        note(f"error: {error}")
        raise typer.Exit(TRY_AGAIN) from error
    if as_json:
        print_json([asdict(each) for each in processed])
        return
    rows = [(each.mail, each.result, each.report, each.address, each.reason, each.delivery) for each in processed]
    print_table(("mail", "result", "report", "address", "reason", "delivery"), rows)
