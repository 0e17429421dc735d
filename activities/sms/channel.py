"""The SMS channel: never a second SMS on an ambiguous answer.

Whenever an SMS may have gone out without our knowing (a worker killed while sending, an answer that was lost), the provider
that was asked is asked what became of it before anything is sent again. One that had an outage, and accepted nothing for
sure, is followed by the next within the same attempt.
"""

import asyncio
from collections.abc import Awaitable, Collection
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Protocol
from weakref import WeakValueDictionary

import structlog
from temporalio import activity

from activities.rendering.renderer import Renderer
from activities.sending.loop import send
from activities.sms.prices import Prices
from activities.sms.providers import (
    Provider,
    Providers,
    SendResult,
    Sms,
    lost,
)
from activities.sms.twilio import TWILIO
from bellwire.contract import Chunk, ChunkResult
from bellwire.deliveries import MAX_RESPONSE, DeliveryState, Fault, Outcome, OutcomeKind, SmsFacts
from bellwire.errors import TemplateInvalid
from bellwire.registry import Registry
from bellwire.sends import SendRequest
from bellwire.suppressions import EVERYWHERE, Suppression, SuppressionReason, by_sender
from bellwire.targets import Channel, SmsTarget
from bellwire.targets.sms_segments import Segments, segments

log = structlog.get_logger("bellwire")

#: The least time that an announced SMS has to leave in, even where reconciling does not wait.
SHORTEST_REST = timedelta(seconds=1)


class ClaimAttempt(Protocol):
    """Claims one attempt for the provider that is asked next: the moment of it, or None if others have taken it over."""

    def __call__(self, request: SendRequest, *, provider: str) -> Awaitable[datetime | None]: ...


class Superseded(Exception):
    """Another worker has taken the delivery over, or it was settled meanwhile; the activity's next try will see."""


class SmsChannel:
    """Attempts at SMS deliveries.

    Without any of `providers` all deliveries are deferred. `max_segments` is for subscriptions that name no limit; `senders`
    are those that subscriptions may name, None for any. `reconcile_after`: seconds that a lost SMS rests before its provider
    is asked for it, so that a request in flight ends.
    """

    def __init__(
        self,
        registry: Registry,
        providers: Providers,
        renderer: Renderer,
        *,
        concurrency: int,
        reconcile_after: float,
        max_segments: int,
        senders: Collection[str] | None = None,
        prices: Prices | None = None,
    ) -> None:
        self._registry = registry
        self._providers = providers
        self._renderer = renderer
        self._concurrency = concurrency
        self._rest = timedelta(seconds=reconcile_after)
        self._max_segments = max_segments
        self._senders = senders
        self._prices = prices or Prices()
        #: Equal texts to one number go one after the other, or one could claim the SMS that another is just sending.
        self._turns: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    @activity.defn
    async def send_sms(self, chunk: Chunk) -> ChunkResult:
        """Attempt each delivery of the chunk that is not settled, by SMS; one that may be out is reconciled first."""
        return await send(
            chunk,
            channel=Channel.SMS,
            registry=self._registry,
            attempt=partial(self.attempt, begun=datetime.now(UTC), claim_attempt=self._registry.attempts.claim),
            concurrency=self._concurrency,
            intent=True,
        )

    async def attempt(
        self, request: SendRequest, *, begun: datetime | None = None, claim_attempt: ClaimAttempt | None = None
    ) -> Outcome:
        """Send one SMS, unless a provider has it already. `begun`: when this try of the activity began; None is now.

        `announce` has the last word before anything is sent; None for a delivery that nobody else can hold. Raises
        Superseded if it objects.
        """
        target = request.subscription.target
        assert isinstance(target, SmsTarget)
        # When the first attempt was announced whose outcome is not known yet, if any: an SMS may have gone out since.
        since = request.delivery.intent_at
        try:
            text = await self._renderer.text(request, "sms.text")
        except TemplateInvalid as error:
            return self._not_ready(request, "template invalid", str(error))
        if not self._providers:
            remedy = "set the BELLWIRE_TWILIO_* variables, or BELLWIRE_SMS_PROVIDERS"
            return self._not_ready(request, "no SMS provider configured", remedy)
        sms = Sms(delivery_id=request.id, number=request.number, to=target.to, text=text, sender=target.sender)
        taken = segments(text)
        if since is not None:
            await asyncio.sleep(self._remaining_rest(request, begun or datetime.now(UTC)))
        turn = self._turns.setdefault((sms.to, sms.text), asyncio.Lock())
        async with turn:
            if since is not None and (outcome := await self._reconcile(request, sms, taken, since)):
                return outcome
            if outcome := await self._barred(request, target, sms, taken):
                return outcome
            return await self._send(request, sms, taken, claim_attempt)

    async def _reconcile(self, request: SendRequest, sms: Sms, taken: Segments, since: datetime) -> Outcome | None:
        """What became of an SMS that may have gone out at or after `since`; None if it did not."""
        # What was announced before providers had names went to Twilio.
        name, _, number = (request.delivery.provider_attempted or f"{TWILIO}/{request.number}").rpartition("/")
        provider = self._providers.named(name)
        if provider is None:
            if request.delivery.provider_attempted is None:
                return None
            return self._not_ready(
                request, f"SMS provider {name} is gone", "describe it again in BELLWIRE_SMS_PROVIDERS"
            )
        asked = replace(sms, number=int(number))
        if provider.repeats and (reason := await self._suppressed(request, sms)):
            return lost(f"not repeated: {reason}").outcome
        verdict = await provider.find(asked, since)
        return None if verdict is None else await self._outcome(request, provider, asked, taken, verdict)

    async def _barred(self, request: SendRequest, target: SmsTarget, sms: Sms, taken: Segments) -> Outcome | None:
        """Why this SMS is not to be sent; None if it is."""
        if target.sender is not None and self._senders is not None and target.sender not in self._senders:
            return self._not_ready(
                request, "sender not allowed", "add the subscription's sender to BELLWIRE_SMS_SENDERS"
            )
        facts = SmsFacts(encoding=taken.encoding, segments=taken.count)
        most = target.max_segments or self._max_segments
        if taken.count > most:
            reason = f"too long: {taken.count} segments ({taken.encoding}), at most {most}"
            return Outcome(kind=OutcomeKind.REJECTED, reason=reason, fault=Fault.OPERATOR, sms=facts)
        if suppressed := await self._suppressed(request, sms):
            reason = f"recipient suppressed: {suppressed}"
            return Outcome(kind=OutcomeKind.REJECTED, reason=reason, fault=Fault.OPERATOR, sms=facts)
        return None

    async def _suppressed(self, request: SendRequest, sms: Sms) -> SuppressionReason | None:
        """Why the recipient is written to no more, for this subscription or by any sender that the SMS could have."""
        scopes = [by_sender(sender) for sender in self._providers.senders(sms)]
        found = await self._registry.suppressions.among(
            Channel.SMS, [sms.to], subscription_id=request.subscription.id, also_for=scopes
        )
        return found.get(sms.to)

    async def _send(
        self, request: SendRequest, sms: Sms, taken: Segments, claim_attempt: ClaimAttempt | None
    ) -> Outcome:
        turns = self._providers.in_turn()
        for left, provider in zip(reversed(range(len(turns))), turns, strict=True):
            if claim_attempt is not None:
                request = await self._claim_attempt(request, claim_attempt, provider)
            verdict = await provider.send(sms)
            self._providers.note(provider, outage=verdict.outage)
            if not verdict.outage or not left:
                break
            log.warning(
                "sms.passed_on", provider=provider.name, reason=verdict.outcome.reason, delivery=sms.delivery_id
            )
        return await self._outcome(request, provider, sms, taken, verdict)

    async def _claim_attempt(
        self, request: SendRequest, claim_attempt: ClaimAttempt, provider: Provider
    ) -> SendRequest:
        """A worker that was frozen or cut off is taken for dead, and goes on later with what another has sent by then.

        Nor may it send late what it announced in time: who takes over waits `reconcile_after` and then asks the provider.
        """
        before = datetime.now(UTC)
        claimed = await claim_attempt(request, provider=provider.name)
        if claimed is None or datetime.now(UTC) - before > max(self._rest, SHORTEST_REST):
            raise Superseded
        return replace(request, delivery=request.delivery.model_copy(update={"updated_at": claimed}))

    async def _outcome(
        self, request: SendRequest, provider: Provider, sms: Sms, taken: Segments, verdict: SendResult
    ) -> Outcome:
        """The verdict's, with what the SMS took; the operator is told, the number suppressed."""
        if verdict.obstacle:
            self._tell_operator(request, verdict.obstacle)
        if verdict.suppress:
            stopped = verdict.suppress is SuppressionReason.UNSUBSCRIBED
            scope = by_sender(provider.sender_of(sms)) if stopped else EVERYWHERE
            await self._registry.suppressions.add(
                Suppression(channel=Channel.SMS, address=sms.to, reason=verdict.suppress, subscription_id=scope)
            )
        sent = verdict.outcome.kind in {OutcomeKind.DELIVERED, OutcomeKind.UNKNOWN}
        price = self._prices.of(sms.to) if sent else None
        said = verdict.reported
        facts = SmsFacts(
            encoding=taken.encoding,
            segments=taken.count,
            provider=provider.name,
            estimate=price and price.price * taken.count,
            currency=price and price.currency,
            reported_segments=said and said.segments,
            reported_price=said and said.price,
            reported_currency=said and said.currency,
        )
        return verdict.outcome.model_copy(update={"sms": facts})

    def _remaining_rest(self, request: SendRequest, begun: datetime) -> float:
        """Seconds. After a killed worker it counts from `begun`: its intent is older than its last request."""
        rested_from = begun if request.delivery.state is DeliveryState.SENDING else request.delivery.updated_at
        left = rested_from + self._rest - datetime.now(UTC)
        return max(0.0, min(left, self._rest).total_seconds())

    def _not_ready(self, request: SendRequest, reason: str, words: str) -> Outcome:
        """Deferred, and the operator is told; what may have been sent before stays unknown."""
        self._tell_operator(request, reason, words)
        if request.delivery.intent_at is not None:
            return lost(f"{reason}: {words}").outcome
        return Outcome(kind=OutcomeKind.DEFERRED, reason=reason, fault=Fault.OPERATOR, response=words[:MAX_RESPONSE])

    def _tell_operator(self, request: SendRequest, reason: str, detail: str = "") -> None:
        """One line at ERROR. A provider's words are no `detail`: they may hold the number, and stay with the attempt."""
        ids = {"delivery": request.id, "subscription": request.subscription.id, "tenant": request.subscription.tenant}
        log.error("sms.blocked", reason=reason, detail=detail, **ids)
