"""Recalls: messages that a channel has delivered are taken back."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
from temporalio import activity

from bellwire.contract import RECALLED, Group, RecallChunk, RecallChunkResult, RecalledDelivery, RecallResult
from bellwire.deliveries import MAX_REASON, Delivery, DeliveryState, OutcomeKind
from bellwire.registry import Registry
from bellwire.sends import SendRequest
from bellwire.targets import ChannelTarget

log = structlog.get_logger("bellwire")

#: Messages that one activity takes back at a time.
CONCURRENCY = 10
#: Seconds between two heartbeats.
HEARTBEAT_SECONDS = 2.0
#: States in which an attempt may send a message at any time. One that waits is a notice of DingTalk, which is out before it
#: counts as delivered, or has not been sent.
_BEING_SENT = {DeliveryState.PENDING, DeliveryState.SENDING}
#: Answers about the messages of one delivery, the one that counts last.
_SEVERITY = (RecallResult.TAKEN_BACK, RecallResult.TOO_LATE, RecallResult.REFUSED, RecallResult.BUSY)


@dataclass(frozen=True, kw_only=True)
class RecallAnswer:
    """What a provider answered."""

    result: RecallResult
    detail: str = ""
    #: Seconds that it asks to wait.
    wait: float | None = None


#: What a channel provides that can take messages back: it takes back the message of a delivery to this target, also twice.
ChannelRecall = Callable[[ChannelTarget, Delivery], Awaitable[RecallAnswer]]


class Recalls:
    """The activity `recall_messages` of one channel."""

    def __init__(self, registry: Registry, recall: ChannelRecall) -> None:
        self._registry, self._recall = registry, recall

    @activity.defn
    async def recall_messages(self, chunk: RecallChunk) -> RecallChunkResult:
        """Take back the message of each delivery, and record it."""
        group = Group(event_key=chunk.event_key, channel=chunk.channel, subscription_ids=chunk.subscription_ids)
        loaded = {each.subscription.id: each for each in await self._registry.attempts.load([group])}
        slots = asyncio.Semaphore(CONCURRENCY)
        tasks = [
            asyncio.create_task(self._recall_one(chunk, name, loaded.get(name), slots))
            for name in chunk.subscription_ids
        ]
        try:
            pending = set(tasks)
            while pending:
                _, pending = await asyncio.wait(pending, timeout=HEARTBEAT_SECONDS)
                activity.heartbeat()
        finally:
            for task in tasks:
                task.cancel()
        return RecallChunkResult(deliveries=tuple([await task for task in tasks]))

    async def _recall_one(
        self, chunk: RecallChunk, subscription_id: str, request: SendRequest | None, slots: asyncio.Semaphore
    ) -> RecalledDelivery:
        async with slots:
            answer = RecallAnswer(result=RecallResult.NOT_DELIVERED) if request is None else await self._answer(request)
        return RecalledDelivery(
            subscription_id=subscription_id,
            channel=chunk.channel,
            result=answer.result,
            detail=answer.detail[:MAX_REASON],
            wait=answer.wait,
        )

    async def _answer(self, request: SendRequest) -> RecallAnswer:
        delivery = request.delivery
        if delivery.reason == RECALLED and delivery.state not in _BEING_SENT:
            return RecallAnswer(result=RecallResult.TAKEN_BACK)
        attempts = await self._registry.attempts.list(delivery.event_key, delivery.subscription_id)
        outcomes = [attempt.outcome for attempt in attempts]
        # A redelivery has sent another one; an attempt that ended after a cancel has sent one too.
        sent = dict.fromkeys(each for each in (*(one.provider_id for one in outcomes), delivery.provider_id) if each)
        if not delivery.state.settled and (delivery.state in _BEING_SENT or not sent):
            return RecallAnswer(result=RecallResult.BUSY, detail="the delivery is still being attempted")
        if not sent and delivery.state is DeliveryState.DELIVERED:
            return RecallAnswer(result=RecallResult.UNSUPPORTED)
        if not sent:
            is_unknown = any(each.kind is OutcomeKind.UNKNOWN for each in outcomes)
            return RecallAnswer(result=RecallResult.UNKNOWN if is_unknown else RecallResult.NOT_DELIVERED)
        target = request.subscription.target
        answers = [await self._recall(target, delivery.model_copy(update={"provider_id": each})) for each in sent]
        answer = max(answers, key=lambda each: _SEVERITY.index(each.result))
        if answer.result is RecallResult.TAKEN_BACK:
            await self._registry.recalls.record(delivery)
        log.info(
            "delivery.recalled",
            delivery=delivery.id,
            tenant=request.subscription.tenant,
            subscription=delivery.subscription_id,
            channel=str(delivery.channel),
            result=str(answer.result),
            detail=answer.detail,
        )
        return answer
