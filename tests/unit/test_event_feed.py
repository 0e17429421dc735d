"""EventFeed: each event once, also one that appears after later ones, and none twice after a failure."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from bellwire.cli.feed import OVERLAP, EventFeed
from bellwire.cli.gateway import Gateway
from bellwire.errors import GatewayUnavailable

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class FakeGateway:
    """Lists events newest first, as the API does."""

    def __init__(self) -> None:
        self.events: list[tuple[datetime, str, str]] = []
        #: How many items are given before the gateway fails; None: it does not fail.
        self.fails_after: int | None = None

    def publish(self, key: str, seconds: float, kind: str = "order.paid") -> None:
        self.events.append((NOON + timedelta(seconds=seconds), key, kind))

    async def items(
        self, path: str, *, limit: int | None, tenant: str | None, since: str | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        begin = None if since is None else datetime.fromisoformat(since)
        found = sorted((each for each in self.events if begin is None or each[0] >= begin), reverse=True)
        for number, (at, key, kind) in enumerate(found[:limit]):
            if number == self.fails_after:
                raise GatewayUnavailable
            yield {"key": key, "accepted_at": at.isoformat(), "event": {"type": kind}}


async def new(feed: EventFeed) -> list[str]:
    return [item["key"] for item in await feed.new()]


@pytest.fixture
def gateway() -> FakeGateway:
    return FakeGateway()


def feed_of(gateway: FakeGateway, *types: str) -> EventFeed:
    return EventFeed(cast(Gateway, gateway), types=types)


async def test_a_feed_begins_with_what_is_published_from_now_on(gateway: FakeGateway) -> None:
    gateway.publish("old", 0)
    gateway.publish("older", -1)
    feed = feed_of(gateway)
    await feed.start(None)
    assert await new(feed) == []
    gateway.publish("b", 2)
    gateway.publish("a", 1)
    assert await new(feed) == ["a", "b"]
    assert await new(feed) == []


async def test_a_feed_of_a_new_tenant_begins_with_its_first_event(gateway: FakeGateway) -> None:
    feed = feed_of(gateway)
    await feed.start(None)
    gateway.publish("first", 0)
    assert await new(feed) == ["first"]


async def test_an_event_that_appears_after_later_ones_is_found(gateway: FakeGateway) -> None:
    feed = feed_of(gateway)
    await feed.start(None)
    gateway.publish("first", 0)
    assert await new(feed) == ["first"]
    gateway.publish("late", -OVERLAP.total_seconds() + 1)
    assert await new(feed) == ["late"]
    assert await new(feed) == []


async def test_a_feed_can_begin_in_the_past(gateway: FakeGateway) -> None:
    for key, seconds in (("too-old", -61), ("old", -60), ("now", 0)):
        gateway.publish(key, seconds)
    feed = feed_of(gateway)
    await feed.start(NOON - timedelta(seconds=60))
    assert await new(feed) == ["old", "now"]
    gateway.publish("next", 1)
    assert await new(feed) == ["next"]


async def test_a_failure_half_way_loses_nothing(gateway: FakeGateway) -> None:
    feed = feed_of(gateway)
    await feed.start(None)
    gateway.publish("a", 1)
    gateway.publish("b", 2)
    gateway.fails_after = 1
    with pytest.raises(GatewayUnavailable):
        await feed.new()
    gateway.fails_after = None
    assert await new(feed) == ["a", "b"]


async def test_a_feed_of_some_types(gateway: FakeGateway) -> None:
    feed = feed_of(gateway, "order.*")
    await feed.start(None)
    gateway.publish("a", 1, "invoice.sent")
    gateway.publish("b", 2, "order.paid")
    assert await new(feed) == ["b"]
    assert await new(feed) == []
