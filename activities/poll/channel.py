"""PollChannel: puts events into the feeds that apps read."""

from bellwire.deliveries import Outcome, OutcomeKind
from bellwire.registry import Registry
from bellwire.sends import SendRequest

#: The reason of every attempt. What keeps an event out of the feed is a fault of the registry, and so an exception.
PLACED = "placed in the feed"


class PollChannel:
    """Has the registry put events into feeds. Nothing is sent, so nothing can be refused."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def attempt(self, request: SendRequest) -> Outcome:
        """Have the event placed by the transaction that records the attempt.

        A test send is not recorded, so its event is placed here.
        """
        if not request.recorded:
            for event in request.events:
                await self._registry.feeds.place_test(request.subscription.id, event)
        return Outcome(kind=OutcomeKind.DELIVERED, reason=PLACED, to_feed=request.recorded)
