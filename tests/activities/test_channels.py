"""What every channel promises, run against each one's receiver: outcomes, repetitions, interruptions, and no private data."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
from structlog.testing import capture_logs
from temporalio.testing import ActivityEnvironment

from activities.channels import open_channels
from activities.sending.channel_sender import ChannelSender
from bellwire.contract import Chunk, ChunkResult, Group
from bellwire.deliveries import DeliveryState, OutcomeKind
from bellwire.registry import Registry
from bellwire.service.settings import Settings
from bellwire.subscriptions import Subscription, SubscriptionState
from bellwire.targets import SPECS, Channel
from tests.activities.applications import ASKED_FOR, EVERY_DOUBLE
from tests.activities.doubles import CANARY, DOUBLES, Double, name_of
from tests.factories import event, subscription

DELIVERED, REJECTED, DEFERRED = OutcomeKind.DELIVERED, OutcomeKind.REJECTED, OutcomeKind.DEFERRED
EVENT = event(id="1", data={"order": CANARY, "total": "19.90 EUR"})
#: Attempts at a time, and deliveries of a chunk that is interrupted.
CONCURRENCY, MANY = 2, 30


@dataclass
class Running:
    """A channel, opened as a worker opens it, its receiver, and a registry."""

    channel: Channel
    sender: ChannelSender
    double: Double
    registry: Registry

    async def subscribe(self, number: int) -> Subscription:
        """A subscription of an address, with a pending delivery of EVENT."""
        name = name_of(number)
        subscribed = subscription(self.double.target(number), id=name, tenant="acme")
        secret = await self.registry.subscriptions.create(subscribed)
        if secret:
            self.double.expect(number, secret.get_secret_value())
        await self.registry.events.accept([EVENT], "workflow")
        await self.registry.deliveries.add("workflow", [self.group(number)])
        return subscribed

    def group(self, *numbers: int, attempt: int = 1) -> Group:
        names = tuple(map(name_of, numbers))
        return Group(event_key=EVENT.key, channel=self.channel, subscription_ids=names, attempt=attempt)

    async def send(self, *numbers: int, attempt: int = 1) -> ChunkResult:
        """The result of the channel's activity."""
        return await self.start(ActivityEnvironment(), *numbers, attempt=attempt)

    async def start(self, environment: ActivityEnvironment, *numbers: int, attempt: int = 1) -> ChunkResult:
        chunk = Chunk(groups=(self.group(*numbers, attempt=attempt),), schedule=SPECS[self.channel].schedule)
        return cast(ChunkResult, await environment.run(self.sender.send, chunk))

    async def arrived(self, number: int) -> list[str]:
        return await self.double.arrived(number, self.registry)

    async def states(self, numbers: Sequence[int]) -> set[DeliveryState]:
        found = await self.registry.deliveries.list(event_key=EVENT.key)
        names = {name_of(number) for number in numbers}
        return {delivery.state for delivery in found if delivery.subscription_id in names}


@pytest.fixture(params=[name for name in EVERY_DOUBLE if name not in ASKED_FOR])
async def running(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Running]:
    async with AsyncExitStack() as stack:
        double = await stack.enter_async_context(EVERY_DOUBLE[request.param]())
        registry = await Registry.open(f"sqlite:///{tmp_path}/registry.db")
        stack.push_async_callback(registry.close)
        await registry.migrate()
        settings = Settings.read(send_concurrency=CONCURRENCY, **double.settings)
        senders = await stack.enter_async_context(open_channels(settings, registry))
        yield Running(double.channel, senders[double.channel], double, registry)


@pytest.fixture
def refusing(running: Running) -> Running:
    if not running.double.refuses:
        pytest.skip(f"nothing can refuse what is sent over {running.channel}")
    return running


def settled(result: ChunkResult) -> dict[str, int]:
    return {str(state): number for states in result.settled.values() for state, number in states.items()}


async def test_every_channel_that_a_worker_opens_has_a_double() -> None:
    async with open_channels(Settings(), cast(Registry, None)) as senders:
        assert set(senders) == set(DOUBLES), "add the channel's double to DOUBLES in tests/activities/doubles.py"


async def test_what_is_accepted_is_delivered_once(running: Running) -> None:
    for number in range(3):
        await running.subscribe(number)
    result = await running.send(0, 1, 2)
    assert (settled(result), result.deferred, result.failed) == ({"delivered": 3}, (), ())
    assert [len(await running.arrived(number)) for number in range(3)] == [1, 1, 1]
    assert await running.states(range(3)) == {DeliveryState.DELIVERED}
    for attempt in await running.registry.attempts.list(EVENT.key):
        assert (attempt.number, attempt.outcome.kind, attempt.outcome.reason != "") == (1, DELIVERED, True)


async def test_a_chunk_that_is_repeated_sends_nothing_again(running: Running) -> None:
    for number in range(3):
        await running.subscribe(number)
    first = await running.send(0, 1, 2)
    assert await running.send(0, 1, 2) == first
    assert [len(await running.arrived(number)) for number in range(3)] == [1, 1, 1]
    assert len(await running.registry.attempts.list(EVENT.key)) == 3


async def test_what_is_refused_for_now_is_deferred_by_the_schedule_and_delivered_later(refusing: Running) -> None:
    await refusing.subscribe(0)
    refusing.double.defer(0)
    result = await refusing.send(0)
    (deferred,) = result.deferred
    assert (settled(result), deferred.attempts) == ({}, 1)
    assert deferred.delay >= SPECS[refusing.channel].schedule[0]
    assert await refusing.arrived(0) == []
    again = settled(await refusing.send(0, attempt=2))
    assert again == {"delivered": 1}, "the double's `defer` must not throttle: that ends by the real clock"
    assert len(await refusing.arrived(0)) == 1


async def test_what_is_refused_for_good_is_rejected_and_counted_against_nobody_else(refusing: Running) -> None:
    for number in range(3):
        await refusing.subscribe(number)
    refusing.double.reject(1)
    result = await refusing.send(0, 1, 2)
    assert settled(result) == {"delivered": 2, "rejected": 1}
    (failed,) = result.failed
    assert (failed.subscription_id, failed.state, failed.attempts) == (name_of(1), DeliveryState.REJECTED, 1)
    assert [len(await refusing.arrived(number)) for number in range(3)] == [1, 0, 1]
    assert (await refusing.send(0, 1, 2)).failed == result.failed


async def test_a_chunk_that_is_interrupted_goes_on_where_it_was(running: Running) -> None:
    numbers = range(MANY)
    for number in numbers:
        await running.subscribe(number)
    environment = ActivityEnvironment()
    interrupted = asyncio.create_task(running.start(environment, *numbers))
    async with asyncio.timeout(30):
        while not any([await running.arrived(number) for number in numbers]) and not interrupted.done():
            await asyncio.sleep(0)
    environment.cancel()
    with suppress(asyncio.CancelledError):
        await interrupted
    sent = sum([len(await running.arrived(number)) for number in numbers])
    if running.double.refuses:
        assert sent <= 3 * CONCURRENCY, "no further attempt begins"
    recorded = {each.subscription_id for each in await running.registry.attempts.list(EVENT.key)}
    before = {number: await running.arrived(number) for number in numbers if name_of(number) in recorded}
    result = await running.send(*numbers)
    assert settled(result) == {"delivered": MANY}
    for number, earlier in before.items():
        assert await running.arrived(number) == earlier, "what is recorded is not sent again"
    arrivals = [await running.arrived(number) for number in numbers]
    assert all(arrivals)
    assert all(len(set(each)) == 1 for each in arrivals), "a repetition has the same id"
    repeated = sum(len(each) - 1 for each in arrivals)
    assert repeated <= (0 if running.double.exactly_once else CONCURRENCY)


async def test_a_disabled_subscription_gets_nothing(running: Running) -> None:
    await running.subscribe(0)
    await running.registry.subscriptions.set_state(name_of(0), SubscriptionState.DISABLED, reason="gone")
    assert settled(await running.send(0)) == {"rejected": 1}
    assert await running.arrived(0) == []


async def test_no_reason_and_no_log_line_has_private_data(
    running: Running, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        await running.subscribe(number)
    if running.double.refuses:
        running.double.defer(1)
        running.double.reject(2)
    with capture_logs() as logs:
        result = await running.send(0, 1, 2)
    attempts = await running.registry.attempts.list(EVENT.key)
    assert len(attempts) == 3
    written = [
        *(attempt.outcome.reason for attempt in attempts),
        result.model_dump_json(),
        json.dumps(logs, default=str),
        caplog.text,
        "".join(capsys.readouterr()),
    ]
    assert "delivery.attempted" in json.dumps(logs, default=str)
    secrets = [text for number in range(3) for text in running.double.private(number)]
    for text in written:
        assert not [secret for secret in (CANARY, *secrets) if secret in text], text
