"""What a provider's answer means, and the outcome that it comes to. Each channel has one table from its codes to Meanings."""

from dataclasses import dataclass, replace
from typing import Self

from bellwire.deliveries import MAX_RESPONSE, Fault, Outcome, OutcomeKind
from bellwire.sends import SendRequest
from bellwire.suppressions import Suppression, SuppressionReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What one code of a provider means."""

    kind: OutcomeKind
    fault: Fault = Fault.PROVIDER
    #: Least seconds until the next attempt; the provider may ask for more.
    wait: float | None = None
    #: Nobody is at this address any more: nothing is sent to it until the suppression is lifted.
    suppress: bool = False
    #: The target is gone for good: the subscription is disabled.
    disable: bool = False
    #: Further deliveries of the subscription wait a while, too.
    throttle: bool = False
    #: The account's token is not accepted: the call is made once more with a new one.
    renew: bool = False

    def after(self, seconds: float | None) -> Self:
        """The same, with what the provider asked for."""
        return self if seconds is None else replace(self, wait=max(seconds, self.wait or 0.0))


DELIVERED = Meaning(kind=OutcomeKind.DELIVERED)
#: The provider never accepts this content.
CONTENT = Meaning(kind=OutcomeKind.REJECTED, fault=Fault.OPERATOR)
#: Nobody is at this address.
GONE = Meaning(kind=OutcomeKind.REJECTED, fault=Fault.RECEIVER, suppress=True)
#: The hook does not exist any more.
HOOK_GONE = Meaning(kind=OutcomeKind.REJECTED, fault=Fault.RECEIVER, disable=True)
#: The operator has to do something: credentials, permissions, payment.
OPERATOR = Meaning(kind=OutcomeKind.DEFERRED, fault=Fault.OPERATOR)
RENEW = Meaning(kind=OutcomeKind.DEFERRED, fault=Fault.OPERATOR, renew=True)
TRANSIENT = Meaning(kind=OutcomeKind.DEFERRED)
#: It may have been sent.
UNKNOWN = Meaning(kind=OutcomeKind.UNKNOWN)


def busy(seconds: float) -> Meaning:
    """Too many calls: wait so many seconds."""
    return Meaning(kind=OutcomeKind.DEFERRED, wait=seconds, throttle=True)


def by_server(meaning: Meaning, status: int) -> Meaning:
    """What a code means that came with this HTTP status: a server that fails ends no delivery."""
    return TRANSIENT if status >= 500 and meaning.kind is OutcomeKind.REJECTED else meaning


def is_page(text: str) -> bool:
    """Whether a response is a web page, such as that of a proxy, in place of the provider's answer."""
    return text.lstrip()[:1] == "<"


def outcome_of(
    meaning: Meaning, reason: str, request: SendRequest, *, response: str | None = None, provider_id: str | None = None
) -> Outcome:
    """The outcome of an attempt with this answer. `reason` has no address: the provider's name and code."""
    suppressed = request.subscription.target.recipients if meaning.suppress else ()
    return Outcome(
        kind=meaning.kind,
        reason=reason,
        retry_after=meaning.wait if meaning.kind is OutcomeKind.DEFERRED else None,
        disable=meaning.disable,
        throttle=meaning.throttle,
        fault=meaning.fault,
        provider_id=provider_id,
        response=response[:MAX_RESPONSE] if response else None,
        suppress=tuple(
            Suppression(
                channel=request.subscription.channel, address=address, reason=SuppressionReason.BOUNCED, cause=reason
            )
            for address in suppressed
        ),
    )


def suppressed_outcome(request: SendRequest) -> Outcome | None:
    """The outcome for a recipient that is suppressed; None if none of them is."""
    found = next(
        (why for each in request.subscription.target.recipients if (why := request.suppressed.get(each))), None
    )
    if found is None:
        return None
    return Outcome(kind=OutcomeKind.REJECTED, reason=f"recipient suppressed: {found}", fault=Fault.OPERATOR)


def blocked(reason: str, remedy: str = "") -> Outcome:
    """Deferred until the operator has fixed it. Operators see `remedy` with the attempt; tenants do not."""
    return Outcome(kind=OutcomeKind.DEFERRED, reason=reason, fault=Fault.OPERATOR, cause=remedy or None)


def no_account(name: str, account: str, *, section: str | None = None) -> Outcome:
    """The target's account is missing. `name` is the provider's, as people write it; in lower case it is the section's."""
    return blocked(f"no {name} account {account}", f"add [{section or name.lower()}.{account}] to BELLWIRE_ACCOUNTS")
