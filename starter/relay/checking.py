"""EventChecks: which events of an outbox were published before, and which ones Bellwire refuses, by the registry."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from bellwire.errors import TenantUnknown
from bellwire.events import Event
from bellwire.formats.storable import storable
from bellwire.formats.timestamps import parse_timestamp
from bellwire.registry import Registry
from bellwire.tenants import ALL_TENANTS
from starter.operations.catalog.checking import PublishedTypes
from starter.relay.store import WaitingRow

#: Characters of a reason that a row keeps.
MAX_REASON = 500


@dataclass(frozen=True, slots=True)
class CheckedRow:
    """A row whose event can be published."""

    row: WaitingRow
    event: Event
    #: When it is to be delivered; None: at once.
    deliver_at: datetime | None


@dataclass
class Checked:
    """What is to become of rows. Each is in one of the three."""

    #: In the order of the rows.
    publish: list[CheckedRow] = field(default_factory=list)
    #: Ids of rows whose events were published before.
    published: list[int] = field(default_factory=list)
    #: Why a row is refused, by its id.
    refused: dict[int, str] = field(default_factory=dict)

    def refuse(self, row: WaitingRow, reason: object) -> None:
        self.refused[row.id] = storable(str(reason), limit=MAX_REASON)


class EventChecks:
    """The checks of the registry. An event whose row was already published by a relay that was killed is found here."""

    def __init__(self, registry: Registry, *, refuse_tenants: bool = False, refuse_types: bool = False) -> None:
        """`refuse_…`: whether events of unknown tenants and of types that the catalog does not have are refused."""
        self._registry = registry
        self._refuse_tenants = refuse_tenants
        self._known_tenants = {ALL_TENANTS}
        self._types = PublishedTypes(registry, refuse_unknown=refuse_types)

    async def check(self, rows: Sequence[WaitingRow]) -> Checked:
        """Sort rows. Raises RegistryUnavailable."""
        checked, events = Checked(), list[tuple[WaitingRow, Event]]()
        times = dict[int, datetime | None]()
        for row in rows:
            try:
                event = Event.parse(row.event)
                times[row.id] = _deliver_at(row)
            except ValueError as error:
                checked.refuse(row, error)
                continue
            if event.id == row.event_id:
                events.append((row, event))
            else:  # without an id, the event would have a new one each time
                checked.refuse(row, "event_id: is not the `id` in `event`")
        known = await self._registry.events.known([event for _, event in events]) if events else {}
        digests = {key: each.digest for key, each in known.items()}
        unknown_tenants = await self._unknown_tenants(events)
        for row, event in events:
            if event.key in known and digests[event.key] == event.digest:
                checked.published.append(row.id)
            elif digests.setdefault(event.key, event.digest) != event.digest:
                checked.refuse(
                    row, f"an event with id {event.id} of {event.source} and other content was published before"
                )
            elif event.tenant in unknown_tenants:
                checked.refuse(row, TenantUnknown())
            elif problems := await self._types.problems(event):
                checked.refuse(row, "; ".join(map(str, problems)))
            else:
                checked.publish.append(CheckedRow(row, event, times[row.id]))
        return checked

    async def _unknown_tenants(self, events: Sequence[tuple[WaitingRow, Event]]) -> set[str]:
        """The tenants whose events are refused. One that is known stays known."""
        asked = {event.tenant for _, event in events} - self._known_tenants if self._refuse_tenants else set[str]()
        if asked:
            self._known_tenants |= await self._registry.subscriptions.known_tenants(asked)
        return asked - self._known_tenants


def _deliver_at(row: WaitingRow) -> datetime | None:
    """When the event is to be delivered; None if that is now or in the past. Raises ValueError."""
    if row.deliver_at is None:
        return None
    try:
        time = parse_timestamp(row.deliver_at)
    except ValueError as error:
        raise ValueError(f"deliver_at: {error}") from error
    return time if time > datetime.now(UTC) else None
