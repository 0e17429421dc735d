"""`subscriptions simulate`: which of the last events a subscription would have matched."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from bellwire.formats.counts import counted
from bellwire.service.settings import Settings
from starter.cli.input.documents import read_items, read_value
from starter.cli.subscribers import options
from starter.cli.tables import cell, print_table
from starter.cli.terminal import AsJson, command, note, opened_registry, print_json
from starter.operations.delivery import simulating
from starter.operations.delivery.simulating import Simulation, TriedEvent
from starter.operations.documents import object_of
from starter.operations.problems import InputInvalid

#: The fields of a subscription that decide what it matches.
_FIELDS = ("tenant", "types", "filters")


@command
async def simulate(
    tenant: Annotated[str | None, typer.Option(help="Tenant of the events; `default` if omitted.")] = None,
    types: options.Types = None,
    filters: options.Filters = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file", help="A subscription as JSON, whose tenant, types and filters are tried; - reads stdin."
        ),
    ] = None,
    last: Annotated[
        int, typer.Option(min=1, max=simulating.MAX_LAST, help="How many of the last events it is tried on.")
    ] = simulating.DEFAULT_LAST,
    shown: Annotated[
        int, typer.Option("--show", min=0, max=100, help="Events to show of each kind: matched, and not.")
    ] = simulating.SHOWN,
    as_json: AsJson = False,
) -> None:
    """Try types and filters on the last events of a tenant, without storing a subscription."""
    fields = options.given(
        tenant=tenant,
        types=types,
        filters=[read_value("--filter", text) for text in filters or ()],
    )
    if file is not None:
        if fields:
            raise InputInvalid("cannot be combined with other options", field="--file", remedy="omit them")
        fields = _read(str(file))
    wanted = simulating.read_simulation({**fields, "last": last})
    async with opened_registry(Settings.read()) as registry:
        simulation = await simulating.simulate(registry, wanted, shown=shown)
    if as_json:
        print_json(_as_json(simulation))
        return
    _print_events("matched", simulation.matches, with_reason=False)
    _print_events("not matched", simulation.others, with_reason=True)
    note(f"{simulation.matched:,} of {counted(simulation.looked_at, 'event')} of {simulation.tenant} matched")
    if simulation.since is not None:
        early = "it took too long, so " if simulation.interrupted else ""
        note(f"{early}events before {cell(simulation.since)} were not looked at")


def _read(name: str) -> dict[str, Any]:
    items = read_items(name)
    if len(items) != 1:
        raise InputInvalid(f"{name} holds {len(items)} subscriptions", field="--file", remedy="give one")
    return {field: value for field, value in object_of(items[0]).items() if field in _FIELDS}


def _print_events(title: str, tried: Sequence[TriedEvent], *, with_reason: bool) -> None:
    rows = [
        (
            *(each.event.id, each.event.type, each.event.source, each.accepted_at),
            *([" ".join(step.text for step in each.steps if not step.passed)] if with_reason else []),
        )
        for each in tried
    ]
    print_table(("event", "type", "source", "accepted", *(["why not"] if with_reason else [])), rows, title=title)


def _as_json(simulation: Simulation) -> dict[str, Any]:
    return {
        "tenant": simulation.tenant,
        "looked_at": simulation.looked_at,
        "matched": simulation.matched,
        "matches": [_event_as_json(each) for each in simulation.matches],
        "others": [_event_as_json(each) for each in simulation.others],
        "since": simulation.since and simulation.since.isoformat(),
        "interrupted": simulation.interrupted,
    }


def _event_as_json(tried: TriedEvent) -> dict[str, Any]:
    return {
        "key": tried.event.key,
        "id": tried.event.id,
        "source": tried.event.source,
        "type": tried.event.type,
        "accepted_at": tried.accepted_at.isoformat(),
        "steps": [asdict(step) for step in tried.steps],
    }
