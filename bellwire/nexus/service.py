"""BellwireService: the contract of the Nexus service. Callers import it; it does no I/O and may be imported in workflows."""

from datetime import datetime
from typing import Annotated, Any, Self

import nexusrpc
from pydantic import ConfigDict, Field, JsonValue

from bellwire.events import Event
from bellwire.models import Payload
from bellwire.receipts import Receipt, Status

#: The longest timeout of `wait`, in seconds: 366 days.
MAX_WAIT = 366 * 86_400.0


class EventInput(Payload):
    """An event in the CloudEvents JSON format, as a workflow publishes it. Extension attributes stand beside the others."""

    model_config = ConfigDict(frozen=True, extra="allow")

    #: The publisher: a URI-reference such as /shop/orders.
    source: str
    #: What happened: order.paid.
    type: str
    #: None: the id of the Nexus request, which is the same for all tries of one operation.
    id: str | None = None
    subject: str | None = None
    #: None: when the operation started.
    time: datetime | str | None = None
    datacontenttype: str | None = None
    dataschema: str | None = None
    #: None: the tenant `default`.
    tenant: str | None = None
    data: JsonValue = None

    @classmethod
    def of(cls, event: Event) -> Self:
        """The input that publishes this event."""
        return cls.model_validate(event.structured())

    def to_event(self, default_id: str) -> Event:
        """The event. Raises EventInvalid, which names each invalid field."""
        given: dict[str, Any] = self.model_dump(mode="json", exclude_none=True)
        return Event.parse({"specversion": "1.0", "id": default_id, **given})


class WaitInput(Payload):
    """The event to wait for. The result of `publish` may be passed as it is."""

    source: str
    event_id: str
    #: The workflow that delivers it, from the receipt. None: that of an event that was published alone.
    workflow_id: str | None = None
    #: Seconds after which the operation completes with a status that is not settled, at most 366 days. None: it waits until then.
    timeout: Annotated[float, Field(ge=0, le=MAX_WAIT, allow_inf_nan=False)] | None = None

    @classmethod
    def of(cls, receipt: Receipt, *, timeout: float | None = None) -> Self:
        """The input that waits for the event of a receipt."""
        return cls(source=receipt.source, event_id=receipt.event_id, workflow_id=receipt.workflow_id, timeout=timeout)


@nexusrpc.service(name="bellwire")
class BellwireService:
    """Operations for workflows of other namespaces, teams and languages."""

    #: Publish one event. Once it completes, the event is durable. Publishing it again is safe and returns a duplicate. It fails
    #: with EventInvalid or EventConflict, which are not retried.
    publish: nexusrpc.Operation[EventInput, Receipt]
    #: Wait until every delivery of an event is settled, which may take days. It fails with EventNotFound, EventConflict or
    #: TenantUnknown.
    wait: nexusrpc.Operation[WaitInput, Status]
