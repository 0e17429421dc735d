"""Checking: events at the time of publishing, by the catalog as it is stored."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from bellwire.catalog.catalog import CheckedType, unknown_type
from bellwire.catalog.validating import DataProblem
from bellwire.events import Event
from bellwire.registry import Registry
from starter.operations.problems import Problem

#: Seconds for which a process uses a type as it was read. A change takes effect after that.
TRUST_SECONDS = 3.0
#: Types that a process remembers, those that do not exist included.
MAX_REMEMBERED = 10_000


async def problems_of_events(types: "PublishedTypes", events: Sequence[Event]) -> list[Problem]:
    """What is wrong with events, each at its place if there are several. Raises RegistryUnavailable."""
    return [
        Problem(message=each.message, field=each.field, place=f"event {number}" if len(events) > 1 else "")
        for number, event in enumerate(events, 1)
        for each in await types.problems(event)
    ]


async def deprecations_of(types: "PublishedTypes", events: Sequence[Event]) -> dict[str, str]:
    """Why types of these events are deprecated, by type. Raises RegistryUnavailable."""
    found = {name: await types.deprecation(name) for name in dict.fromkeys(event.type for event in events)}
    return {name: reason for name, reason in found.items() if reason is not None}


class _Remembered(NamedTuple):
    #: None: the catalog does not have it.
    checked: CheckedType | None
    until: float


class PublishedTypes:
    """Checks events by their types. It reads types from the registry, and remembers them for TRUST_SECONDS."""

    def __init__(self, registry: Registry, *, refuse_unknown: bool = False, trust: float = TRUST_SECONDS) -> None:
        """`trust`: seconds for which a type is used as it was read."""
        self._registry = registry
        self._refuse_unknown = refuse_unknown
        self._trust = trust
        self._remembered: OrderedDict[str, _Remembered] = OrderedDict()

    async def problems(self, event: Event) -> Sequence[DataProblem]:
        """What is wrong with an event, each problem at its place: `data.items[3].price`. Raises RegistryUnavailable."""
        known = await self._find(event.type)
        if known is not None and known.is_prepared(event):
            return known.problems(event)
        if known is not None:
            # In a thread, so that a costly schema stops nothing else.
            return await asyncio.to_thread(known.problems, event)
        return [unknown_type(event.type)] if self._refuse_unknown else ()

    async def deprecation(self, event_type: str) -> str | None:
        """Why a type is deprecated, and what to use instead; None if it is not. Raises RegistryUnavailable."""
        known = await self._find(event_type)
        return None if known is None else known.event_type.deprecated

    async def _find(self, name: str) -> CheckedType | None:
        now = time.monotonic()
        remembered = self._remembered.get(name)
        if remembered and now < remembered.until:
            return remembered.checked
        stored = await self._registry.event_types.find(name)
        checked = None if stored is None else CheckedType(stored)
        if checked and remembered and remembered.checked and remembered.checked.event_type == stored:
            checked = remembered.checked  # with the validators that it has made
        self._remembered[name] = _Remembered(checked, now + self._trust)
        self._remembered.move_to_end(name)
        while len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)
        return checked
