"""The handshake of CloudEvents web hooks: nothing is posted to a URL that has not consented to it ("Abuse Protection").

An OPTIONS request names who wants to post, and how much; the answer's WebHook-Allowed-Origin says whether that is welcome,
whatever its status, and its WebHook-Allowed-Rate how much of it. Consent is kept in the registry, tied to what it was asked
for, and asked for again once it is old.
"""

import asyncio
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from weakref import WeakValueDictionary

import aiohttp
from yarl import URL

from activities.egress.retry_after import THROTTLING, retry_after
from activities.sending.throttling import Throttled
from bellwire.deliveries import Due, Outcome, OutcomeKind
from bellwire.endpoint_health import Consent
from bellwire.registry import Registry
from bellwire.subscriptions import RATE_BOUNDS

REQUEST_ORIGIN, REQUEST_RATE = "webhook-request-origin", "webhook-request-rate"
ALLOWED_ORIGIN, ALLOWED_RATE = "webhook-allowed-origin", "webhook-allowed-rate"

#: How long consent holds before it is asked for again.
CONSENT_HOLDS = timedelta(hours=24)
#: How long others of a subscription go by a refusal. Shorter than the first wait of any sensible schedule.
REFUSAL_HOLDS = timedelta(seconds=4)
#: Subscriptions whose last answer a process remembers.
REMEMBERED = 10_000

_RATE = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class _Answer:
    """What asking came to: consent, or why there is none."""

    asked_for: str
    at: datetime
    consent: Consent | None = None
    refusal: Outcome | None = None


class Handshakes:
    """Asks for consent in the name of `origin`, a domain name; None if none is configured, then all wait.

    `failed` says what an exception of the client comes to.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        origin: str | None,
        failed: Callable[[BaseException], Outcome],
        clock: Callable[[], float],
    ) -> None:
        self._registry, self._origin, self._failed, self._clock = registry, origin, failed, clock
        self._answers: dict[str, _Answer] = {}
        #: Deliveries of one subscription ask one after the other, so that those behind the first find its answer.
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def refusal(
        self,
        due: Due,
        url: URL,
        session: aiohttp.ClientSession,
        headers: dict[str, str],
        timeout: aiohttp.ClientTimeout,
    ) -> Outcome | None:
        """Why the delivery must not be posted to `url` now; None if it may, and `headers` say in whose name.

        Raises HeldBack if consent came meanwhile with a rate that the delivery was not paced by.
        """
        if self._origin is None:
            return _deferred("no BELLWIRE_WEBHOOK_ORIGIN for the handshake", ours=True)
        rate = due.subscription.rate_limit
        asking = {REQUEST_ORIGIN: self._origin}
        if rate is not None:
            asking[REQUEST_RATE] = str(max(1, int(rate * 60)))
        asked_for = _digest(str(url), *asking.values())
        known = due.health.consent
        if known is None or known.given_for != asked_for or self._now() >= known.given_at + CONSENT_HOLDS:
            name = due.subscription.id
            turn = self._turns.setdefault(name, asyncio.Lock())
            async with turn:
                answer = self._answers.get(name)
                asks = answer is None or not self._holds(answer, asked_for, known)
                if answer is None or asks:
                    agent = {"user-agent": headers["user-agent"]}
                    answer = await self._ask(url, session, {**agent, **asking}, timeout, asked_for)
                    if answer.consent is not None:
                        await self._registry.subscriptions.record_consent(name, answer.consent)
                    self._remember(name, answer)
            if answer.consent is None:
                return answer.refusal
            consented = answer.consent.rate
            if not asks and consented is not None and (rate is None or consented < rate):
                # Once more, in case the registry has lost it: it is paced only by what is loaded with it.
                await self._registry.subscriptions.record_consent(name, answer.consent)
                raise Throttled
        headers[REQUEST_ORIGIN] = self._origin
        return None

    def _holds(self, answer: _Answer, asked_for: str, known: Consent | None) -> bool:
        """Whether an earlier answer counts. One does not that is older than what the registry has from another process."""
        if answer.asked_for != asked_for or (known is not None and known.given_at > answer.at):
            return False
        return self._now() < answer.at + (REFUSAL_HOLDS if answer.consent is None else CONSENT_HOLDS)

    async def _ask(
        self,
        url: URL,
        session: aiohttp.ClientSession,
        headers: Mapping[str, str],
        timeout: aiohttp.ClientTimeout,
        asked_for: str,
    ) -> _Answer:
        try:
            async with session.options(url, headers=headers, allow_redirects=False, timeout=timeout) as response:
                status, said = response.status, response.headers
        except (aiohttp.ClientError, OSError, UnicodeError) as error:
            return _Answer(asked_for, self._now(), refusal=self._failed(error))
        wait = retry_after(said.get("retry-after"), now=self._clock())
        allowed, rate = said.get(ALLOWED_ORIGIN, "").strip().lower(), said.get(ALLOWED_RATE, "*").strip()
        if allowed not in {"*", headers[REQUEST_ORIGIN].lower()}:
            why = "consent for another origin" if allowed else "no consent"
            throttle = status in THROTTLING
            refusal = _deferred(f"{why} (OPTIONS: HTTP {status})", retry_after=wait, throttle=throttle)
            return _Answer(asked_for, self._now(), refusal=refusal)
        if rate != "*" and not (_RATE.fullmatch(rate) and int(rate)):
            return _Answer(asked_for, self._now(), refusal=_deferred("unreadable WebHook-Allowed-Rate"))
        per_second = None if rate == "*" else min(int(rate) / 60, RATE_BOUNDS[1])
        return _Answer(asked_for, self._now(), consent=Consent(asked_for, self._now(), per_second))

    def _remember(self, name: str, answer: _Answer) -> None:
        self._answers.pop(name, None)
        self._answers[name] = answer
        if len(self._answers) > REMEMBERED:
            del self._answers[next(iter(self._answers))]

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)


def _deferred(reason: str, *, ours: bool = False, throttle: bool = False, retry_after: float | None = None) -> Outcome:
    return Outcome(kind=OutcomeKind.DEFERRED, reason=reason, ours=ours, throttle=throttle, retry_after=retry_after)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
