"""The steps between an event and a subscription, each with whether it passes and a sentence that names the values seen."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from bellwire.deliveries import Delivery, DeliveryState
from bellwire.events import Event
from bellwire.filters import EventView, Filter, Trace, traced, type_matches
from bellwire.formats.counts import counted
from bellwire.registry.api.explanations import Candidate, FoundSuppression
from bellwire.subscriptions import Subscription, SubscriptionState
from bellwire.suppressions import EVERYWHERE, SENDER_PREFIX
from bellwire.tenants import ALL_TENANTS
from starter.operations.delivery.deliveries import next_attempt


class StepName(StrEnum):
    """What is looked at, in this order."""

    TENANT = "tenant"
    TYPE = "type"
    #: One step for each filter.
    FILTER = "filter"
    STATE = "state"
    #: Whether the subscription existed when the event was accepted.
    CREATED = "created"
    #: Only of targets that are asked for consent.
    CONSENT = "consent"
    ENDPOINT = "endpoint"
    SUPPRESSION = "suppression"
    LIMIT = "limit"
    #: What was recorded.
    DELIVERY = "delivery"


#: The steps that decide whether an event matches. Those after them decide whether, and when, it is sent.
MATCHING = (StepName.TENANT, StepName.TYPE, StepName.FILTER, StepName.STATE, StepName.CREATED)


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a step: a type pattern, a filter within another one, a recipient."""

    #: The pattern, the filter as JSON, or the address.
    text: str
    #: None: it is not known, or does not decide alone.
    passed: bool | None
    #: One sentence that names the values seen, without a full stop.
    reason: str
    parts: "tuple[Part, ...]" = ()


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step, judged as of now; `delivery` is what was recorded."""

    name: StepName
    #: None: it is not known.
    passed: bool | None
    text: str
    parts: tuple[Part, ...] = ()


def matching_steps(event: Event, subscription: Subscription, view: EventView) -> list[Step]:
    """Tenant, type and filters: what the event and the subscription alone decide. `view` is of the event."""
    return [
        tenant_step(event, subscription),
        type_step(event, subscription.types),
        *filter_steps(view, subscription.filters),
    ]


def tenant_step(event: Event, subscription: Subscription) -> Step:
    own = subscription.tenant
    if event.tenant == ALL_TENANTS:
        return Step(name=StepName.TENANT, passed=True, text=f"The event is for all tenants, and so for {own}.")
    if event.tenant == own:
        return Step(name=StepName.TENANT, passed=True, text=f"The event is for {own}, which owns the subscription.")
    text = f"The event is for {event.tenant}; the subscription belongs to {own}."
    return Step(name=StepName.TENANT, passed=False, text=text)


def type_step(event: Event, patterns: Sequence[str]) -> Step:
    parts = tuple(_pattern(pattern, event.type) for pattern in patterns)
    matching = [part.text for part in parts if part.passed]
    if matching:
        text = f"The type {event.type} matches {', '.join(matching)}."
    elif len(patterns) == 1:
        text = f"The type {event.type} does not match {patterns[0]}."
    else:
        text = f"The type {event.type} matches none of the {len(patterns)} patterns: {', '.join(patterns)}."
    return Step(name=StepName.TYPE, passed=bool(matching), text=text, parts=parts)


def _pattern(pattern: str, event_type: str) -> Part:
    passed = type_matches(pattern, event_type)
    head = pattern.removesuffix(".*")
    if pattern == "*":
        reason = "matches every type"
    elif head == pattern:
        reason = f"is {'the' if passed else 'another'} type"
        if not passed and pattern.lower() == event_type.lower():
            reason = "differs in upper and lower case"
    elif passed:
        reason = f"{event_type} is below {head}"
    else:
        reason = f"matches types below {head}, such as {head}.example; {event_type} is not below it"
    return Part(text=pattern, passed=passed, reason=reason)


def filter_steps(view: EventView, filters: Sequence[Filter]) -> Iterator[Step]:
    """One filter is tried at a time, since each may be costly."""
    if not filters:
        yield Step(name=StepName.FILTER, passed=True, text="The subscription has no filters.")
    for number, each in enumerate(traced(filters, view), start=1):
        which = "The filter" if len(filters) == 1 else f"Filter {number} of {len(filters)}"
        does = "matches" if each.matched else "does not match"
        yield Step(
            name=StepName.FILTER,
            passed=each.matched,
            text=f"{which} {does}: {each.reason}.{_missing_data(view, each)}",
            parts=(part_of(each),),
        )


def _missing_data(view: EventView, traced: Trace) -> str:
    if traced.matched or view.data is not None or not _reads_data(traced):
        return ""
    return " The stored event has no data: it was published without, or it was erased."


def _reads_data(traced: Trace) -> bool:
    return traced.dialect == "data" or any(map(_reads_data, traced.inner))


def part_of(traced: Trace) -> Part:
    return Part(
        text=traced.text,
        passed=traced.matched,
        reason=traced.reason,
        parts=tuple(part_of(each) for each in traced.inner),
    )


def state_step(subscription: Subscription, accepted_at: datetime) -> Step:
    changed = subscription.updated_at
    after = changed is not None and changed > accepted_at
    if subscription.state is SubscriptionState.ACTIVE:
        text = "The subscription is active."
        return Step(name=StepName.STATE, passed=True, text=text)
    reason = f": {subscription.state_reason}" if subscription.state_reason else ""
    text = f"The subscription is {subscription.state}{reason}."
    if changed is not None:
        text += f" It was last changed at {at(changed)}, {'after' if after else 'before'} the event was accepted."
    return Step(name=StepName.STATE, passed=False, text=text)


def created_step(candidate: Candidate, accepted_at: datetime) -> Step:
    created = candidate.created_at
    if created <= accepted_at:
        text = f"The subscription was created at {at(created)}, before the event was accepted."
        return Step(name=StepName.CREATED, passed=True, text=text)
    text = f"The subscription was created at {at(created)}, after the event was accepted at {at(accepted_at)}"
    if candidate.delivery is not None:
        return Step(name=StepName.CREATED, passed=True, text=f"{text}; the event was delivered to it nevertheless.")
    return Step(
        name=StepName.CREATED,
        passed=False,
        text=f"{text}; it gets events from then on, and earlier ones by a replay only.",
    )


def sending_steps(candidate: Candidate, *, channel_limit: float | None, now: datetime) -> list[Step]:
    """What decides whether, and when, a matched event is sent."""
    return [
        *_consent_steps(candidate),
        _endpoint_step(candidate, now),
        _suppression_step(candidate),
        _limit_step(candidate, channel_limit, now),
    ]


def _consent_steps(candidate: Candidate) -> Iterable[Step]:
    if not candidate.subscription.target.needs_consent:
        return
    consent = candidate.health.consent
    if consent is None:
        text = "The endpoint has not given its consent; it is asked before the first event is sent to it."
        yield Step(name=StepName.CONSENT, passed=None, text=text)
        return
    rate = "" if consent.rate is None else f", for {consent.rate:g} per second at most"
    text = f"The endpoint gave its consent at {at(consent.given_at)}{rate}."
    yield Step(name=StepName.CONSENT, passed=True, text=text)


def _endpoint_step(candidate: Candidate, now: datetime) -> Step:
    health = candidate.health
    failing = ""
    if health.failing_since is not None:
        failing = f" It fails since {at(health.failing_since)}: {counted(health.failures, 'attempt')} failed."
    if health.throttled_until is not None and health.throttled_until > now:
        text = f"The endpoint asked for fewer requests: nothing is attempted before {at(health.throttled_until)}."
        return Step(name=StepName.ENDPOINT, passed=False, text=text + failing)
    if failing:
        return Step(name=StepName.ENDPOINT, passed=True, text=f"Attempts are made.{failing}")
    return Step(name=StepName.ENDPOINT, passed=True, text="No attempt has failed since the last success.")


def _suppression_step(candidate: Candidate) -> Step:
    target = candidate.subscription.target
    recipients = target.recipients
    if not recipients:
        text = "The target has no recipients that could be suppressed."
        return Step(name=StepName.SUPPRESSION, passed=True, text=text)
    parts = tuple(
        _recipient(address, [each for each in candidate.suppressions if each.address == address])
        for address in recipients
    )
    suppressed = sum(part.passed is False for part in parts)
    if suppressed:
        who = parts[0].text if len(parts) == 1 else f"{suppressed} of {len(parts)} recipients"
        reason = f": {parts[0].reason}" if len(parts) == 1 else ""
        text = (
            f"{who} {'is' if suppressed == 1 else 'are'} suppressed and get{'s' * (suppressed == 1)} nothing{reason}."
        )
        return Step(name=StepName.SUPPRESSION, passed=suppressed < len(parts), text=text, parts=parts)
    if any(part.passed is None for part in parts):
        text = "The recipient is suppressed for some senders."
        return Step(name=StepName.SUPPRESSION, passed=None, text=text, parts=parts)
    text = "The recipient is not suppressed." if len(parts) == 1 else f"None of {len(parts)} recipients is suppressed."
    return Step(name=StepName.SUPPRESSION, passed=True, text=text, parts=parts)


def _recipient(address: str, found: Sequence[FoundSuppression]) -> Part:
    whole = [each for each in found if not each.scope.startswith(SENDER_PREFIX)]
    if whole:
        scope = "everywhere" if whole[0].scope == EVERYWHERE else "for this subscription"
        return Part(text=address, passed=False, reason=f"suppressed {scope} ({whole[0].reason})")
    if found:
        senders = ", ".join(each.scope.removeprefix(SENDER_PREFIX) for each in found)
        return Part(text=address, passed=None, reason=f"suppressed for what is sent by {senders}")
    return Part(text=address, passed=True, reason="not suppressed")


def _limit_step(candidate: Candidate, channel_limit: float | None, now: datetime) -> Step:
    subscription, health, delivery = candidate.subscription, candidate.health, candidate.delivery
    rates = [
        *([f"{subscription.rate_limit:g} per second by the subscription"] if subscription.rate_limit else []),
        *([f"{channel_limit:g} per second by the channel {subscription.channel}"] if channel_limit else []),
    ]
    consented = health.consent.rate if health.consent and subscription.target.needs_consent else None
    if consented is not None:
        rates.append(f"{consented:g} per second by the endpoint's consent")
    if pace := subscription.target.pace:
        rates.append(f"{pace.burst} at once and {1 / pace.interval:.2g} per second to this address by the provider")
    if not rates:
        return Step(name=StepName.LIMIT, passed=True, text="No rate limit applies.")
    text = f"Deliveries are limited to {' and to '.join(rates)}."
    if delivery is not None and not delivery.state.settled and delivery.not_before and delivery.not_before > now:
        text += f" This one has a reservation for {at(delivery.not_before)}."
        return Step(name=StepName.LIMIT, passed=False, text=text)
    return Step(name=StepName.LIMIT, passed=True, text=text)


def delivery_step(delivery: Delivery | None, *, matches_now: bool) -> Step:
    if delivery is None:
        passed = None if matches_now else False
        return Step(name=StepName.DELIVERY, passed=passed, text="No delivery is recorded.")
    text = f"The delivery is {delivery.state}, "
    text += f"after {counted(delivery.attempts, 'attempt')}" if delivery.attempts else "no attempt is recorded"
    if delivery.reason:
        text += f"; last response: {delivery.reason}"
    if due := next_attempt(delivery):
        text += f"; the next attempt is due about {at(due)}"
    passed = delivery.state is DeliveryState.DELIVERED if delivery.state.settled else None
    return Step(name=StepName.DELIVERY, passed=passed, text=f"{text}. Its workflow is {delivery.workflow_id}.")


def at(time: datetime) -> str:
    """A time as sentences have it."""
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
