"""KnownTenants: which published events are for a tenant that never had a subscription, and whether they are refused."""

from collections.abc import Iterable, Mapping, Sequence

from bellwire.contract import EventSummary, PublishResult
from bellwire.events import Event
from bellwire.registry import Registry
from bellwire.registry.operational_events import SOURCE
from bellwire.tenants import ALL_TENANTS


class KnownTenants:
    """Finds events of unknown tenants. A tenant that is known stays known, so it is asked for once in a process.

    Operational events go to tenants that Bellwire knows, or to `default`, and are never refused.
    """

    def __init__(self, registry: Registry, *, refuse: bool) -> None:
        self._registry = registry
        self._refuse = refuse
        self._known = {ALL_TENANTS}

    async def divide(self, events: Sequence[Event]) -> tuple[Sequence[Event], Sequence[Event]]:
        """The events to accept, and those to refuse."""
        unknown = await self._unknown(events) if self._refuse else set()
        if not unknown:
            return events, ()
        refused = [event for event in events if event.tenant in unknown and event.source != SOURCE]
        keys = {event.key for event in refused}
        return [event for event in events if event.key not in keys], refused

    async def marked(
        self,
        summaries: Mapping[str, EventSummary],
        events: Sequence[Event],
        refused: Iterable[Event],
        workflow_id: str,
    ) -> dict[str, EventSummary]:
        """The summaries of all events, with the refused ones, and marked where the tenant is unknown."""
        unknown = await self._unknown(events)
        found = dict(summaries)
        for event in refused:
            summary = EventSummary(source=event.source, id=event.id, workflow_id=workflow_id)
            found[event.key] = summary.model_copy(update={"result": PublishResult.REFUSED})
        for event in events:
            if event.tenant in unknown and event.source != SOURCE:
                found[event.key] = found[event.key].model_copy(update={"unknown_tenant": True})
        return found

    async def _unknown(self, events: Sequence[Event]) -> set[str]:
        asked = {event.tenant for event in events} - self._known
        if asked:
            self._known |= await self._registry.subscriptions.known_tenants(asked)
        return asked - self._known
