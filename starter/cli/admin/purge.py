"""`purge`: deletes events that are old and settled."""

import time
from dataclasses import asdict
from datetime import timedelta
from typing import Annotated

import typer

from bellwire.formats.counts import counted
from bellwire.registry.upkeep.results import Purged
from bellwire.service.settings import Settings
from bellwire.temporal.connection import connect
from starter.cli.input.durations import parse_duration
from starter.cli.tables import print_facts
from starter.cli.terminal import AsJson, command, note, opened_registry, print_json
from starter.operations.platform import retention
from starter.operations.problems import InputInvalid

#: Seconds between two notes on the progress.
PROGRESS_SECONDS = 2.0

DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be deleted, and change nothing.")]


@command
async def purge(
    older_than: Annotated[str, typer.Option(metavar="DURATION", help="Accepted longer ago than this: 30d, 36h.")],
    dry_run: DryRun = False,
    force: Annotated[bool, typer.Option("--force", help="Also events that are younger than a day.")] = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="Do not ask Temporal which runs are open and may find more subscriptions.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Delete old events with their deliveries and attempts.

    An event with an unsettled delivery, or with an open run, stays. Workers may run meanwhile, and an interrupted purge can
    be started again. A purged event is unknown: published again, it is delivered again.
    """
    before = retention.purge_time(_age(older_than), force=force)
    async with opened_registry(Settings.read()) as registry:
        purged = await retention.purge(
            registry, before, temporal=None if offline else await connect(), dry_run=dry_run, report=_Progress()
        )
    if as_json:
        print_json({**asdict(purged), "before": before.isoformat(), "dry_run": dry_run})
        return
    print_facts(
        [
            ("accepted before", before),
            ("events to delete" if dry_run else "events deleted", f"{purged.events:,}"),
            ("deliveries", f"{purged.deliveries:,}"),
            ("attempts", f"{purged.attempts:,}"),
            ("events kept, unsettled", f"{purged.kept:,}"),
        ]
    )


def _age(older_than: str) -> timedelta:
    try:
        return timedelta(seconds=parse_duration("--older-than", older_than))
    except OverflowError as error:
        raise InputInvalid("is out of range", field="older_than") from error


class _Progress:
    """Prints a note on a purge's progress from time to time."""

    def __init__(self) -> None:
        self._noted_at = time.monotonic()

    def __call__(self, so_far: Purged) -> None:
        if time.monotonic() >= self._noted_at + PROGRESS_SECONDS:
            self._noted_at = time.monotonic()
            note(
                f"{counted(so_far.events, 'event')}, {counted(so_far.deliveries, 'delivery')} so far; {so_far.kept:,} kept"
            )
