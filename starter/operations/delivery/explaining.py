"""Explaining: for an event and a subscription, why it matched or did not, step by step."""

import asyncio
import heapq
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from bellwire.deliveries import Delivery
from bellwire.errors import SubscriptionNotFound
from bellwire.filters import EventView
from bellwire.registry import Registry, StoredEvent
from bellwire.registry.api.explanations import Candidate, CandidatePage, RecordedChange
from bellwire.subscriptions import Subscription
from bellwire.tenants import ALL_TENANTS
from starter.operations.delivery.explanation_steps import (
    MATCHING,
    Step,
    at,
    created_step,
    delivery_step,
    matching_steps,
    sending_steps,
    state_step,
)

#: Subscriptions that one page explains, unless told otherwise, and at most.
DEFAULT_LIMIT, MAX_LIMIT = 100, 1_000
#: Subscriptions among which a page has the closest ones, if nobody matched. A thousand take about half a second.
LOOKED_AT_FOR_CLOSEST = 1_000
#: Seconds after which a page ends early. It has at least one subscription.
MAX_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Why an event matched a subscription or did not.

    The steps are judged as of `explained_at`: the subscription may have been another when the event was matched. What was
    recorded then is the delivery.
    """

    stored: StoredEvent
    subscription: Subscription
    created_at: datetime
    #: None: none is recorded.
    delivery: Delivery | None
    steps: tuple[Step, ...]
    #: What the audit log has of the time since the event was accepted, oldest first.
    changes: tuple[RecordedChange, ...]
    explained_at: datetime

    @property
    def matched(self) -> bool:
        """Whether the event matched: a delivery is recorded."""
        return self.delivery is not None

    @property
    def matches_now(self) -> bool:
        """Whether it would match the subscription as it is now."""
        return _match(self.steps)

    @property
    def changed_since(self) -> bool:
        """Whether the subscription was changed after the event was accepted."""
        changed = self.subscription.updated_at
        return changed is not None and changed > self.stored.accepted_at

    @property
    def first_failing(self) -> Step | None:
        """The first step that fails; None if none does."""
        return next((step for step in self.steps if step.passed is False), None)

    @property
    def summary(self) -> str:
        """The result in one or two sentences."""
        failing = next((step for step in self.steps if step.name in MATCHING and step.passed is False), None)
        if self.delivery is not None:
            since = f" As the subscription is now, it would not match: {failing.text}" if failing else ""
            return f"Matched. {self.steps[-1].text}{since}"
        if failing is not None:
            return f"Not matched. {failing.text}"
        if self.changed_since:
            return (
                "Not matched when it was published, although it matches now: the subscription was changed at "
                f"{at(self.subscription.updated_at or self.explained_at)}, after the event was accepted at "
                f"{at(self.stored.accepted_at)}.{self._likely_state}"
            )
        return "It matches, but no delivery is recorded: it is being matched right now, or its workflow has stopped."

    @property
    def _likely_state(self) -> str:
        """What the first change since tells about the state before it."""
        states = [each for each in self.changes if each.action in {"subscription.paused", "subscription.resumed"}]
        if not states or states[0].action == "subscription.paused":
            return ""
        return f" It was resumed at {at(states[0].at)}, so it was probably paused or disabled before."


@dataclass(frozen=True, kw_only=True)
class ExplainedPage:
    """An event's explanations for a page of subscriptions."""

    stored: StoredEvent
    #: Those that matched first, then the closest.
    explanations: tuple[Explanation, ...]
    #: Subscriptions that were looked at; more than are explained if nobody matched.
    looked_at: int
    #: The tenant whose subscriptions are explained; None: all tenants.
    tenant: str | None
    #: The last id that was looked at, after which the next page begins; None if there are no more.
    next: str | None

    @property
    def of(self) -> str:
        """Whose subscriptions were looked at."""
        return self.tenant or "all tenants"

    @property
    def nobody_matched(self) -> bool:
        """Whether no delivery of the event is recorded, on this page or elsewhere, as far as the reader may see."""
        return self.stored.counts.matched == 0


async def explain(
    registry: Registry, stored: StoredEvent, subscription_id: str, *, tenant: str | None = None
) -> Explanation:
    """Explain one subscription. `tenant` is that of the reader, who does not see limits of the platform; None: all is shown.

    Raises SubscriptionNotFound, also for a subscription that the reader may not see.
    """
    page = await registry.explanations.candidate(stored.event.key, subscription_id)
    (candidate,) = page.candidates
    subscription = candidate.subscription
    if tenant is not None and subscription.tenant != tenant:
        raise SubscriptionNotFound.of(subscription_id)
    changes: Sequence[RecordedChange] = ()
    if subscription.updated_at is not None and subscription.updated_at > stored.accepted_at:
        changes = await registry.explanations.changes(subscription, since=stored.accepted_at)
    return _explanation(
        stored, EventView(stored.event), candidate, page, changes=changes, tenant=tenant, now=datetime.now(UTC)
    )


async def explain_all(
    registry: Registry,
    stored: StoredEvent,
    *,
    tenant: str | None = None,
    after: str = "",
    limit: int = DEFAULT_LIMIT,
    max_seconds: float = MAX_SECONDS,
) -> ExplainedPage:
    """Explain the subscriptions of the event's tenant, of all for an event for all, after the id `after`.

    Of an event that nobody matched, the `limit` closest of LOOKED_AT_FOR_CLOSEST. `tenant` is that of the reader, who sees its
    own only; None: all. `max_seconds` bounds what it costs.
    """
    addressed = None if stored.event.tenant == ALL_TENANTS else stored.event.tenant
    whose = tenant or addressed
    wanted = max(limit, LOOKED_AT_FOR_CLOSEST) if stored.counts.matched == 0 else limit
    view, found, looked_at = EventView(stored.event), list[Explanation](), 0
    following: str | None = after
    ends = time.monotonic() + max_seconds
    while following is not None and looked_at < wanted and not (looked_at and time.monotonic() > ends):
        size = min(limit, wanted - looked_at)
        page = await registry.explanations.candidates(stored.event.key, tenant=whose, after=following, limit=size)
        now = datetime.now(UTC)
        tried = 0
        for each in page.candidates:
            tried += 1
            found.append(_explanation(stored, view, each, page, changes=(), tenant=tenant, now=now))
            # Filters may be costly: other requests of the process have their turn.
            await asyncio.sleep(0)
            if time.monotonic() > ends:
                break
        found = heapq.nsmallest(limit, found, key=_distance)
        looked_at += tried
        is_last = len(page.candidates) < size and tried == len(page.candidates)
        following = None if is_last else page.candidates[tried - 1].subscription.id
    return ExplainedPage(stored=stored, explanations=tuple(found), looked_at=looked_at, tenant=whose, next=following)


def _explanation(
    stored: StoredEvent,
    view: EventView,
    candidate: Candidate,
    page: CandidatePage,
    *,
    changes: Sequence[RecordedChange],
    tenant: str | None,
    now: datetime,
) -> Explanation:
    subscription = candidate.subscription
    steps = [
        *matching_steps(stored.event, subscription, view),
        state_step(subscription, stored.accepted_at),
        created_step(candidate, stored.accepted_at),
    ]
    matches_now = _match(steps)
    limit = page.limits.get(subscription.channel) if tenant is None else None
    steps += sending_steps(candidate, channel_limit=limit, now=now)
    steps.append(delivery_step(candidate.delivery, matches_now=matches_now))
    return Explanation(
        stored=stored,
        subscription=subscription,
        created_at=candidate.created_at,
        delivery=candidate.delivery,
        steps=tuple(steps),
        changes=tuple(changes),
        explained_at=now,
    )


def _match(steps: Sequence[Step]) -> bool:
    return all(step.passed is not False for step in steps if step.name in MATCHING)


def _distance(explanation: Explanation) -> tuple[bool, int, int, str]:
    """Sorts those that matched first, then by how late the first step fails, then by how few do."""
    failing = [step.name for step in explanation.steps if step.name in MATCHING and step.passed is False]
    first = min((MATCHING.index(name) for name in failing), default=len(MATCHING))
    return not explanation.matched, -first, len(failing), explanation.subscription.id
