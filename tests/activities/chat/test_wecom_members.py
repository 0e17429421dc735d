"""Members of WeCom get no more than WeCom shows them: it drops the rest without saying so."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import pytest
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from temporalio.testing import ActivityEnvironment

from activities.chat.opening import open_chat
from activities.sending.channel_sender import ChannelSender
from bellwire.contract import Chunk, ChunkResult, Deferred, Group
from bellwire.registry import Registry
from bellwire.registry.db.engine import Database
from bellwire.registry.db.provider_tables import paces
from bellwire.registry.db.tables import deliveries
from bellwire.targets import SPECS, Channel
from starter.local.receivers.providers.wecom import FakeWecom
from tests.activities.chat.channels import accounts_of, opened, request_for
from tests.factories import event, subscription

USER = "zhangsan"


class Setting(NamedTuple):
    fake: FakeWecom
    #: Two workers with connections of their own to one registry.
    workers: tuple[ChannelSender, ChannelSender]
    registry: Registry
    database: Database

    async def accept(self, number: int, *subscriptions: str) -> list[Group]:
        """Deliveries of so many events to subscriptions of the same member."""
        for name in subscriptions:
            await self.registry.subscriptions.create(subscription({"channel": "wecom", "user": USER}, id=name))
        events = [event(id=str(n)) for n in range(number)]
        await self.registry.events.accept(events, "run")
        groups = [Group(event_key=one.key, channel=Channel.WECOM, subscription_ids=subscriptions) for one in events]
        await self.registry.deliveries.add("run", groups)
        return groups

    async def pass_time(self, seconds: float) -> None:
        """Let time pass: for the registry, all that it has a time for is so much nearer; for WeCom, the clock goes on."""

        async def shift(connection: AsyncConnection) -> None:
            for table, column in ((deliveries, deliveries.c.not_before), (paces, paces.c.used_until)):
                keys = list(table.primary_key.columns)
                for row in (await connection.execute(select(*keys, column).where(column.is_not(None)))).all():
                    this = [key == value for key, value in zip(keys, row, strict=False)]
                    changed = {column.name: row[-1] - timedelta(seconds=seconds)}
                    await connection.execute(update(table).where(*this).values(**changed))

        await self.database.write(shift)
        now = self.fake.clock
        self.fake.clock = lambda: now() + seconds


@pytest.fixture
async def setting(tmp_path: Path) -> AsyncIterator[Setting]:
    url = f"sqlite:///{tmp_path}/registry.db"
    async with AsyncExitStack() as stack:
        fake = await stack.enter_async_context(FakeWecom())
        registries = [await Registry.open(url) for _ in range(2)]
        senders = []
        for registry in registries:
            stack.push_async_callback(registry.close)
            await registry.migrate()
            channels = open_chat(accounts_of(fake), await stack.enter_async_context(opened(registry)))
            senders.append(ChannelSender(Channel.WECOM, channels[Channel.WECOM].attempt, registry, concurrency=50))
        database = Database.at(url, pool=1)
        stack.push_async_callback(database.close)
        yield Setting(fake, (senders[0], senders[1]), registries[0], database)


async def send(worker: ChannelSender, groups: list[Group]) -> ChunkResult:
    chunk = Chunk(groups=tuple(groups), schedule=SPECS[Channel.WECOM].schedule)
    result: ChunkResult = await ActivityEnvironment().run(worker.send, chunk)
    return result


async def test_forty_messages_in_a_minute_by_two_workers_all_arrive(setting: Setting) -> None:
    groups = await setting.accept(20, "sub_orders", "sub_alerts")
    results = await asyncio.gather(send(setting.workers[0], groups[:10]), send(setting.workers[1], groups[10:]))
    held = [each for result in results for each in result.deferred]
    assert len(setting.fake.accepted) + len(held) == 40
    assert 5 <= len(setting.fake.accepted) <= 6
    assert {(each.reason, each.attempts, each.from_retry_after) for each in held} == {("rate limit", 0, True)}
    assert max(each.delay for each in held) == pytest.approx(35 * 3.7, abs=2)
    passed = 0.0
    # Each comes back after its delay, as its workflow waits for it, to either worker.
    for number, each in enumerate(sorted(held, key=lambda each: each.delay)):
        await setting.pass_time(max(each.delay - passed, 0))
        passed = max(passed, each.delay)
        assert (await send(setting.workers[number % 2], [_group(each)])).deferred == ()
    assert (len(setting.fake.accepted), setting.fake.dropped) == (40, [])


async def test_wecom_accepts_and_drops_what_is_sent_without_a_reservation(setting: Setting) -> None:
    request = request_for({"channel": "wecom", "user": USER})
    outcomes = [await setting.workers[0].attempt(request) for _ in range(40)]
    assert {outcome.reason for outcome in outcomes} == {"WeCom 0"}
    assert (len(setting.fake.accepted), len(setting.fake.dropped)) == (30, 10)


def _group(held: Deferred) -> Group:
    return Group(event_key=held.event_key, channel=Channel.WECOM, subscription_ids=(held.subscription_id,))
