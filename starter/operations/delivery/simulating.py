"""Simulating: which of the last events of a tenant a subscription would have matched, without storing it."""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import Field, ValidationError

from bellwire.events import Event
from bellwire.filters import EventView, Filter, TypePattern
from bellwire.models import StrictInput, json_number
from bellwire.registry import Registry
from bellwire.tenants import DEFAULT_TENANT, TenantName
from starter.operations.delivery.explanation_steps import Step, filter_steps, type_step
from starter.operations.problems import InputInvalid, problems_of

#: Events that are tried, unless told otherwise, and at most.
DEFAULT_LAST, MAX_LAST = 100, 1_000
#: Events whose content is read at a time; each may have 256 KB.
PAGE = 50
#: Seconds after which no further event or filter is tried.
MAX_SECONDS = 5.0
#: Events of each kind that a result shows.
SHOWN = 10


class SimulationInput(StrictInput):
    """What a subscription wants, and how many events it is tried on."""

    tenant: TenantName = DEFAULT_TENANT
    types: Annotated[tuple[TypePattern, ...], Field(min_length=1, max_length=100)] = ("*",)
    filters: Annotated[tuple[Filter, ...], Field(max_length=100)] = ()
    last: Annotated[int, Field(ge=1, le=MAX_LAST), json_number] = DEFAULT_LAST


@dataclass(frozen=True, kw_only=True)
class TriedEvent:
    """An event that the subscription was tried on."""

    event: Event
    accepted_at: datetime
    #: Type and filters.
    steps: tuple[Step, ...]


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """What a subscription would have matched."""

    tenant: str
    looked_at: int
    matched: int
    #: The first ones, the newest first.
    matches: tuple[TriedEvent, ...]
    #: The first ones that did not match, the newest first.
    others: tuple[TriedEvent, ...]
    #: Events that were accepted before were not looked at; None: all stored events were.
    since: datetime | None
    #: Whether it ended early, because it took too long.
    interrupted: bool


def read_simulation(value: dict[str, Any]) -> SimulationInput:
    """Raises InputInvalid with a problem for each bad field."""
    try:
        return SimulationInput.model_validate(value)
    except ValidationError as error:
        raise InputInvalid.of(problems_of(error, known=SimulationInput.known_fields)) from error


async def simulate(
    registry: Registry,
    wanted: SimulationInput,
    *,
    shown: int = SHOWN,
    max_seconds: float = MAX_SECONDS,
) -> Simulation:
    """Try type patterns and filters on the last stored events of the tenant, as if the subscription were active.

    Shows `shown` events of each kind. `max_seconds` bounds what it costs.
    """
    began = datetime.now(UTC)
    recent = await registry.explanations.recent_events(wanted.tenant, limit=wanted.last)
    ends = time.monotonic() + max_seconds
    looked_at = matched = 0
    matches: list[TriedEvent] = []
    others: list[TriedEvent] = []
    last_at: datetime | None = None
    interrupted = False
    async with aclosing(_contents(registry, recent.keys)) as contents:
        async for event, accepted_at in contents:
            if looked_at and time.monotonic() > ends:
                interrupted = True
                break
            steps = await _steps(event, wanted, ends=ends)
            if steps is None:
                interrupted = True
                break
            fits = all(step.passed for step in steps)
            looked_at, matched, last_at = looked_at + 1, matched + fits, accepted_at
            kept = matches if fits else others
            if len(kept) < shown:
                kept.append(TriedEvent(event=event, accepted_at=accepted_at, steps=tuple(steps)))
    return Simulation(
        tenant=wanted.tenant,
        looked_at=looked_at,
        matched=matched,
        matches=tuple(matches),
        others=tuple(others),
        since=(last_at or began) if interrupted else recent.since,
        interrupted=interrupted,
    )


async def _contents(registry: Registry, keys: Sequence[tuple[str, datetime]]) -> AsyncGenerator[tuple[Event, datetime]]:
    """The events with these keys, with their times, a page read at a time. Those that were purged meanwhile are left out."""
    for start in range(0, len(keys), PAGE):
        page = keys[start : start + PAGE]
        found = await registry.events.by_keys([key for key, _ in page])
        for key, accepted_at in page:
            if key in found:
                yield found[key], accepted_at
                # Filters may be costly: other requests of the process have their turn.
                await asyncio.sleep(0)


async def _steps(event: Event, wanted: SimulationInput, *, ends: float) -> Sequence[Step] | None:
    """Type and filters; None if the time ends before the last filter."""
    steps, tried = [type_step(event, wanted.types)], 0
    for tried, step in enumerate(filter_steps(EventView(event), wanted.filters), start=1):
        steps.append(step)
        if tried < len(wanted.filters):
            await asyncio.sleep(0)
            if time.monotonic() > ends:
                return None
    return steps
