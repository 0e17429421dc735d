"""Recall: messages of one event that were delivered are taken back from their recipients."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Self

from bellwire.deliveries import DeliveryState
from bellwire.models import Payload
from bellwire.targets import SPECS, Channel

#: Maximum deliveries of one activity that takes messages back.
RECALL_SIZE = 50
#: Maximum deliveries that a result lists; its counts are complete.
MAX_RECALLED = 500
#: The reason of a delivery whose message was taken back. Its state stays: it was delivered.
RECALLED = "recalled"


class RecallResult(StrEnum):
    #: Nobody sees the message any more.
    TAKEN_BACK = "taken back"
    #: The provider takes messages back for a time only, which is over.
    TOO_LATE = "too late"
    #: Messages of the channel, or of this target, cannot be taken back.
    UNSUPPORTED = "cannot be taken back"
    #: There is no message: the delivery was not made, and will not be.
    NOT_DELIVERED = "not delivered"
    #: An attempt was sent whose answer was lost, so there may be a message that nobody can name.
    UNKNOWN = "unknown"
    #: The provider has no time or could not be reached, no worker sends over the channel, or the delivery is still being sent.
    BUSY = "busy"
    #: The provider refuses, or the operator's account is missing or not valid.
    REFUSED = "refused"


#: Results after which a recall that is repeated may take more back.
REPEATABLE = frozenset({RecallResult.BUSY, RecallResult.REFUSED})


def unable_to_recall(channels: tuple[Channel, ...]) -> tuple[Channel, ...]:
    """The channels of an event if none of them can take a message back."""
    return () if any(SPECS[channel].recalls for channel in channels) else channels


class RecalledDelivery(Payload):
    """What became of taking one message back."""

    subscription_id: str
    channel: Channel
    result: RecallResult
    #: The provider's answer in one bounded line, without an address.
    detail: str = ""
    #: Seconds that the provider asks to wait; None if it does not ask.
    wait: float | None = None


class RecallChunk(Payload):
    """Deliveries of one event over one channel, at most RECALL_SIZE."""

    event_key: str
    channel: Channel
    subscription_ids: tuple[str, ...]


class RecallChunkResult(Payload):
    deliveries: tuple[RecalledDelivery, ...]


class Recalled(Payload):
    """What became of the messages of an event that were to be taken back."""

    #: How many deliveries have which result.
    results: Mapping[RecallResult, int] = {}
    #: The first MAX_RECALLED deliveries, those first that were not taken back.
    deliveries: tuple[RecalledDelivery, ...] = ()
    #: The channels of the event, if none of them can take a message back: nothing was done.
    unable: tuple[Channel, ...] = ()

    def plus(self, more: tuple[RecalledDelivery, ...]) -> Self:
        """With the results of these deliveries too."""
        results = dict(self.results)
        for each in more:
            results[each.result] = results.get(each.result, 0) + 1
        listed = sorted((*self.deliveries, *more), key=lambda each: each.result is RecallResult.TAKEN_BACK)
        return self.model_copy(update={"results": results, "deliveries": tuple(listed[:MAX_RECALLED])})

    @property
    def unfinished(self) -> int:
        """How many messages may be taken back if the recall is repeated."""
        return sum(number for result, number in self.results.items() if result in REPEATABLE)


class RecallInput(Payload):
    """The event whose messages are taken back."""

    source: str
    id: str
    event_key: str
    #: The workflow that delivers it.
    workflow_id: str
    #: None: from all subscriptions.
    subscription_id: str | None = None
    #: After this delivery id, and what became of those before.
    after: str = ""
    done: Recalled = Recalled()


class OpenedRecall(Payload):
    """What a recall begins with."""

    #: The channels of the event, if none of them can take a message back.
    unable: tuple[Channel, ...] = ()
    #: Whether a delivery is not settled yet.
    is_sending: bool = False


class RecallPage(Payload):
    """The next deliveries of an event."""

    chunks: tuple[RecallChunk, ...] = ()
    #: Those over channels that take nothing back.
    others: tuple[RecalledDelivery, ...] = ()
    #: The id of the last delivery; None at the end.
    after: str | None = None

    @classmethod
    def of(
        cls, event_key: str, found: Iterable[tuple[str, Channel, DeliveryState]], *, after: str | None = None
    ) -> Self:
        """From the subscription id, channel and state of each delivery."""
        names, others = defaultdict[Channel, list[str]](list), list[RecalledDelivery]()
        for name, channel, state in found:
            if SPECS[channel].recalls:
                names[channel].append(name)
                continue
            delivered = state is DeliveryState.DELIVERED
            result = RecallResult.UNSUPPORTED if delivered else RecallResult.NOT_DELIVERED
            others.append(RecalledDelivery(subscription_id=name, channel=channel, result=result))
        chunks = tuple(
            RecallChunk(event_key=event_key, channel=channel, subscription_ids=tuple(of_channel[start:][:RECALL_SIZE]))
            for channel, of_channel in names.items()
            for start in range(0, len(of_channel), RECALL_SIZE)
        )
        return cls(chunks=chunks, others=tuple(others), after=after)
