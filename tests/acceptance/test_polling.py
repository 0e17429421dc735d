"""The channel poll in the whole system: by inline sends and by its activity, beside other channels."""

from bellwire import Event
from bellwire.events import uuid7
from tests.acceptance.conftest import System

POLL = {"channel": "poll"}


async def feed(system: System, name: str) -> list[str]:
    found, after = list[str](), 0
    while True:
        page = await system.registry.feeds.read(name, after=after, limit=100)
        found += [entry.event.id for entry in page.entries]
        after = page.reached
        if not page.more:
            return found


async def test_each_event_is_in_each_feed_once(system: System) -> None:
    kind = f"feeds.{uuid7().hex}"
    names = [(await system.subscribe(POLL, kind)).id for _ in range(3)]
    hook = await system.hook(f"/{kind}", kind)
    alone = Event(source="/feeds", type=kind, id="alone")
    status = await system.client.wait(await system.client.publish(alone), timeout=30)
    assert (status.counts.matched, status.counts.delivered) == (4, 4)
    many = [Event(source="/feeds", type=kind, id=f"{number}") for number in range(300)]
    receipts = await system.client.publish_many(many)
    for status in await system.client.wait_many(receipts, timeout=60):
        assert status.counts.delivered == 4
    expected = sorted(event.id for event in (alone, *many))
    for name in names:
        found = await feed(system, name)
        assert (found[0], sorted(found)) == ("alone", expected)
    attempts = await system.registry.attempts.list(alone.key, names[0])
    assert [attempt.outcome.reason for attempt in attempts] == ["placed in the feed"]
    assert await feed(system, hook.id) == []


async def test_a_fan_out_to_many_feeds_places_each_once(system: System) -> None:
    kind = f"feeds.{uuid7().hex}"
    names = [(await system.subscribe(POLL, kind)).id for _ in range(450)]
    event = Event(source="/feeds", type=kind)
    status = await system.client.wait(await system.client.publish(event), timeout=60)
    assert status.counts.delivered == len(names)
    assert await system.registry.feeds.last_positions(names) == dict.fromkeys(names, 1)
