"""Pausing and resuming many subscriptions at once, selected by tenant, event type and channel."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from bellwire.errors import SubscriptionInvalid
from bellwire.registry import Registry
from bellwire.registry.db.auditing import change
from bellwire.subscriptions import Subscription, SubscriptionState
from bellwire.targets import Channel

#: Subscriptions read from the registry at a time.
PAGE = 500


@dataclass(frozen=True, kw_only=True)
class SubscriptionSelection:
    """Which subscriptions are changed. What is None selects all."""

    #: As a glob.
    tenant: str | None = None
    #: As a glob that one of the subscription's patterns matches as it is written: `order.*` selects `order.paid`, and not `*`.
    type: str | None = None
    channel: Channel | None = None
    #: Why they were paused, as a glob.
    reason: str | None = None

    def selects(self, subscription: Subscription) -> bool:
        return (
            _matches(self.tenant, subscription.tenant)
            and (self.type is None or any(_matches(self.type, pattern) for pattern in subscription.types))
            and _matches(self.reason, subscription.state_reason or "")
        )


async def count_subscriptions(registry: Registry, selection: SubscriptionSelection, state: SubscriptionState) -> int:
    """How many subscriptions in this state are selected."""
    return len([each async for each in _selected(registry, selection, state)])


async def pause_many(registry: Registry, selection: SubscriptionSelection, *, reason: str | None) -> int:
    """Pause the active ones, and return how many. Those that were changed meanwhile are left alone."""
    changed = 0
    async for each in _selected(registry, selection, SubscriptionState.ACTIVE):
        with change("subscription.paused", each.id, tenant=each.tenant):
            changed += await registry.subscriptions.set_state(
                each.id, SubscriptionState.PAUSED, reason=reason, if_state=SubscriptionState.ACTIVE
            )
    return changed


async def resume_many(registry: Registry, selection: SubscriptionSelection) -> int:
    """Resume the paused ones, and return how many. Disabled ones stay disabled: each needs a look at its endpoint."""
    changed = 0
    async for each in _selected(registry, selection, SubscriptionState.PAUSED):
        try:
            with change("subscription.resumed", each.id, tenant=each.tenant):
                changed += await registry.subscriptions.set_state(
                    each.id, SubscriptionState.ACTIVE, if_state=SubscriptionState.PAUSED
                )
        except SubscriptionInvalid:
            continue  # its recipient was erased
    return changed


async def _selected(
    registry: Registry, selection: SubscriptionSelection, state: SubscriptionState
) -> AsyncIterator[Subscription]:
    after = ""
    while True:
        page = await registry.subscriptions.list(channel=selection.channel, state=state, after=after, limit=PAGE)
        for each in page:
            if selection.selects(each):
                yield each
        if len(page) < PAGE:
            return
        after = page[-1].id


def _matches(glob: str | None, text: str) -> bool:
    return glob is None or fnmatchcase(text, glob)
