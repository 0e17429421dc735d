"""Providers of SMS, in order of priority: what each one brings, and which one is asked next.

A provider that has an outage is passed over for a while, so that deliveries do not pay for finding it out again and again;
when nobody else is left it is asked all the same.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Protocol

from bellwire.deliveries import MAX_RESPONSE, Fault, Outcome, OutcomeKind
from bellwire.suppressions import SuppressionReason

#: The reason of an attempt of which nobody knows whether it sent anything.
LOST_REASON = "answer lost"
#: Seconds for which a provider that had an outage comes after the others.
PASSED_OVER_FOR = 60.0


@dataclass(frozen=True, kw_only=True)
class Sms:
    """One SMS, as every provider is given it."""

    delivery_id: str
    #: The attempt that it is sent by.
    number: int
    to: str
    text: str
    #: Who the subscription wants it to come from; None: the provider's usual sender.
    sender: str | None = None

    @property
    def reference(self) -> str:
        """32 characters that mean this attempt at this delivery, for providers that recognise what they were told before.

        Must collapse: every request of one attempt, whichever worker makes it.
        Must not collapse: two attempts, since one may be a delivery that somebody asked to be made again.
        """
        return hashlib.sha256(f"{self.delivery_id}/{self.number}".encode()).hexdigest()[:32]


@dataclass(frozen=True, kw_only=True)
class Reported:
    """What the provider says that an SMS costs; None for what it does not say."""

    segments: int | None = None
    price: Decimal | None = None
    currency: str | None = None


@dataclass(frozen=True, kw_only=True)
class SendResult:
    """What a request to a provider came to."""

    outcome: Outcome
    #: Nothing was accepted, and no other SMS would be: another provider may be asked.
    outage: bool = False
    #: What the operator has to mend, in bounded words for the log; None if nothing.
    obstacle: str | None = None
    #: Why the number is to be written to no more; None if it may.
    suppress: SuppressionReason | None = None
    reported: Reported | None = None


class Provider(Protocol):
    """Somebody who sends SMS. Neither method raises for what the provider does."""

    @property
    def name(self) -> str:
        """How descriptions, records and logs call it."""

    @property
    def repeats(self) -> bool:
        """Whether `find` finds out by sending again what the provider recognises."""

    def sender_of(self, sms: Sms) -> str:
        """Whom the recipient sees; empty if it is the provider's choice."""

    async def send(self, sms: Sms) -> SendResult: ...

    async def find(self, sms: Sms, since: datetime) -> SendResult | None:
        """What became of an SMS that this provider may have got at or after `since`; None if it has not got it.

        An outcome of kind UNKNOWN: it cannot be told now.
        """


class Providers:
    """Those of one deployment. `clock`: seconds that only ever grow."""

    def __init__(self, providers: Sequence[Provider], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._providers = tuple(providers)
        self._clock = clock
        self._passed_over_until: dict[str, float] = {}

    def __bool__(self) -> bool:
        return bool(self._providers)

    def named(self, name: str) -> Provider | None:
        return next((each for each in self._providers if each.name == name), None)

    def in_turn(self) -> list[Provider]:
        """Whom to ask, the best first."""
        now = self._clock()
        return sorted(self._providers, key=lambda each: self._passed_over_until.get(each.name, 0.0) > now)

    def note(self, provider: Provider, *, outage: bool) -> None:
        """What a request to this provider has shown of it."""
        if outage:
            self._passed_over_until[provider.name] = self._clock() + PASSED_OVER_FOR
        else:
            self._passed_over_until.pop(provider.name, None)

    def senders(self, sms: Sms) -> set[str]:
        """Everyone from whom this SMS could come."""
        return {sender for each in self._providers if (sender := each.sender_of(sms))}


def lost(words: str, *, wait: float | None = None, obstacle: str | None = None) -> SendResult:
    """Nobody knows whether it was accepted. `words` stay with the attempt; `wait`: seconds that the provider asked for."""
    outcome = Outcome(kind=OutcomeKind.UNKNOWN, reason=LOST_REASON, retry_after=wait, response=words[:MAX_RESPONSE])
    return SendResult(outcome=outcome, obstacle=obstacle)


def unreachable(name: str, error: Exception) -> SendResult:
    """Nothing reached the provider."""
    outcome = Outcome(kind=OutcomeKind.DEFERRED, reason=f"{name} unreachable: {error}", fault=Fault.PROVIDER)
    return SendResult(outcome=outcome, outage=True)
