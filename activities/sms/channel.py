"""SmsChannel: sends deliveries by SMS, and never a second SMS while it is unknown whether the first one was sent.

An SMS may have been sent without a record, when a worker is killed while sending or a response is lost. Then the provider
that was tried is asked for it before anything is sent again. If a provider has an outage and has certainly accepted nothing,
the same attempt continues with the next provider.
"""

import asyncio
import time
from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from weakref import WeakValueDictionary

import structlog

from activities.rendering.renderer import Renderer, template_name, template_values
from activities.sms.prices import Prices
from activities.sms.providers import Provider, Providers, SendResult, Sms, unknown_result
from activities.sms.twilio import TWILIO
from bellwire.deliveries import MAX_RESPONSE, DeliveryState, Fault, Outcome, OutcomeKind, SmsFacts
from bellwire.errors import TemplateInvalid
from bellwire.registry import Registry
from bellwire.sends import SendRequest
from bellwire.suppressions import EVERYWHERE, Suppression, SuppressionReason, by_sender
from bellwire.targets import Channel, SmsTarget
from bellwire.targets.sms_segments import Segments, segments

log = structlog.get_logger("bellwire")

#: How long a claimed attempt may take until it calls the provider, if `reconcile_after` is shorter.
MIN_CLAIM_TIME = timedelta(seconds=1)
#: The reason of an SMS that none of the providers can send.
NO_PROVIDER = "no SMS provider can send it"


class Superseded(Exception):
    """Another worker has claimed the delivery, or it is settled. The activity's retry loads it again."""


class SmsChannel:
    """Sends SMS by `providers`. Without providers, all deliveries are deferred.

    `max_segments`: the limit for subscriptions without one. `senders`: those that subscriptions may name; None: any.
    `reconcile_after`: seconds to wait before reconciling, so that a request that is still under way ends first.
    """

    def __init__(
        self,
        registry: Registry,
        providers: Providers,
        renderer: Renderer,
        *,
        reconcile_after: float,
        max_segments: int,
        senders: Collection[str] | None = None,
        prices: Prices | None = None,
    ) -> None:
        self._registry = registry
        self._providers = providers
        self._renderer = renderer
        self._reconcile_delay = timedelta(seconds=reconcile_after)
        self._max_segments = max_segments
        self._senders = senders
        self._prices = prices or Prices()
        #: Equal texts to one number are sent one after the other, or reconciling could take one for the other.
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def attempt(self, request: SendRequest) -> Outcome:
        """Send one SMS, unless a provider already has it. Raises Superseded if another worker has the delivery."""
        target = request.subscription.target
        assert isinstance(target, SmsTarget)
        # The time of the first attempt whose outcome is not known: an SMS may have been sent since.
        since = request.delivery.intent_at
        try:
            text = await self._renderer.text(request, "sms.text")
        except TemplateInvalid as error:
            return self._blocked(request, "template invalid", str(error))
        if not self._providers:
            remedy = "set the BELLWIRE_TWILIO_* variables, or BELLWIRE_SMS_PROVIDERS"
            return self._blocked(request, "no SMS provider configured", remedy)
        sms = Sms(
            delivery_id=request.id,
            number=request.number,
            to=target.to,
            text=text,
            sender=target.sender,
            template=template_name(request),
            values=template_values(request),
        )
        size = segments(text)
        if since is not None:
            await asyncio.sleep(self._seconds_until_reconcile(request))
        lock = self._locks.setdefault((sms.to, sms.text), asyncio.Lock())
        async with lock:
            if since is not None and (outcome := await self._reconcile(request, sms, size, since)):
                return outcome
            if outcome := await self._refuse(request, target, sms, size):
                return outcome
            return await self._send(request, sms, size)

    async def _reconcile(self, request: SendRequest, sms: Sms, size: Segments, since: datetime) -> Outcome | None:
        """The outcome of an SMS that may have been sent at or after `since`; None if it was not sent."""
        # Attempts without a recorded provider went to Twilio.
        name, _, number = (request.delivery.provider_attempted or f"{TWILIO}/{request.number}").rpartition("/")
        provider = self._providers.get(name)
        if provider is None:
            if request.delivery.provider_attempted is None:
                return None
            remedy = "configure it again in BELLWIRE_SMS_PROVIDERS"
            return self._blocked(request, f"SMS provider {name} is not configured", remedy)
        attempted = replace(sms, number=int(number))
        if provider.idempotent_resend and (reason := await self._suppressed(request, sms)):
            return unknown_result(f"not sent again: {reason}").outcome
        result = await provider.reconcile(attempted, since)
        return None if result is None else await self._outcome(request, provider, attempted, size, result)

    async def _refuse(self, request: SendRequest, target: SmsTarget, sms: Sms, size: Segments) -> Outcome | None:
        """The outcome for an SMS that must not be sent; None for one that may."""
        if target.sender is not None and self._senders is not None and target.sender not in self._senders:
            return self._blocked(request, "sender not allowed", "add the subscription's sender to BELLWIRE_SMS_SENDERS")
        facts = SmsFacts(encoding=size.encoding, segments=size.count)
        limit = target.max_segments or self._max_segments
        if size.count > limit:
            reason = f"too long: {size.count} segments ({size.encoding}), at most {limit}"
            return Outcome(kind=OutcomeKind.REJECTED, reason=reason, fault=Fault.OPERATOR, sms=facts)
        if suppressed := await self._suppressed(request, sms):
            reason = f"recipient suppressed: {suppressed}"
            return Outcome(kind=OutcomeKind.REJECTED, reason=reason, fault=Fault.OPERATOR, sms=facts)
        return None

    async def _suppressed(self, request: SendRequest, sms: Sms) -> SuppressionReason | None:
        """Why the recipient is suppressed, for this subscription or for any sender that the SMS could have; None if not."""
        scopes = [by_sender(sender) for sender in self._providers.senders(sms)]
        found = await self._registry.suppressions.among(
            Channel.SMS, [sms.to], subscription_id=request.subscription.id, also_for=scopes
        )
        return found.get(sms.to)

    async def _send(self, request: SendRequest, sms: Sms, size: Segments) -> Outcome:
        reasons = {each: each.cannot_send(sms) for each in self._providers.in_order()}
        providers = [each for each, reason in reasons.items() if reason is None]
        if not providers:
            remedy = "; ".join(f"{each.name}: {reason}" for each, reason in reasons.items())
            self._log_blocked(request, NO_PROVIDER, remedy)
            return _blocked_outcome(NO_PROVIDER, remedy)
        for left, provider in zip(reversed(range(len(providers))), providers, strict=True):
            if request.recorded:
                request = await self._claim(request, provider)
            result = await provider.send(sms)
            self._providers.record(provider, outage=result.outage)
            if not result.outage or not left:
                break
            log.warning(
                "sms.failed_over",
                provider=provider.name,
                reason=result.outcome.reason,
                delivery=sms.delivery_id,
            )
        return await self._outcome(request, provider, sms, size, result)

    async def _claim(self, request: SendRequest, provider: Provider) -> SendRequest:
        """Claim the attempt. Raises Superseded if the claim is refused, or came so late that another worker may reconcile.

        A worker that was suspended or disconnected may continue after another worker has taken over its deliveries. The
        other worker waits `reconcile_after` and then asks the provider, so this one must not send later than that.
        """
        before, start = datetime.now(UTC), time.monotonic()
        claimed = await self._registry.attempts.claim(request, provider=provider.name)
        # A clock that is set back hides a delay, and the monotonic one may stop while the machine is suspended.
        took = max(datetime.now(UTC) - before, timedelta(seconds=time.monotonic() - start))
        if claimed is None or took > max(self._reconcile_delay, MIN_CLAIM_TIME):
            raise Superseded
        return replace(request, delivery=request.delivery.model_copy(update={"updated_at": claimed}))

    async def _outcome(
        self, request: SendRequest, provider: Provider, sms: Sms, size: Segments, result: SendResult
    ) -> Outcome:
        """The result's outcome with the facts of the SMS. Logs the operator's problem and suppresses the number."""
        if result.operator_problem:
            self._log_blocked(request, result.operator_problem)
        if result.suppress:
            unsubscribed = result.suppress is SuppressionReason.UNSUBSCRIBED
            scope = by_sender(provider.sender_of(sms)) if unsubscribed else EVERYWHERE
            said = result.outcome.reason.split()
            await self._registry.suppressions.add(
                Suppression(
                    channel=Channel.SMS,
                    address=sms.to,
                    reason=result.suppress,
                    subscription_id=scope,
                    cause=f"{said[0]} {said[-1]}",
                )
            )
        sent = result.outcome.kind in {OutcomeKind.DELIVERED, OutcomeKind.UNKNOWN}
        price = self._prices.of(sms.to) if sent else None
        cost = result.cost
        facts = SmsFacts(
            encoding=size.encoding,
            segments=size.count,
            provider=provider.name,
            estimate=price and price.price * size.count,
            currency=price and price.currency,
            reported_segments=cost and cost.segments,
            reported_price=cost and cost.price,
            reported_currency=cost and cost.currency,
        )
        return result.outcome.model_copy(update={"sms": facts})

    def _seconds_until_reconcile(self, request: SendRequest) -> float:
        """Seconds to wait. After a killed worker they count from the loading, since it may have sent after its last record."""
        from_time = (
            request.loaded_at if request.delivery.state is DeliveryState.SENDING else request.delivery.updated_at
        )
        left = from_time + self._reconcile_delay - datetime.now(UTC)
        return max(0.0, min(left, self._reconcile_delay).total_seconds())

    def _blocked(self, request: SendRequest, reason: str, remedy: str) -> Outcome:
        """Deferred until the operator has fixed the problem; unknown if an earlier attempt may have sent the SMS."""
        self._log_blocked(request, reason, remedy)
        if request.delivery.intent_at is not None:
            return unknown_result(f"{reason}: {remedy}").outcome
        return _blocked_outcome(reason, remedy)

    def _log_blocked(self, request: SendRequest, reason: str, detail: str = "") -> None:
        """Log an error. `detail` is never a provider's message, which may contain the number."""
        ids = {"delivery": request.id, "subscription": request.subscription.id, "tenant": request.subscription.tenant}
        log.error("sms.blocked", reason=reason, detail=detail, **ids)


def _blocked_outcome(reason: str, remedy: str) -> Outcome:
    """Tenants see the remedy, too: it may be about a template of theirs."""
    shown = remedy[:MAX_RESPONSE]
    return Outcome(kind=OutcomeKind.DEFERRED, reason=reason, fault=Fault.OPERATOR, response=shown, cause=shown)
