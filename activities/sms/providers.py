"""SMS providers: their interface, and the order in which they are tried.

A provider with an outage moves behind the others for a while, so that not every delivery tries it first. If no other
provider is left, it is tried anyway.
"""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Protocol

from bellwire.deliveries import MAX_RESPONSE, Fault, Outcome, OutcomeKind
from bellwire.suppressions import SuppressionReason

#: The reason of an attempt that may have sent an SMS.
UNKNOWN_REASON = "response lost"
#: Seconds for which a provider with an outage comes after the others.
OUTAGE_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Sms:
    """One SMS of one attempt."""

    delivery_id: str
    #: The number of the attempt.
    number: int
    to: str
    text: str
    #: The sender that the subscription asks for; None: the provider's default sender.
    sender: str | None = None
    #: The template by which it is rendered: the subscription's, or the event's type. Some providers have templates of their own.
    template: str = ""
    #: The variables of templates.
    values: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def idempotency_key(self) -> str:
        """32 characters that identify this attempt at this delivery, for providers that deduplicate.

        All requests of one attempt have the same key, whichever worker sends them. Two attempts have different keys, since
        one may be a redelivery.
        """
        return hashlib.sha256(f"{self.delivery_id}/{self.number}".encode()).hexdigest()[:32]


@dataclass(frozen=True, kw_only=True)
class ReportedCost:
    """What the provider bills for an SMS; None for what it does not report."""

    segments: int | None = None
    price: Decimal | None = None
    currency: str | None = None


@dataclass(frozen=True, kw_only=True)
class SendResult:
    """The result of a request to a provider."""

    outcome: Outcome
    #: The provider accepted nothing and would accept no other SMS now, so another provider may be tried.
    outage: bool = False
    #: What the operator has to fix, for the log, without addresses; None if nothing.
    operator_problem: str | None = None
    #: Why the number is suppressed; None if it is not.
    suppress: SuppressionReason | None = None
    cost: ReportedCost | None = None


class Provider(Protocol):
    """A service that sends SMS. Its methods return failures of the provider as results; they do not raise."""

    @property
    def name(self) -> str:
        """Its name in the configuration, in records and in logs."""

    @property
    def idempotent_resend(self) -> bool:
        """Whether `reconcile` sends again, under an idempotency key that the provider deduplicates on."""

    def sender_of(self, sms: Sms) -> str:
        """The sender that the recipient sees; empty if the provider chooses it."""

    def cannot_send(self, sms: Sms) -> str | None:
        """Why it can never send this SMS, without values; None if it can. Such a provider is left out."""

    async def send(self, sms: Sms) -> SendResult:
        """Send the SMS."""

    async def reconcile(self, sms: Sms, since: datetime) -> SendResult | None:
        """Find out what became of an SMS that may have been sent at or after `since`. None: the provider does not have it.

        The outcome is UNKNOWN if that cannot be found out now.
        """


class Providers:
    """The providers of one deployment, in order of priority. `clock`: a monotonic clock in seconds."""

    def __init__(self, providers: Sequence[Provider], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._providers = tuple(providers)
        self._clock = clock
        self._outage_until: dict[str, float] = {}

    def __bool__(self) -> bool:
        return bool(self._providers)

    def get(self, name: str) -> Provider | None:
        return next((each for each in self._providers if each.name == name), None)

    def in_order(self) -> list[Provider]:
        """The providers in the order in which to try them now."""
        now = self._clock()
        return sorted(self._providers, key=lambda each: self._outage_until.get(each.name, 0.0) > now)

    def record(self, provider: Provider, *, outage: bool) -> None:
        """Record whether the last request to the provider met an outage."""
        if outage:
            self._outage_until[provider.name] = self._clock() + OUTAGE_SECONDS
        else:
            self._outage_until.pop(provider.name, None)

    def senders(self, sms: Sms) -> set[str]:
        """All senders that this SMS could have."""
        return {sender for each in self._providers if (sender := each.sender_of(sms))}


def unknown_result(detail: str, *, wait: float | None = None, operator_problem: str | None = None) -> SendResult:
    """The provider may have accepted the SMS. `detail` is recorded with the attempt; `wait`: seconds of Retry-After."""
    outcome = Outcome(kind=OutcomeKind.UNKNOWN, reason=UNKNOWN_REASON, retry_after=wait, response=detail[:MAX_RESPONSE])
    return SendResult(outcome=outcome, operator_problem=operator_problem)


def unreachable(name: str, error: Exception) -> SendResult:
    """The request did not reach the provider."""
    outcome = Outcome(kind=OutcomeKind.DEFERRED, reason=f"{name} unreachable: {error}", fault=Fault.PROVIDER)
    return SendResult(outcome=outcome, outage=True)
