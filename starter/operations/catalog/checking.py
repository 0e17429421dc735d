"""Checking: events at the time of publishing, by the catalog as it is stored."""

import time
from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

from bellwire.catalog.catalog import CheckedType, refuse, unknown_type
from bellwire.errors import EventInvalid
from bellwire.events import Event
from bellwire.registry import Registry

#: Seconds for which a process uses a type as it was read. A change takes effect after that.
TRUST_SECONDS = 3.0
#: Types that a process remembers, those that do not exist included.
MAX_REMEMBERED = 10_000


class _Remembered(NamedTuple):
    #: None: the catalog does not have it.
    checked: CheckedType | None
    until: float


class PublishedTypes:
    """Checks events by their types. It reads types from the registry, and remembers them for TRUST_SECONDS."""

    def __init__(self, registry: Registry, *, refuse_unknown: bool = False) -> None:
        self._registry = registry
        self._refuse_unknown = refuse_unknown
        self._remembered: OrderedDict[str, _Remembered] = OrderedDict()

    async def check(self, event: Event) -> None:
        """Raises EventInvalid, which points into the data: `data.items[3].price: …`; RegistryUnavailable."""
        known = await self._find(event.type)
        if known is not None:
            refuse(known.problems(event))
        elif self._refuse_unknown:
            raise unknown_type(event.type)

    async def problems(self, events: Iterable[Event]) -> list[str | None]:
        """What is wrong with each event; None for a valid one. Raises RegistryUnavailable."""
        found: list[str | None] = []
        for event in events:
            try:
                await self.check(event)
            except EventInvalid as error:
                found.append(str(error))
            else:
                found.append(None)
        return found

    async def _find(self, name: str) -> CheckedType | None:
        now = time.monotonic()
        remembered = self._remembered.get(name)
        if remembered and now < remembered.until:
            return remembered.checked
        stored = await self._registry.event_types.find(name)
        checked = None if stored is None else CheckedType(stored)
        if checked and remembered and remembered.checked and remembered.checked.event_type == stored:
            checked = remembered.checked  # with the validators that it has made
        self._remembered[name] = _Remembered(checked, now + TRUST_SECONDS)
        self._remembered.move_to_end(name)
        while len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)
        return checked
