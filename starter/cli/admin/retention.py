"""`purge`: gives up events that are old and settled. `erase`: gives up what is kept of one recipient."""

import asyncio
import time
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated

import typer
from pydantic import ValidationError
from temporalio.service import RPCError

from bellwire.contract import NOTIFY
from bellwire.errors import TemporalUnavailable
from bellwire.registry.upkeep.retention import Purged
from bellwire.service.settings import Settings
from bellwire.targets import Channel, EmailTarget, SmsTarget
from bellwire.temporal.connection import connect
from starter.cli.input.durations import in_words, parse_duration
from starter.cli.tables import print_facts
from starter.cli.terminal import (
    AsJson,
    InputInvalid,
    command,
    note,
    opened_registry,
    print_json,
)

#: What is younger is not purged without --force: a publisher that repeats itself must still be recognised.
YOUNGEST = timedelta(days=1)
#: Seconds between two words of how far a purge has come.
PROGRESS_SECONDS = 2.0
#: Runs that are named to people; --json names all.
SHOWN = 10

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would go, and change nothing.")]


class Addressed(StrEnum):
    """A channel whose targets are addresses of people."""

    EMAIL = Channel.EMAIL.value
    SMS = Channel.SMS.value


@command
async def purge(
    older_than: Annotated[str, typer.Option(metavar="DURATION", help="Accepted longer ago than this: 30d, 36h.")],
    dry_run: DryRun = False,
    force: Annotated[bool, typer.Option("--force", help="Also what is younger than a day.")] = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="Do not ask Temporal which runs may still be finding subscribers.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Delete old events with their deliveries and attempts.

    An event with anything unsettled, or whose run is open, stays whole. Workers may run meanwhile, and what was interrupted
    can be begun again. An event that is purged is forgotten: published again, it is delivered again.
    """
    before = _before(older_than, force=force)
    settings = Settings.read()
    async with opened_registry(settings) as registry:
        open_runs = frozenset[str]() if offline else await _open_runs()
        purged = await registry.retention.purge(before, open_runs=open_runs, dry_run=dry_run, report=_Progress())
    if as_json:
        print_json({**asdict(purged), "before": before.isoformat(), "dry_run": dry_run})
        return
    print_facts(
        [
            ("accepted before", before),
            ("events that would go" if dry_run else "events deleted", f"{purged.events:,}"),
            ("deliveries", f"{purged.deliveries:,}"),
            ("attempts", f"{purged.attempts:,}"),
            ("events that stay, unsettled", f"{purged.stayed:,}"),
        ]
    )


def _before(older_than: str, *, force: bool) -> datetime:
    age = parse_duration("--older-than", older_than)
    if age < YOUNGEST.total_seconds() and not force:
        raise InputInvalid(
            f"--older-than: {older_than} is less than {in_words(YOUNGEST.total_seconds())}; an event that is purged is "
            "delivered again if it is published again, so keep it for longer, or insist with --force"
        )
    try:
        return datetime.now(UTC) - timedelta(seconds=age)
    except OverflowError as error:
        raise InputInvalid(f"--older-than: {older_than} ago is before all calendars") from error


async def _open_runs() -> frozenset[str]:
    """Runs of publications that are open. One that was kept from working for long may yet find subscribers."""
    client = await connect()
    try:
        found = client.list_workflows(f"WorkflowType = '{NOTIFY}' AND ExecutionStatus = 'Running'", page_size=1000)
        return frozenset([run.id async for run in found])
    except RPCError as error:
        raise TemporalUnavailable(
            f"Temporal does not say which runs are open: {error}; --offline does not ask"
        ) from error


class _Progress:
    """Says every now and then how far a purge has come."""

    def __init__(self) -> None:
        self._said_at = time.monotonic()

    def __call__(self, so_far: Purged) -> None:
        if time.monotonic() >= self._said_at + PROGRESS_SECONDS:
            self._said_at = time.monotonic()
            note(f"{so_far.events:,} events, {so_far.deliveries:,} deliveries so far; {so_far.stayed:,} stay")


@command
async def erase(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="An email address, or a number as +14155550123.")],
    channel: Annotated[Addressed | None, typer.Option(help="The channel; told from the address, if left out.")] = None,
    events: Annotated[
        bool, typer.Option("--events", help="Also data and subject of events that went to nobody else.")
    ] = False,
    rest: Annotated[
        str, typer.Option(metavar="DURATION", help="How long to wait for attempts that are under way.")
    ] = "1m",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Erase one recipient: the address, and what is on record of what was sent to it.

    Subscriptions to others keep them; one that is left without recipients stays, empty and disabled, for its id. What is
    unsettled for this recipient only is cancelled. A suppression stays, without the address, so that nobody writes to it.
    """
    of, plain = _recipient(address, channel)
    seconds = parse_duration("--rest", rest)

    async def wait() -> None:
        note(f"waiting {in_words(seconds)} for attempts that may be under way")
        await asyncio.sleep(seconds)

    async with opened_registry(Settings.read()) as registry:
        erased = await registry.retention.erase(
            of, plain, events=events, dry_run=dry_run, rest=wait if seconds else None
        )
    runs = sorted(erased.runs)
    if as_json:
        print_json({"channel": str(of), **asdict(erased), "runs": runs, "dry_run": dry_run})
        return
    print_facts(
        [
            ("would be erased" if dry_run else "erased", f"a recipient of {of}"),
            ("subscriptions emptied", ", ".join(erased.emptied) or "none"),
            ("subscriptions to others too", ", ".join(erased.shared) or "none"),
            ("deliveries blanked", f"{erased.deliveries:,}"),
            ("attempts blanked", f"{erased.attempts:,}"),
            ("deliveries cancelled", f"{erased.cancelled:,}"),
            ("events blanked", f"{erased.events:,}" if events else "not asked for"),
            ("suppressions kept by key", f"{erased.suppressions:,}"),
        ]
    )
    if runs and not dry_run:
        more = f" and {len(runs) - SHOWN:,} more" if len(runs) > SHOWN else ""
        note(f"runs that find it cancelled when it is due next: {', '.join(runs[:SHOWN])}{more}")


def _recipient(address: str, channel: Addressed | None) -> tuple[Channel, str]:
    """The channel and the address. Raises InputInvalid, which does not repeat the address."""
    plain = address.strip()
    of = Channel(channel) if channel else Channel.EMAIL if "@" in plain else Channel.SMS
    try:
        _ = EmailTarget(to=plain) if of is Channel.EMAIL else SmsTarget(to=plain)
    except ValidationError as error:
        said = error.errors(include_url=False, include_input=False)[0]["msg"].removeprefix("Value error, ")
        raise InputInvalid(f"ADDRESS: {said}") from error
    return of, plain
