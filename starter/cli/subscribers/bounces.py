"""`bounces`: reads reports of mail systems from files or a pipe, and suppresses the addresses that they are about."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from bellwire.email.bounce_reports import MAX_BYTES
from bellwire.errors import NotSetUp, RegistryUnavailable
from bellwire.formats.counts import counted
from bellwire.registry import Registry
from bellwire.service.settings import Settings, SettingsInvalid
from starter.cli.input.kept_mails import NotKept, keep_mail
from starter.cli.input.mails import is_stream, read_mails
from starter.cli.tables import print_table
from starter.cli.terminal import AsJson, command, note, opened_registry, print_json
from starter.operations.subscribers.bounces import Processed, process_report

#: The exit status that makes a mail server try again later (EX_TEMPFAIL of sysexits.h).
TRY_AGAIN = 75
#: Where mails of a pipe are kept that could not be used, if no setting or option names a folder.
DEFAULT_FOLDER = Path("unread-bounces")


@command
async def bounces(
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE", help="Mails, mbox files or Maildirs; - or nothing reads stdin."),
    ] = None,
    unread: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Keep mails here that could not be used; by default BELLWIRE_BOUNCES_UNREAD."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Read bounces and complaints, and suppress the addresses that they are about.

    Works in a mail server's pipe: it exits with 0 once a mail is processed or kept, and with 75 (try again later) if the
    registry cannot be reached or the mail cannot be kept. Reading a mail twice changes nothing.
    """
    try:
        settings = Settings.read()
        folder = unread or settings.bounces_unread
        async with opened_registry(settings) as registry:
            processed = [each async for each in _process(registry, settings, files or ["-"], folder)]
    except (RegistryUnavailable, NotSetUp, SettingsInvalid, NotKept) as error:
        note(f"error: {error}")
        raise typer.Exit(TRY_AGAIN) from error
    if as_json:
        print_json([asdict(each) for each in processed])
    else:
        rows = [(each.mail, each.result, each.report, each.address, each.reason, each.delivery) for each in processed]
        print_table(("mail", "result", "report", "address", "reason", "delivery"), rows)
    if without_effect := sum(each.result.is_kept for each in processed):
        kept = sorted({str(Path(each.kept).parent) for each in processed if each.kept})
        where = f"; kept in {', '.join(kept)}" if kept else ""
        note(f"{without_effect:,} of {counted(len(processed), 'mail')} not usable{where}")


async def _process(
    registry: Registry, settings: Settings, names: Sequence[str], folder: Path | None
) -> AsyncIterator[Processed]:
    """What became of each mail. Mails of a pipe are kept in any case, since they cannot be read again."""
    for name in names:
        keep_in = folder or (DEFAULT_FOLDER if is_stream(name) else None)
        for place, raw in read_mails(name, max_bytes=MAX_BYTES):
            one = await process_report(registry, settings.return_path, place, raw)
            if one.result.is_kept and keep_in is not None and raw.strip():
                one = replace(one, kept=str(keep_mail(keep_in, raw)))
            yield one
