"""The validation handshake of CloudEvents webhooks ("Abuse Protection"): ask an endpoint for consent before posting to it.

An OPTIONS request names the sender's origin and rate. WebHook-Allowed-Origin in the response says whether the endpoint
consents, whatever the status; WebHook-Allowed-Rate says to how many requests. The registry keeps the consent together with
what it was given for; after CONSENT_HOLDS it is asked for again.
"""

import asyncio
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from weakref import WeakValueDictionary

from activities.egress.failures import hide
from activities.egress.retry_after import asks_to_throttle, retry_after
from activities.sending.throttling import Throttled
from activities.webhook.endpoint import Endpoint, EndpointResponse, RequestFailed
from bellwire.deliveries import Fault, Outcome, OutcomeKind
from bellwire.endpoint_health import Consent
from bellwire.registry import Registry
from bellwire.sends import SendRequest
from bellwire.subscriptions import RATE_BOUNDS

REQUEST_ORIGIN, REQUEST_RATE = "webhook-request-origin", "webhook-request-rate"
ALLOWED_ORIGIN, ALLOWED_RATE = "webhook-allowed-origin", "webhook-allowed-rate"

#: How long consent is valid.
CONSENT_HOLDS = timedelta(hours=24)
#: How long a refusal is valid for other deliveries of the subscription. Shorter than the first delay of any usual schedule.
REFUSAL_HOLDS = timedelta(seconds=4)
#: Subscriptions whose last handshake a process remembers.
MAX_REMEMBERED = 10_000

_RATE = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class _Handshake:
    """The result of a handshake: consent, or why there is none."""

    requested: str
    at: datetime
    consent: Consent | None = None
    refusal: Outcome | None = None


class Handshakes:
    """Asks endpoints for consent in the name of `origin`, a domain name. With None, every delivery that needs it waits."""

    def __init__(
        self,
        registry: Registry,
        *,
        origin: str | None,
        clock: Callable[[], float],
    ) -> None:
        self._registry, self._origin, self._clock = registry, origin, clock
        self._handshakes: dict[str, _Handshake] = {}
        #: One lock per subscription, so that deliveries that wait find the result of the first handshake.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def refusal(
        self,
        request: SendRequest,
        endpoint: Endpoint,
        headers: dict[str, str],
    ) -> Outcome | None:
        """Why the delivery must not be posted to the endpoint now; None if it may: then `headers` name the origin.

        Raises Throttled if consent came with a rate that this delivery has not been limited to yet.
        """
        if self._origin is None:
            return _deferred("BELLWIRE_WEBHOOK_ORIGIN is not set; the handshake needs it", fault=Fault.OPERATOR)
        rate = request.subscription.rate_limit
        asking = {REQUEST_ORIGIN: self._origin}
        if rate is not None:
            asking[REQUEST_RATE] = str(max(1, int(rate * 60)))
        requested = _digest(str(endpoint.url), *asking.values())
        known = request.health.consent
        if known is None or known.given_for != requested or self._now() >= known.given_at + CONSENT_HOLDS:
            name = request.subscription.id
            lock = self._locks.setdefault(name, asyncio.Lock())
            async with lock:
                handshake = self._handshakes.get(name)
                asks = handshake is None or not self._holds(handshake, requested, known)
                if handshake is None or asks:
                    agent = {"user-agent": headers["user-agent"]}
                    handshake = await self._ask(endpoint, {**agent, **asking}, requested)
                    if handshake.consent is not None:
                        await self._registry.subscriptions.record_consent(name, handshake.consent)
                    self._remember(name, handshake)
            if handshake.consent is None:
                return handshake.refusal
            consented = handshake.consent.rate
            if not asks and consented is not None and (rate is None or consented < rate):
                # Recorded again in case the registry lost it: only the loaded consent limits the rate.
                await self._registry.subscriptions.record_consent(name, handshake.consent)
                raise Throttled
        headers[REQUEST_ORIGIN] = self._origin
        return None

    def _holds(self, handshake: _Handshake, requested: str, known: Consent | None) -> bool:
        """Whether an earlier handshake still counts: not if the registry has a newer consent from another process."""
        if handshake.requested != requested or (known is not None and known.given_at > handshake.at):
            return False
        return self._now() < handshake.at + (REFUSAL_HOLDS if handshake.consent is None else CONSENT_HOLDS)

    async def _ask(
        self,
        endpoint: Endpoint,
        headers: Mapping[str, str],
        requested: str,
    ) -> _Handshake:
        try:
            response = await endpoint.request("OPTIONS", headers)
        except RequestFailed as failure:
            return _Handshake(requested, self._now(), refusal=failure.outcome)
        handshake = self._judge(response, headers[REQUEST_ORIGIN], requested)
        if handshake.refusal is not None and endpoint.dialled.private:
            # The same as without a response, or a tenant could learn what listens in a private network.
            return replace(handshake, refusal=hide(_deferred(handshake.refusal.reason), delivery=endpoint.delivery))
        return handshake

    def _judge(self, response: EndpointResponse, origin: str, requested: str) -> _Handshake:
        status, response_headers = response.status, response.headers
        wait = retry_after(response_headers.get("retry-after"), now=self._clock())
        allowed, rate = (
            response_headers.get(ALLOWED_ORIGIN, "").strip().lower(),
            response_headers.get(ALLOWED_RATE, "*").strip(),
        )
        if allowed not in {"*", origin.lower()}:
            why = "consent for another origin" if allowed else "no consent"
            throttle = asks_to_throttle(status, wait)
            refusal = _deferred(f"{why} (OPTIONS: HTTP {status})", retry_after=wait, throttle=throttle)
            return _Handshake(requested, self._now(), refusal=refusal)
        if rate != "*" and not (_RATE.fullmatch(rate) and int(rate)):
            return _Handshake(requested, self._now(), refusal=_deferred("invalid WebHook-Allowed-Rate"))
        per_second = None if rate == "*" else min(int(rate) / 60, RATE_BOUNDS[1])
        return _Handshake(requested, self._now(), consent=Consent(requested, self._now(), per_second))

    def _remember(self, name: str, handshake: _Handshake) -> None:
        self._handshakes.pop(name, None)
        self._handshakes[name] = handshake
        if len(self._handshakes) > MAX_REMEMBERED:
            del self._handshakes[next(iter(self._handshakes))]

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)


def _deferred(
    reason: str, *, fault: Fault = Fault.RECEIVER, throttle: bool = False, retry_after: float | None = None
) -> Outcome:
    return Outcome(kind=OutcomeKind.DEFERRED, reason=reason, fault=fault, throttle=throttle, retry_after=retry_after)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
