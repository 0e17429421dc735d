"""`erase`: erases one recipient."""

import asyncio
from dataclasses import asdict
from typing import Annotated

import typer

from bellwire.formats.durations import format_duration
from bellwire.service.settings import Settings
from bellwire.targets import Channel
from starter.cli.input.addresses import ADDRESS_HELP
from starter.cli.input.durations import parse_duration
from starter.cli.tables import print_facts
from starter.cli.terminal import AsJson, command, note, opened_registry, print_json
from starter.operations.platform import retention
from starter.operations.platform.recipients import Recipient

#: Runs that are named in the note; --json names all.
MAX_NAMED = 10


@command
async def erase(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help=ADDRESS_HELP)],
    channel: Annotated[
        Channel | None, typer.Option(help="Its channel; if omitted, email for an address with an @, otherwise sms.")
    ] = None,
    events: Annotated[
        bool, typer.Option("--events", help="Also data and subject of events that were sent to this recipient only.")
    ] = False,
    grace: Annotated[str, typer.Option(metavar="DURATION", help="How long to wait for attempts in flight.")] = "1m",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be erased, and change nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Erase one recipient: the address, and the record of what was sent to it.

    Subscriptions to other recipients keep those. A subscription without recipients is kept, disabled, for its id. Unsettled
    deliveries to this recipient only are cancelled. A suppression is kept without the address, so that it still holds.
    """
    recipient = Recipient.parse(address, channel)
    seconds = parse_duration("--grace", grace)

    async def wait() -> None:
        note(f"waiting {format_duration(seconds)} for attempts that may be in flight")
        await asyncio.sleep(seconds)

    async with opened_registry(Settings.read()) as registry:
        erased = await retention.erase(
            registry, recipient, events=events, dry_run=dry_run, wait=wait if seconds else None
        )
    workflow_ids = sorted(erased.workflow_ids)
    if as_json:
        print_json(
            {"channel": str(recipient.channel), **asdict(erased), "workflow_ids": workflow_ids, "dry_run": dry_run}
        )
        return
    print_facts(
        [
            ("to erase" if dry_run else "erased", f"a recipient of {recipient.channel}"),
            ("subscriptions emptied", ", ".join(erased.emptied) or "none"),
            ("subscriptions with other recipients", ", ".join(erased.shared) or "none"),
            ("deliveries erased", f"{erased.deliveries:,}"),
            ("attempts erased", f"{erased.attempts:,}"),
            ("deliveries cancelled", f"{erased.cancelled:,}"),
            ("events erased", f"{erased.events:,}" if events else "not requested"),
            ("suppressions kept by hash", f"{erased.suppressions:,}"),
        ]
    )
    if not any((erased.emptied, erased.shared, erased.suppressions)):
        note(f"nothing is stored of this address on {recipient.channel}; check its spelling, its account and --channel")
    if workflow_ids and not dry_run:
        more = f" and {len(workflow_ids) - MAX_NAMED:,} more" if len(workflow_ids) > MAX_NAMED else ""
        note(f"workflows that see the cancellation when it is due next: {', '.join(workflow_ids[:MAX_NAMED])}{more}")
