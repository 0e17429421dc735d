"""Recalls: messages that a channel has delivered are taken back."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
from temporalio import activity

from bellwire.contract import RECALLED, Group, RecalledDelivery, RecallInput, RecallOutput, RecallResult
from bellwire.deliveries import MAX_REASON, Delivery, DeliveryState
from bellwire.registry import Registry
from bellwire.sends import SendRequest
from bellwire.targets import ChannelTarget

log = structlog.get_logger("bellwire")

#: Messages that one activity takes back at a time.
CONCURRENCY = 10
#: Seconds between two heartbeats.
HEARTBEAT_SECONDS = 2.0
#: States of deliveries that may have a message. A notice of DingTalk is out before it counts as delivered.
_SENT = {DeliveryState.DELIVERED, DeliveryState.WAITING}


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
    async def recall_messages(self, request: RecallInput) -> RecallOutput:
        """Take back the message of each delivery, and record it."""
        group = Group(event_key=request.event_key, channel=request.channel, subscription_ids=request.subscription_ids)
        loaded = {each.subscription.id: each for each in await self._registry.attempts.load([group])}
        slots = asyncio.Semaphore(CONCURRENCY)
        tasks = [
            asyncio.create_task(self._recall_one(name, loaded.get(name), slots)) for name in request.subscription_ids
        ]
        try:
            pending = set(tasks)
            while pending:
                _, pending = await asyncio.wait(pending, timeout=HEARTBEAT_SECONDS)
                activity.heartbeat()
        finally:
            for task in tasks:
                task.cancel()
        return RecallOutput(deliveries=tuple([await task for task in tasks]))

    async def _recall_one(
        self, subscription_id: str, request: SendRequest | None, slots: asyncio.Semaphore
    ) -> RecalledDelivery:
        async with slots:
            answer = RecallAnswer(result=RecallResult.NOT_DELIVERED) if request is None else await self._answer(request)
        return RecalledDelivery(
            subscription_id=subscription_id,
            result=answer.result,
            detail=answer.detail[:MAX_REASON],
            wait=answer.wait,
        )

    async def _answer(self, request: SendRequest) -> RecallAnswer:
        delivery = request.delivery
        if delivery.reason == RECALLED:
            return RecallAnswer(result=RecallResult.TAKEN_BACK)
        if delivery.state not in _SENT:
            return RecallAnswer(result=RecallResult.NOT_DELIVERED)
        if delivery.provider_id is None:
            delivered = delivery.state is DeliveryState.DELIVERED
            return RecallAnswer(result=RecallResult.UNSUPPORTED if delivered else RecallResult.NOT_DELIVERED)
        answer = await self._recall(request.subscription.target, delivery)
        if answer.result is RecallResult.TAKEN_BACK:
            await self._registry.deliveries.record_recall(delivery)
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
