"""Paces of addresses, on both databases."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.contract import Group
from bellwire.registry import Registry
from bellwire.registry.db.engine import Database
from bellwire.registry.db.provider_tables import paces
from bellwire.sends import SendRequest
from bellwire.targets import Channel
from bellwire.targets.chat.wecom import MEMBER_BURST, MEMBER_INTERVAL
from tests.factories import NOW, event, subscription

LIMITS = ((30, timedelta(minutes=1)), (1_000, timedelta(hours=1)))


async def deliveries(registry: Registry, *members: str, events: int) -> Sequence[SendRequest]:
    """Deliveries of so many events, each to one subscription per member."""
    names = [f"sub_{number}" for number in range(len(members))]
    for name, member in zip(names, members, strict=True):
        await registry.subscriptions.create(subscription({"channel": "wecom", "user": member}, id=name))
    stored = [event(id=str(number)) for number in range(events)]
    await registry.events.accept(stored, "run")
    groups = [Group(event_key=one.key, channel=Channel.WECOM, subscription_ids=tuple(names)) for one in stored]
    await registry.deliveries.add("run", groups)
    return await registry.attempts.load(groups)


def most_within(times: Sequence[datetime], window: timedelta) -> int:
    """The most of these times that lie within one window."""
    ordered, first, most = sorted(times), 0, 0
    for last, at in enumerate(ordered):
        while at - ordered[first] >= window:
            first += 1
        most = max(most, last - first + 1)
    return most


async def count(connection: AsyncConnection) -> int:
    return int((await connection.execute(select(func.count()).select_from(paces))).scalar_one())


async def test_all_subscriptions_of_a_member_share_its_pace(registry: Registry) -> None:
    requests = await deliveries(registry, "ann", "ann", "bob", events=600)
    parts = [requests[start : start + 300] for start in range(0, len(requests), 300)]
    found = await asyncio.gather(*(registry.limits.reserve(part, now=NOW) for part in parts))
    reserved = {key: at for part in found for key, at in part.items()}
    assert len(reserved) == 1_800
    ann = [at for key, at in reserved.items() if key.subscription_id != "sub_2"]
    bob = [at for key, at in reserved.items() if key.subscription_id == "sub_2"]
    for times in (ann, bob):
        for most, window in LIMITS:
            assert most_within(times, window) <= most
            # Half a minute late, as an attempt may be: all that is due until then goes out at once.
            late = [max(at, NOW + timedelta(seconds=30)) for at in times]
            assert most_within(late, window) <= most
        assert sum(at == NOW for at in times) == MEMBER_BURST
    assert max(ann) - NOW == timedelta(seconds=MEMBER_INTERVAL * (1_200 - MEMBER_BURST))


async def test_a_reservation_is_made_once_and_others_come_after_it(registry: Registry) -> None:
    requests = await deliveries(registry, "ann", events=10)
    first = await registry.limits.reserve(requests[:8], now=NOW)
    assert await registry.limits.reserve(requests[:8], now=NOW) == first
    (ninth,) = (await registry.limits.reserve(requests[8:9], now=NOW)).values()
    assert ninth - max(first.values()) == timedelta(seconds=MEMBER_INTERVAL)
    quiet = NOW + timedelta(hours=1)
    assert list((await registry.limits.reserve(requests[9:], now=quiet)).values()) == [quiet]


async def test_the_slower_of_pace_and_rate_counts(registry: Registry) -> None:
    member = subscription({"channel": "wecom", "user": "ann"}, id="sub_slow", rate_limit=0.1)
    await registry.subscriptions.create(member)
    stored = [event(id=str(number)) for number in range(3)]
    await registry.events.accept(stored, "run")
    groups = [Group(event_key=one.key, channel=Channel.WECOM, subscription_ids=("sub_slow",)) for one in stored]
    await registry.deliveries.add("run", groups)
    reserved = await registry.limits.reserve(await registry.attempts.load(groups), now=NOW)
    assert sorted(reserved.values()) == [NOW + timedelta(seconds=10 * number) for number in range(3)]


async def test_departments_and_bots_have_no_pace(registry: Registry) -> None:
    target = {"channel": "wecom", "webhook": "https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=k"}
    for more in (target, {"channel": "wecom", "party": "7"}, {"channel": "wecom", "tag": "7"}):
        assert subscription(more).target.pace is None


async def test_a_member_that_got_nothing_for_long_is_forgotten(registry: Registry, url: str) -> None:
    await registry.limits.reserve(await deliveries(registry, "ann", events=1), now=NOW)
    database = Database.at(url, pool=1)

    await registry.retention.purge(NOW)
    assert await database.read(count) == 1
    await registry.retention.purge(NOW + timedelta(minutes=1))
    assert await database.read(count) == 0
    await database.close()


async def test_the_pace_of_an_erased_member_is_deleted(registry: Registry, url: str) -> None:
    await registry.limits.reserve(await deliveries(registry, "ann", "bob", events=1), now=NOW)
    await registry.retention.erase(Channel.WECOM, "default/ann")
    database = Database.at(url, pool=1)
    assert await database.read(count) == 1
    await database.close()
