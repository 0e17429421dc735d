"""Inline sends: what ends in time is recorded, what does not stays in flight under a lease, and nothing is sent twice."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from temporalio.testing import ActivityEnvironment

from activities.sending import in_flight
from activities.sending.channel_sender import ChannelSender
from activities.sending.inline import INLINE_WAIT_SECONDS, SLOW_SECONDS, InlineSender
from activities.sending.ledger import AttemptLedger
from activities.sending.throttling import Throttled
from bellwire.contract import Chunk, ChunkResult, Deferred, Group, HoldReason, InlineSend, InlineSendResult
from bellwire.deliveries import LEASE, Attempt, Delivery, DeliveryState, Outcome
from bellwire.errors import RegistryUnavailable
from bellwire.registry import Registry
from bellwire.sends import SendRequest
from bellwire.targets import Channel
from tests.factories import event, subscription
from tests.unit.ledger import BUSY, Sender, until

SCHEDULES = {Channel.WEBHOOK: (5.0,), Channel.EMAIL: (60.0,)}
EVENT = event(id="42")
EMAIL = {"channel": "email", "to": ["ann@app.example"]}
AWAY = RegistryUnavailable("away")


class Process:
    """One worker process: its webhook channel, its attempts in flight, and its inline sends. `answers` are a Sender's.

    Its clock stands still, but for this: once all attempts in flight wait for gates, the time that an inline send waits passes.
    """

    def __init__(self, registry: Registry, *, limit: int = 50, **answers: Outcome | Exception | asyncio.Event) -> None:
        self.now = 0.0
        self.sender = Sender(**answers)
        self.webhooks = ChannelSender(Channel.WEBHOOK, self.sender, registry, concurrency=50)
        self._inline = InlineSender(registry, {Channel.WEBHOOK: self.webhooks}, limit=limit, clock=lambda: self.now)

    async def send_inline(self, *groups: Group, env: ActivityEnvironment | None = None) -> InlineSendResult:
        given = InlineSend(groups=groups, schedules=SCHEDULES)
        clock = asyncio.create_task(self._pass_time())
        try:
            running = (env or ActivityEnvironment()).run(self._inline.send_inline, given)
            result: InlineSendResult = await asyncio.wait_for(running, 30)
        finally:
            clock.cancel()
            with suppress(asyncio.CancelledError):
                await clock
        return result

    async def _pass_time(self) -> None:
        await until(lambda: self._inline.waiting > 0 and self.sender.in_flight == self.sender.at_gates)
        self.now += INLINE_WAIT_SECONDS

    async def send(self, *groups: Group) -> ChunkResult:
        """The channel's own activity."""
        chunk = Chunk(groups=groups, schedule=SCHEDULES[Channel.WEBHOOK])
        result: ChunkResult = await asyncio.wait_for(ActivityEnvironment().run(self.webhooks.send, chunk), 30)
        return result


class FailingRegistry(Registry):
    """A registry whose next writes of a kind fail."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.record_errors: list[Exception] = []
        self.lease_errors: list[Exception] = []
        record, lease = self.attempts.record, self.attempts.lease

        async def record_or_fail(attempts: Any) -> None:
            if self.record_errors:
                raise self.record_errors.pop(0)
            await record(attempts)

        async def lease_or_fail(requests: Any) -> None:
            if self.lease_errors:
                raise self.lease_errors.pop(0)
            await lease(requests)

        self.attempts.record = record_or_fail  # type: ignore[method-assign]
        self.attempts.lease = lease_or_fail  # type: ignore[method-assign]


@pytest.fixture(autouse=True)
def _check_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_flight, "CHECK_SECONDS", 0.01)


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[FailingRegistry]:
    opened = await FailingRegistry.open(f"sqlite:///{tmp_path}/registry.db")
    await opened.migrate()
    yield opened
    await opened.close()


StartProcess = Callable[..., Process]


@pytest.fixture
async def start(registry: FailingRegistry) -> AsyncIterator[StartProcess]:
    """Starts processes, which end with the test."""
    started: list[Process] = []

    def start_process(*, limit: int = 50, **answers: Outcome | Exception | asyncio.Event) -> Process:
        started.append(Process(registry, limit=limit, **answers))
        return started[-1]

    yield start_process
    for process in started:
        await process.webhooks.close(0)


async def store(registry: Registry, *subscription_ids: str, **fields: Any) -> tuple[Group, ...]:
    """Store a pending delivery of one event to each of these subscriptions, and return them as groups of one."""
    await registry.events.accept([EVENT], "w")
    groups = []
    for each in subscription_ids:
        stored = subscription(id=each, **fields)
        await registry.subscriptions.create(stored)
        groups.append(Group(event_key=EVENT.key, channel=stored.channel, subscription_ids=(each,)))
    await registry.deliveries.add("w", groups)
    return tuple(groups)


async def delivery(registry: Registry, subscription_id: str) -> Delivery:
    (found,) = await registry.deliveries.list(event_key=EVENT.key, subscription_id=subscription_id)
    return found


async def attempts(registry: Registry, subscription_id: str) -> Sequence[Attempt]:
    return await registry.attempts.list(EVENT.key, subscription_id)


async def recorded_attempt(registry: Registry, subscription_id: str) -> Attempt:
    """Wait until the one attempt at a delivery is recorded."""
    async with asyncio.timeout(30):
        while not (found := await attempts(registry, subscription_id)):
            await asyncio.sleep(0.005)
    (attempt,) = found
    return attempt


async def is_leased(registry: Registry, subscription_id: str) -> bool:
    return (await delivery(registry, subscription_id)).leased(datetime.now(UTC))


async def test_attempts_that_end_in_time_are_returned_and_recorded(
    registry: FailingRegistry, start: StartProcess
) -> None:
    groups, process = await store(registry, "a", "b"), start(b=BUSY)
    result = await process.send_inline(*groups)
    deferred = Deferred(event_key=EVENT.key, subscription_id="b", attempts=1, delay=5.0, reason="HTTP 503")
    assert result == InlineSendResult(settled={EVENT.key: {DeliveryState.DELIVERED: 1}}, deferred=(deferred,))
    assert [(each.subscription_id, each.state) for each in await registry.attempts.list(EVENT.key)] == [
        ("a", DeliveryState.DELIVERED),
        ("b", DeliveryState.WAITING),
    ]
    assert (await delivery(registry, "a")).intent_at is None, "a lease costs a write, and was not needed"
    assert process.webhooks.in_flight.among(groups) == {}


async def test_retry_of_an_inline_send_returns_what_is_recorded(registry: FailingRegistry, start: StartProcess) -> None:
    groups, process = await store(registry, "a", "b"), start(b=BUSY)
    first = await process.send_inline(*groups)
    assert await process.send_inline(*groups) == first
    assert sorted(process.sender.attempted) == ["a", "b"]


async def test_slow_attempt_stays_in_flight_under_a_lease_and_its_activity_joins_it(
    registry: FailingRegistry, start: StartProcess
) -> None:
    gate, groups = asyncio.Event(), await store(registry, "fast", "slow")
    process = start(slow=gate)
    result = await process.send_inline(*groups)
    assert result.settled == {EVENT.key: {DeliveryState.DELIVERED: 1}}
    assert result.remaining == (groups[1],)
    assert await is_leased(registry, "slow")
    assert not await is_leased(registry, "fast")
    sending = asyncio.create_task(process.send(*result.remaining))
    await asyncio.wait([sending], timeout=0.05)
    assert not sending.done()
    gate.set()
    assert await sending == ChunkResult(settled={EVENT.key: {DeliveryState.DELIVERED: 1}})
    assert process.sender.attempted == ["fast", "slow"]
    assert (await recorded_attempt(registry, "slow")).state is DeliveryState.DELIVERED


async def test_another_process_waits_for_the_lease_and_returns_what_is_recorded(
    registry: FailingRegistry, start: StartProcess
) -> None:
    gate, (group,) = asyncio.Event(), await store(registry, "slow")
    process, other = start(slow=gate), start()
    remaining = (await process.send_inline(group)).remaining
    assert (await other.send_inline(group)).remaining == remaining, "an inline send of another process does not wait"
    sending = asyncio.create_task(other.send(*remaining))
    await asyncio.wait([sending], timeout=0.05)
    assert not sending.done()
    gate.set()
    assert (await sending).settled == {EVENT.key: {DeliveryState.DELIVERED: 1}}
    assert (process.sender.attempted, other.sender.attempted) == (["slow"], [])
    assert len(await attempts(registry, "slow")) == 1


async def test_attempt_that_ends_after_the_last_check_is_leased_too(
    registry: FailingRegistry, start: StartProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise another process could repeat it before its outcome is recorded."""
    gate, (group,) = asyncio.Event(), await store(registry, "slow")
    process = start(slow=gate)
    write = AttemptLedger.write

    async def write_late(ledger: AttemptLedger) -> None:
        await write(ledger)
        if process.now:
            gate.set()
            await until(lambda: process.sender.in_flight == 0)

    monkeypatch.setattr(AttemptLedger, "write", write_late)
    leased: list[str] = []
    lease = registry.attempts.lease

    async def note_and_lease(requests: list[SendRequest]) -> None:
        leased.extend(request.subscription.id for request in requests)
        await lease(requests)

    monkeypatch.setattr(registry.attempts, "lease", note_and_lease)
    assert (await process.send_inline(group)).remaining == (group,)
    assert leased == ["slow"]
    assert (await recorded_attempt(registry, "slow")).state is DeliveryState.DELIVERED


async def test_delivery_of_a_dead_process_is_attempted_once_its_lease_has_expired(
    registry: FailingRegistry, start: StartProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    (group,) = await store(registry, "slow")
    dead, other = start(slow=asyncio.Event()), start()
    remaining = (await dead.send_inline(group)).remaining
    await dead.webhooks.close(0)
    assert await is_leased(registry, "slow"), "a killed process cannot give its lease back"
    assert (await other.send_inline(group)).remaining == remaining
    assert other.sender.attempted == []
    monkeypatch.setattr("bellwire.deliveries.LEASE", LEASE / 100)
    assert (await other.send(*remaining)).settled == {EVENT.key: {DeliveryState.DELIVERED: 1}}
    assert other.sender.attempted == ["slow"]


async def test_deliveries_of_a_channel_that_the_process_does_not_send_are_returned_untouched(
    registry: FailingRegistry, start: StartProcess
) -> None:
    webhooks, mails = await store(registry, "a"), await store(registry, "m", target=EMAIL)
    process, before = start(), await delivery(registry, "m")
    result = await process.send_inline(*webhooks, *mails)
    assert result.remaining == mails
    assert process.sender.attempted == ["a"]
    assert await delivery(registry, "m") == before


async def test_attempt_that_raises_is_left_to_its_activity_which_reports_the_error(
    registry: FailingRegistry, start: StartProcess
) -> None:
    groups, process = await store(registry, "bad", "good"), start(bad=ValueError("bug"))
    result = await process.send_inline(*groups)
    assert result.remaining == (groups[0],)
    assert result.settled == {EVENT.key: {DeliveryState.DELIVERED: 1}}
    assert await attempts(registry, "bad") == []
    assert not await is_leased(registry, "bad"), "other processes would wait for nothing"
    with pytest.raises(ValueError, match="bug"):
        await process.send(*result.remaining)
    assert await attempts(registry, "bad") == []


async def test_attempts_in_flight_outlast_a_cancel_under_a_lease(
    registry: FailingRegistry, start: StartProcess
) -> None:
    gate, (group,) = asyncio.Event(), await store(registry, "slow")
    process, other, env = start(slow=gate), start(), ActivityEnvironment()
    inline = asyncio.create_task(process.send_inline(group, env=env))
    await until(lambda: process.sender.in_flight == 1)
    env.cancel()
    with pytest.raises(asyncio.CancelledError):
        await inline
    assert process.sender.in_flight == 1
    async with asyncio.timeout(30):
        while not await is_leased(registry, "slow"):
            await asyncio.sleep(0)
    sending = asyncio.create_task(other.send(group))
    await asyncio.wait([sending], timeout=0.05)
    gate.set()
    assert (await sending).settled == {EVENT.key: {DeliveryState.DELIVERED: 1}}
    assert (process.sender.attempted, other.sender.attempted) == (["slow"], [])


@pytest.mark.parametrize("ended", [True, False], ids=["ended", "in-flight"])
async def test_nothing_is_sent_twice_if_the_registry_fails(
    registry: FailingRegistry, start: StartProcess, ended: bool
) -> None:
    gate, (group,) = asyncio.Event(), await store(registry, "a")
    process = start(**({} if ended else {"a": gate}))
    registry.record_errors, registry.lease_errors = ([AWAY, AWAY], []) if ended else ([], [AWAY, AWAY])
    with pytest.raises(RegistryUnavailable, match="away"):
        await process.send_inline(group)
    again = await process.send_inline(group)
    assert again.remaining == (group,)
    sending = asyncio.create_task(process.send(group))
    gate.set()
    assert (await sending).settled == {EVENT.key: {DeliveryState.DELIVERED: 1}}
    assert process.sender.attempted == ["a"]
    assert (await recorded_attempt(registry, "a")).state is DeliveryState.DELIVERED


async def test_attempt_recorded_while_the_next_try_loads_is_not_repeated(
    registry: FailingRegistry, start: StartProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    (group,) = await store(registry, "a")
    process, load = start(), registry.attempts.load
    registry.record_errors = [AWAY] * 2
    with pytest.raises(RegistryUnavailable):
        await process.send_inline(group)

    async def load_slowly(groups: Any) -> Sequence[SendRequest]:
        loaded = await load(groups)
        await until(lambda: not process.webhooks.in_flight.among([group]))
        return loaded

    monkeypatch.setattr(registry.attempts, "load", load_slowly)
    assert (await process.send_inline(group)).remaining == (group,)
    assert process.sender.attempted == ["a"]


async def test_delivery_over_the_rate_limit_is_held(registry: FailingRegistry, start: StartProcess) -> None:
    await store(registry, "limited", rate_limit=0.1)
    second = event(id="43")
    await registry.events.accept([second], "w")
    groups = [
        Group(event_key=each.key, channel=Channel.WEBHOOK, subscription_ids=("limited",)) for each in (EVENT, second)
    ]
    await registry.deliveries.add("w", groups)
    process = start()
    result = await process.send_inline(*groups)
    assert process.sender.attempted == ["limited"]
    (held,) = result.deferred
    assert (held.reason, held.from_retry_after, held.attempts) == (HoldReason.RATE_LIMIT, True, 0)
    assert held.delay == pytest.approx(10, abs=1)
    assert result.remaining == ()


async def test_attempts_in_flight_count_towards_the_limit(registry: FailingRegistry, start: StartProcess) -> None:
    gate = asyncio.Event()
    process = start(limit=2, slow=gate)
    slow, a, b = await store(registry, "slow", "a", "b")
    assert (await process.send_inline(slow)).remaining == (slow,)
    # All or none: a remaining one would wait here for the other.
    assert (await process.send_inline(a, b)).remaining == (a, b)
    assert process.sender.attempted == ["slow"]
    gate.set()
    await process.send(slow)
    assert (await process.send_inline(a, b)).remaining == ()
    assert process.sender.attempted == ["slow", "a", "b"]


async def test_slow_receivers_of_one_tenant_leave_slots_for_others(
    registry: FailingRegistry, start: StartProcess
) -> None:
    gate = asyncio.Event()
    names = [f"slow{number}" for number in range(5)]
    process = start(limit=4, **dict.fromkeys(names, gate))
    slow = await store(registry, *names, tenant="evil")
    assert (await process.send_inline(*slow[:4])).remaining == slow[:4]
    assert (await process.send_inline(slow[4])).remaining == (slow[4],)
    assert process.sender.attempted == names[:4]
    quick = await store(registry, "a", "b", tenant="good")
    assert (await process.send_inline(*quick)).remaining == ()
    assert process.sender.attempted[4:] == ["a", "b"]
    gate.set()
    await process.send(*slow)


async def test_deliveries_to_a_slow_receiver_go_to_an_activity_for_a_while(
    registry: FailingRegistry, start: StartProcess
) -> None:
    gate = asyncio.Event()
    process = start(slow=gate)
    (first,) = await store(registry, "slow")
    await process.send_inline(first)
    gate.set()
    await process.send(first)
    again = event(id="again")
    await registry.events.accept([again], "w")
    group = Group(event_key=again.key, channel=Channel.WEBHOOK, subscription_ids=("slow",))
    await registry.deliveries.add("w", [group])
    assert (await process.send_inline(group)).remaining == (group,)
    assert process.sender.attempted == ["slow"]
    process.now += SLOW_SECONDS
    assert (await process.send_inline(group)).remaining == ()
    assert process.sender.attempted == ["slow", "slow"]


async def test_attempt_that_turns_out_to_exceed_a_rate_limit_is_left_to_its_activity_which_holds_it(
    registry: FailingRegistry, start: StartProcess
) -> None:
    groups, process = await store(registry, "a", "b"), start(b=Throttled())
    result = await process.send_inline(*groups)
    assert result.remaining == groups[1:]
    sent = await process.send(*result.remaining)
    assert [(each.subscription_id, each.reason, each.attempts) for each in sent.deferred] == [
        ("b", HoldReason.RATE_LIMIT, 0)
    ]
    assert await attempts(registry, "b") == []
