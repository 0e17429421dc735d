"""Receipt and Status: what the client returns. EventReference: how a caller names an event to it."""

from typing import NamedTuple

from bellwire import contract
from bellwire.contract import LookupResult
from bellwire.deliveries import Counts, Failed, Unsettled
from bellwire.events import Event
from bellwire.models import Payload


class Receipt(Payload):
    """The result of `publish`: Temporal has stored the event durably."""

    source: str
    event_id: str
    #: The workflow that delivers it. Open it in the Temporal UI, or pass the receipt to `status` and `wait`.
    workflow_id: str
    #: The event was published before, with the same content; nothing was started.
    duplicate: bool = False


class Status(Payload):
    """The status of an event."""

    source: str
    id: str
    #: The workflow that delivers it.
    workflow_id: str
    counts: Counts
    #: Whether every delivery is delivered, rejected, exhausted or cancelled.
    settled: bool
    #: The first unsettled deliveries, the earliest due first.
    unsettled: tuple[Unsettled, ...] = ()
    #: The first rejected or exhausted deliveries, each with its last reason; empty once Temporal has deleted the workflow.
    failed: tuple[Failed, ...] = ()

    @classmethod
    def recorded(cls, source: str, event_id: str, found: LookupResult) -> "Status":
        """Return the status by the registry, of an event whose workflow Temporal has deleted."""
        settled = not found.counts.unsettled
        return cls(source=source, id=event_id, workflow_id=found.workflow_id, counts=found.counts, settled=settled)


#: An event, as named by a caller: its receipt, (source, id), or the event itself.
EventReference = Receipt | tuple[str, str] | Event


class Address(NamedTuple):
    """An event's source and id, and the workflow to query first."""

    source: str
    event_id: str
    workflow_id: str


def address_of(event: EventReference) -> Address:
    if isinstance(event, Receipt):
        return Address(event.source, event.event_id, event.workflow_id)
    source, event_id = (event.source, event.id) if isinstance(event, Event) else event
    return Address(source, event_id, contract.event_workflow_id(source, event_id))
