"""The recipients of a mail: who gets it in this attempt, and one outcome from the outcome of each recipient."""

from collections.abc import Sequence
from typing import NamedTuple

from bellwire.deliveries import MAX_REASON, MAX_RESPONSE, Fault, Outcome, OutcomeKind
from bellwire.sends import SendRequest

_DONE = {OutcomeKind.DELIVERED, OutcomeKind.REJECTED}


class RecipientOutcome(NamedTuple):
    recipient: str
    outcome: Outcome


def remaining_recipients(request: SendRequest, recipients: Sequence[str]) -> Sequence[str]:
    """Who does not have the mail yet. All of them if the target has changed since, since twice is better than never."""
    remaining = request.delivery.remaining_recipients
    return remaining if remaining and set(remaining) <= set(recipients) else recipients


def suppressed_outcomes(request: SendRequest, recipients: Sequence[str]) -> list[RecipientOutcome]:
    """The outcomes of the recipients that are suppressed."""
    return [
        RecipientOutcome(
            recipient,
            Outcome(
                kind=OutcomeKind.REJECTED,
                reason=f"recipient suppressed: {request.suppressed[recipient]}",
                fault=Fault.OPERATOR,
            ),
        )
        for recipient in recipients
        if recipient in request.suppressed
    ]


def defer_all(request: SendRequest, reason: str) -> Outcome:
    """Deferred before anything was sent. The remaining recipients stay the same."""
    return Outcome(
        kind=OutcomeKind.DEFERRED,
        reason=reason[:MAX_REASON],
        fault=Fault.OPERATOR,
        remaining_recipients=request.delivery.remaining_recipients,
        provider_id=request.delivery.provider_id,
    )


def combine(outcomes: Sequence[RecipientOutcome], request: SendRequest, recipients: Sequence[str]) -> Outcome:
    """The outcome of the delivery. `recipients` are all recipients of the target.

    Only an accepted mail sets the delivery's provider id, so it shows whether a recipient accepted on an earlier attempt.
    """
    if len(recipients) == 1:
        return outcomes[0].outcome
    accepted = [outcome for _, outcome in outcomes if outcome.kind is OutcomeKind.DELIVERED]
    rejected = [each for each in outcomes if each.outcome.kind is OutcomeKind.REJECTED]
    remaining = [each for each in outcomes if each.outcome.kind not in _DONE]
    earlier = request.delivery.provider_id if len(outcomes) < len(recipients) else None
    provider_id = accepted[-1].provider_id if accepted else earlier
    notes = [f"{len(rejected)} of {len(recipients)} refused: {rejected[0].outcome.reason}"] if rejected else []
    if remaining:
        notes.append(f"{len(remaining)} of {len(recipients)} remaining: {remaining[0].outcome.reason}")
        unknown = any(outcome.kind is OutcomeKind.UNKNOWN for _, outcome in remaining)
        kind = OutcomeKind.UNKNOWN if unknown else OutcomeKind.DEFERRED
    else:
        kind = OutcomeKind.DELIVERED if provider_id else OutcomeKind.REJECTED
    all_gone = len(rejected) == len(recipients) and all(
        outcome.disable or recipient in request.suppressed for recipient, outcome in rejected
    )
    responses = (f"{recipient}: {outcome.response or outcome.reason}" for recipient, outcome in outcomes)
    return Outcome(
        kind=kind,
        reason="; ".join(notes)[:MAX_REASON] or accepted[0].reason,
        disable=all_gone,
        fault=Fault.RECEIVER if kind is OutcomeKind.DELIVERED else _fault(outcomes, accepted=bool(provider_id)),
        provider_id=provider_id,
        response="\n".join(responses)[:MAX_RESPONSE],
        remaining_recipients=tuple(recipient for recipient, _ in remaining)
        if 0 < len(remaining) < len(recipients)
        else None,
        suppress=tuple(suppression for _, outcome in outcomes for suppression in outcome.suppress),
    )


def _fault(outcomes: Sequence[RecipientOutcome], *, accepted: bool) -> Fault:
    """Whose fault it is that not every recipient got the mail. Once one has `accepted` it, the subscription works."""
    faults = [outcome.fault for _, outcome in outcomes if outcome.kind is not OutcomeKind.DELIVERED]
    others = [fault for fault in faults if not fault.counts_against_endpoint]
    if accepted:
        return others[0] if others else Fault.PROVIDER
    return others[0] if len(others) == len(faults) else Fault.RECEIVER
