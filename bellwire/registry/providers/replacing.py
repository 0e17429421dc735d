"""Replacing: which earlier deliveries of its subscription an event replaces, and whose message can be changed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.contract import RECALLED
from bellwire.deliveries import Delivery, DeliveryKey, DeliveryState
from bellwire.events import Event
from bellwire.registry import deliveries as delivery_rows
from bellwire.registry import events
from bellwire.sends import replaced_key
from bellwire.targets import SPECS, Channel

#: Events that are followed back from one to the one that it replaces.
MAX_CHAIN = 10
#: Channels on which an earlier message that comes late would be shown instead of the later one, or beside it.
_REPLACING = {channel for channel in SPECS if SPECS[channel].edits} | {Channel.PUSH}


@dataclass(frozen=True, slots=True)
class Replaced:
    """What a delivery replaces."""

    #: The provider's id of the message that it changes; None if there is none.
    message_id: str | None = None
    #: Earlier deliveries that are not settled, the latest first.
    outdated: tuple[Delivery, ...] = ()


NOTHING = Replaced()


async def replaced_messages(
    connection: AsyncConnection, loaded: Iterable[Delivery], stored: Mapping[str, Event]
) -> dict[DeliveryKey, Replaced]:
    """What each of these deliveries replaces; `stored` are their events.

    If the event that one names was not delivered, the message is that of the event which that one replaces, and so on.
    """
    found = {delivery.key: Replaced() for delivery in loaded if delivery.channel in _REPLACING}
    follow = {key: stored[key.event_key] for key in found if key.event_key in stored}
    for _ in range(MAX_CHAIN):
        earlier = {
            key: DeliveryKey(replaced, key.subscription_id)
            for key, event in follow.items()
            if (replaced := replaced_key(event))
        }
        if not earlier:
            break
        deliveries = await delivery_rows.by_keys(connection, sorted(set(earlier.values())))
        unsent = {}
        for key, other in earlier.items():
            delivery = deliveries.get(other)
            if delivery is None or delivery.state is not DeliveryState.DELIVERED:
                unsent[key] = other.event_key
            elif delivery.reason != RECALLED and SPECS[delivery.channel].edits:
                found[key] = Replaced(delivery.provider_id, found[key].outdated)
            if delivery is not None and not delivery.state.settled:
                found[key] = Replaced(None, (*found[key].outdated, delivery))
        bodies = await events.by_keys(connection, unsent.values()) if unsent else {}
        follow = {key: bodies[event_key][0] for key, event_key in unsent.items() if event_key in bodies}
    return found
