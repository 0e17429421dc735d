"""EventFeed: the events that are new since the last call, none twice and none left out."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from bellwire.cli.gateway import Gateway
from bellwire.filters.patterns import type_matches

#: How far back each call looks. An event gets its time before the transaction that stores it ends, from the clock of a worker;
#: so an event may appear after later ones.
OVERLAP = timedelta(seconds=30)


class EventFeed:
    """Asks the gateway, which needs no way to reach this machine. A call that fails has changed nothing: repeat it."""

    def __init__(self, gateway: Gateway, *, tenant: str | None = None, types: Sequence[str] = ()) -> None:
        self._gateway, self._tenant, self._types = gateway, tenant, types
        #: The latest time of an event that was seen.
        self._latest: datetime | None = None
        #: Keys of events that later calls may find again, with their times.
        self._seen: dict[str, datetime] = {}

    async def start(self, since: datetime | None) -> None:
        """Begin with the events since this time; None: with those that are published from now on."""
        if since is not None:
            # `new` looks back from here.
            self._latest = since + OVERLAP
            return
        async for item in self._gateway.items("/v1/events", limit=1, tenant=self._tenant):
            self._latest = datetime.fromisoformat(item["accepted_at"])
        await self.new()

    async def new(self) -> list[dict[str, Any]]:
        """Events in the CloudEvents format by key, oldest first: `{"key", "event", "accepted_at", …}`."""
        since = self._latest and self._latest - OVERLAP
        query = {"tenant": self._tenant, "since": since and since.isoformat()}
        found = [
            item
            async for item in self._gateway.items("/v1/events", limit=None, **query)
            if item["key"] not in self._seen
        ]
        for item in found:
            at = datetime.fromisoformat(item["accepted_at"])
            self._seen[item["key"]] = at
            self._latest = at if self._latest is None else max(at, self._latest)
        if self._latest:
            self._seen = {key: at for key, at in self._seen.items() if at >= self._latest - OVERLAP}
        return [item for item in reversed(found) if self._selects(item["event"]["type"])]

    def _selects(self, event_type: str) -> bool:
        return not self._types or any(type_matches(pattern, event_type) for pattern in self._types)
