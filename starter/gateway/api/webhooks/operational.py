"""The data of operational events, as JSON Schema."""

from collections.abc import Mapping
from typing import Any

from bellwire.registry.operational_events import OperationalEvent
from bellwire.targets import Channel

Schema = dict[str, Any]

_TEXT = {"type": "string"}
_NUMBER = {"type": "integer", "minimum": 0}
_CHANNEL = {"type": "string", "enum": [str(channel) for channel in Channel]}
_TIME = {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]}


def _object(**properties: Schema) -> Schema:
    return {
        "type": "object",
        "required": list(properties),
        "properties": properties,
        "additionalProperties": False,
    }


_HEALTH = _object(subscription=_TEXT, channel=_CHANNEL, reason=_TEXT, failing_since=_TIME, failures=_NUMBER)
_EVENT = {"event_key": _TEXT, "event_source": _TEXT, "event_id": _TEXT, "event_type": _TEXT}

#: The data of each.
DATA: Mapping[OperationalEvent, Schema] = {
    OperationalEvent.FAILING: _HEALTH,
    OperationalEvent.DISABLED: _HEALTH,
    OperationalEvent.EXHAUSTED: _object(
        delivery=_TEXT, subscription=_TEXT, channel=_CHANNEL, attempts=_NUMBER, reason=_TEXT, **_EVENT
    ),
    OperationalEvent.CONFLICT: _object(workflow=_TEXT, published_by=_TEXT, **_EVENT),
    OperationalEvent.HANDLERS_ABSENT: _object(
        service=_TEXT, handlers={"type": "array", "items": _TEXT}, last_seen={"type": "string", "format": "date-time"}
    ),
}
#: When each is published.
WHEN: Mapping[OperationalEvent, str] = {
    OperationalEvent.FAILING: "A subscription has failed for days without a success. The subject is the subscription.",
    OperationalEvent.DISABLED: "A subscription was disabled. The subject is the subscription.",
    OperationalEvent.EXHAUSTED: "The retry schedule of a delivery has ended without success. The subject is the subscription.",
    OperationalEvent.CONFLICT: "An event is not delivered, since its source and id were used before for other content. The "
    "subject is the id of the event.",
    OperationalEvent.HANDLERS_ABSENT: "No process of a service with handlers has run for five minutes. Their deliveries wait. "
    "The subject is the service.",
}
