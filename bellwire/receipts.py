"""Receipt and Status: what the client returns. EventReference: how a caller names an event to it."""

import logging
from datetime import datetime
from typing import NamedTuple

from bellwire import contract
from bellwire.contract import LookupResult
from bellwire.deliveries import Counts, Failed, Unsettled
from bellwire.events import Event, event_key
from bellwire.models import Payload

_logger = logging.getLogger("bellwire")


class Receipt(Payload):
    """The result of `publish`: Temporal has stored the event durably.

    It is made without the registry, so it does not say whether the tenant is known or the id was used before by another
    publication. `status` and `wait` do.
    """

    source: str
    event_id: str
    #: The workflow that delivers it. Open it in the Temporal UI, or pass the receipt to `status` and `wait`.
    workflow_id: str
    #: Whether the event was published before, with the same content; then nothing was started. None: not known, since the event
    #: was published together with others; `status` follows the workflow that delivers it.
    duplicate: bool | None = False
    #: Why the event's type is deprecated, and what to use instead. None: it is not, or nobody checked it by a catalog.
    deprecated: str | None = None
    #: When it is to be delivered; None: at once, or it was published before, and `status` says when that one is delivered.
    deliver_at: datetime | None = None


class DeprecationLog:
    """Warns once of each deprecated event type that is published, in the log of the publisher."""

    def __init__(self) -> None:
        self._warned = set[str]()

    def note(self, event_type: str, reason: str | None) -> None:
        """`reason` is that of a receipt."""
        if reason is not None and event_type not in self._warned:
            self._warned.add(event_type)
            _logger.warning("event type %s is deprecated: %s", event_type, reason)


class KnownEvent(NamedTuple):
    """What the registry has of an event that was published before."""

    digest: str
    #: The workflow that delivers it.
    workflow_id: str


class Status(Payload):
    """The status of an event."""

    source: str
    id: str
    #: The workflow that delivers it.
    workflow_id: str
    counts: Counts
    #: Whether all subscriptions have been matched; until then, `counts` may be too low.
    resolved: bool = True
    #: Whether every delivery is delivered, rejected, exhausted or cancelled.
    settled: bool
    #: The first unsettled deliveries, the earliest due first.
    unsettled: tuple[Unsettled, ...] = ()
    #: The first rejected or exhausted deliveries, each with its last reason; empty once Temporal has deleted the workflow.
    failed: tuple[Failed, ...] = ()
    #: No subscription was ever stored for its tenant, which may be misspelt. False once Temporal has deleted the workflow.
    unknown_tenant: bool = False
    #: It is to be delivered later, and no subscription has been matched yet. `deliver_at` says when.
    scheduled: bool = False
    #: When it starts, or would have; None once it has started.
    deliver_at: datetime | None = None
    #: It was cancelled before any subscription was matched, so nothing was or will be sent.
    cancelled: bool = False

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

    @property
    def key(self) -> str:
        """The event's key."""
        return event_key(self.source, self.event_id)


def address_of(event: EventReference) -> Address:
    """Where to ask for an event.

    Raises TypeError for anything but a receipt, an event, or source and id as strings, and ValueError for a lone surrogate.
    """
    match event:
        case Receipt():
            return Address(event.source, event.event_id, event.workflow_id)
        case Event(source=source, id=event_id):
            pass
        case (str(source), str(event_id)):
            pass
        case _:
            raise TypeError(
                f"name the event by its receipt, as (source, id), or by the event itself, not by a value of type {_kind(event)}"
            )
    try:
        f"{source}{event_id}".encode()
    except UnicodeEncodeError:
        raise ValueError(
            "source and id must be valid Unicode, without lone surrogates, as those of all events are"
        ) from None
    return Address(source, event_id, contract.event_workflow_id(source, event_id))


def _kind(value: object) -> str:
    """The type of a value, without its content; of a tuple, those of its parts."""
    parts = f" of {', '.join(type(part).__name__ for part in value) or 'nothing'}" if isinstance(value, tuple) else ""
    return f"{type(value).__name__}{parts}"
