"""Access tokens end before their time while two workers send, and a worker is killed while it gets the next one."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest

from bellwire import Client, Event, Subscription
from bellwire.deliveries import DeliveryState
from starter.local.processes import Process
from starter.local.receivers.providers.fake import Answer, FakeProvider
from starter.local.receivers.providers.wechat import FakeWechat
from tests.acceptance.conftest import System, running_system, start_worker
from tests.activities.applications import EVERY_DOUBLE, variables_of
from tests.activities.doubles import Double
from tests.faults.breakable import kill
from tests.faults.conftest import BreakablePostgres

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

#: The ways to send that need a token which a provider issues.
WITH_TOKENS = ("wechat", "wecom-application", "dingtalk-notice", "feishu-application", "fcm")
#: Subscriptions of each: more than are sent inline, so that the two workers share the events as chunks.
ADDRESSES, EVENTS = 25, 8
#: Messages that a provider accepts with one token: more than are in flight, so that no attempt meets many deaths.
FEWEST, MOST = 30, 50
CONCURRENCY, LATENCY = 4, 0.05


@dataclass
class Tokened:
    """Two workers, and providers whose tokens die."""

    system: System
    folder: Path
    doubles: Mapping[str, Double]
    workers: list[Process] = field(default_factory=list)
    #: How often the tokens of each were revoked.
    deaths: Counter[str] = field(default_factory=Counter)

    def fake(self, name: str) -> FakeProvider:
        fake: FakeProvider = vars(self.doubles[name])["fake"]
        return fake

    async def subscribe(self) -> None:
        for name, double in self.doubles.items():
            for number in range(ADDRESSES):
                fields = {"id": f"{name}-{number}", "types": ["tokens.die"], "retry_schedule": [1.0] * 40}
                subscription = Subscription.model_validate({**fields, "target": double.target(number)})
                await self.system.registry.subscriptions.create(subscription)

    async def publish(self, number: int) -> list[Event]:
        """Publish so many events, each in a run of its own."""
        client = Client(self.system.client.temporal, batching=False)
        events = [Event(source="/tokens", type="tokens.die", data={"order": "42"}) for _ in range(number)]
        await asyncio.gather(*map(client.publish, events))
        return events

    def revoke(self, name: str) -> None:
        """End the account's token before its time. Of WeChat, something else has got a new one by force."""
        fake = self.fake(name)
        fake.tokens.revoke()
        if isinstance(fake, FakeWechat):
            fake.tokens.issue()
        self.deaths[name] += 1

    async def keep_revoking(self, name: str, chance: Random) -> None:
        """Revoke the token again and again, at random times."""
        while True:
            until = self.fake(name).requests + chance.randint(FEWEST, MOST)
            while len(self.fake(name).accepted) < until:
                await asyncio.sleep(0.005)
            self.revoke(name)

    async def check(self, events: list[Event]) -> None:
        """Every delivery arrived, and its first attempt sent it."""
        registry = self.system.registry
        for event in events:
            status = await self.system.client.wait(event, timeout=150)
            assert status.counts.delivered == status.counts.matched == ADDRESSES * len(self.doubles)
            for attempt in await registry.attempts.list(event.key):
                if attempt.number == 1 and attempt.outcome.reason == "DingTalk accepted":
                    continue
                assert attempt.state is DeliveryState.DELIVERED, attempt.outcome.reason
                assert attempt.number == (2 if attempt.subscription_id.startswith("dingtalk") else 1)


@asynccontextmanager
async def tokened(folder: Path, url: str) -> AsyncIterator[Tokened]:
    async with AsyncExitStack() as stack:
        doubles = {name: await stack.enter_async_context(EVERY_DOUBLE[name]()) for name in WITH_TOKENS}
        settings = {
            **variables_of(doubles.values(), folder),
            "BELLWIRE_REGISTRY_URL": url,
            "BELLWIRE_SEND_CONCURRENCY": str(CONCURRENCY),
        }
        system = await stack.enter_async_context(running_system(folder, database=None, **settings))
        run = Tokened(system, folder, doubles, [system.stack.processes[1]])
        await run.subscribe()
        try:
            yield run
        finally:
            for worker in run.workers[1:]:
                await worker.stop(grace=10)


def lines(worker: Process) -> list[dict[str, Any]]:
    """The log of a worker."""
    return [json.loads(line) for line in worker.log.read_text().splitlines() if line.startswith("{")]


async def url_of(kind: str, folder: Path, postgres: BreakablePostgres) -> str:
    return await postgres.database() if kind == "postgresql" else f"sqlite:///{folder}/registry.db"


@pytest.mark.parametrize("database", ["postgresql", "sqlite"])
async def test_tokens_that_die_while_two_workers_send_cost_no_attempt(
    tmp_path: Path, postgres: BreakablePostgres, seed: int, database: str
) -> None:
    async with tokened(tmp_path, await url_of(database, tmp_path, postgres)) as run:
        run.workers.append(await start_worker(run.system, tmp_path, "other"))
        for name, double in run.doubles.items():
            double.slow_down(LATENCY)
            run.fake(name).tokens.single = True
        revoking = [asyncio.create_task(run.keep_revoking(name, Random(f"{seed}{name}"))) for name in run.doubles]
        try:
            events = await run.publish(EVENTS)
            await run.check(events)
        finally:
            for task in revoking:
                task.cancel()
            await asyncio.gather(*revoking, return_exceptions=True)
        for name in run.doubles:
            fake = run.fake(name)
            assert run.deaths[name] >= 2
            assert len(fake.accepted) == ADDRESSES * EVENTS
            assert fake.tokens.requests <= 1 + run.deaths[name], name
        for worker in run.workers:
            sent = {line["channel"] for line in lines(worker) if line["event"] == "delivery.attempted"}
            assert sent >= {double.channel for double in run.doubles.values()}, f"{worker.name} did not send"


async def test_a_worker_that_is_killed_while_it_gets_a_token_is_replaced(
    tmp_path: Path, postgres: BreakablePostgres
) -> None:
    async with tokened(tmp_path, await postgres.database()) as run:
        for name in run.doubles:
            run.fake(name).tokens.script.append(Answer(never=True))
        events = await run.publish(1)
        async with asyncio.timeout(60):
            while not all(run.fake(name).tokens.requests for name in run.doubles):
                await asyncio.sleep(0.02)
        run.workers.append(await start_worker(run.system, tmp_path, "other"))
        events += await run.publish(3)
        await kill(run.workers[0])
        await run.check(events)
        assert {name: run.fake(name).tokens.requests for name in run.doubles} == dict.fromkeys(run.doubles, 2)


async def test_a_provider_that_fails_to_issue_tokens_is_not_flooded(
    tmp_path: Path, postgres: BreakablePostgres
) -> None:
    """It fails, answers nonsense, and loses a response. What waits for a token is delivered once there is one."""
    life = {"expires_in": 7200, "expire": 7200}
    failures = [
        Answer(status=500, body="<html>"),
        Answer(status=200, body="no JSON"),
        Answer(reset=True),
        Answer(body={"errcode": 0, "code": 0, "access_token": "a\nb", "tenant_access_token": "a\nb", **life}),
    ]
    async with tokened(tmp_path, await postgres.database()) as run:
        run.workers.append(await start_worker(run.system, tmp_path, "other"))
        for name in run.doubles:
            run.fake(name).tokens.script.extend(failures)
        events = await run.publish(EVENTS)
        for event in events:
            status = await run.system.client.wait(event, timeout=200)
            assert status.counts.delivered == status.counts.matched
        for name in run.doubles:
            fake = run.fake(name)
            assert len(fake.accepted) == ADDRESSES * EVENTS, "a call for a token that was lost has sent nothing"
            assert fake.tokens.requests == len(failures) + 1
