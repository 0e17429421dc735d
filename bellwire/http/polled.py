"""Polled: what one request reads of the feed of a subscription."""

from collections.abc import Mapping
from typing import Any

from bellwire.events import Event
from bellwire.models import Payload


class PolledEvent(Payload):
    """An event of a feed."""

    #: Process events once for each: it is the same whenever the event is read or delivered again.
    delivery_id: str
    event: Event


class Polled(Payload):
    """The next events of a feed."""

    events: tuple[PolledEvent, ...]
    #: What the next call is given. Store it once the events are processed.
    cursor: str
    #: Whether there are more events already.
    more: bool


def polled(found: Mapping[str, Any]) -> Polled:
    """From the JSON of a response."""
    return Polled(events=tuple(map(_event, found["events"])), cursor=found["cursor"], more=found["more"])


def _event(found: Mapping[str, Any]) -> PolledEvent:
    event = {name: value for name, value in found.items() if name != "deliveryid"}
    return PolledEvent(delivery_id=found["deliveryid"], event=Event.parse(event))
