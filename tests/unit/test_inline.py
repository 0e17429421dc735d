"""The first round within the workflow task: what ends soon is on record, what does not goes on, and nothing is sent twice."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from temporalio.testing import ActivityEnvironment

from activities.sending import in_flight, inline
from activities.sending.in_flight import InFlightAttempts
from activities.sending.inline import InlineSender
from activities.sending.ledger import AttemptLedger
from activities.sending.loop import send
from activities.sending.throttling import Throttled
from bellwire.contract import Chunk, ChunkResult, Deferred, Group, HoldReason, InlineSend, InlineSendResult
from bellwire.deliveries import LEASE, Attempt, Delivery, DeliveryState, Outcome
from bellwire.errors import RegistryUnavailable
from bellwire.registry import Registry
from bellwire.sends import SendRequest
from bellwire.targets import Channel
from tests.factories import event, subscription
from tests.unit.ledger import BUSY, Sender

SCHEDULES = {Channel.WEBHOOK: (5.0,), Channel.EMAIL: (60.0,)}
EVENT = event(id="42")
MAIL = {"channel": "email", "to": ["ann@app.example"]}
PATIENCE = 0.05
AWAY = RegistryUnavailable("away")


class Hooks:
    """A channel of one process, with the script of a Sender."""

    def __init__(self, registry: Registry, sender: Sender) -> None:
        self.in_flight = InFlightAttempts(registry)
        self.attempt = sender


class Process:
    """What one worker process has: its channels, its flights, and its first rounds."""

    def __init__(self, registry: Registry, *, most: int = 50, **answers: Outcome | Exception | asyncio.Event) -> None:
        self.sender = Sender(**answers)
        self.registry = registry
        self.hooks = Hooks(registry, self.sender)
        self._first = InlineSender(registry, {Channel.WEBHOOK: self.hooks}, limit=most)

    async def at_once(self, *groups: Group, env: ActivityEnvironment | None = None) -> InlineSendResult:
        given = InlineSend(groups=groups, schedules=SCHEDULES)
        result: InlineSendResult = await asyncio.wait_for(
            (env or ActivityEnvironment()).run(self._first.send_inline, given), 10
        )
        return result

    async def send(self, *groups: Group) -> ChunkResult:
        """The channel's own activity."""
        chunk = Chunk(groups=groups, schedule=SCHEDULES[Channel.WEBHOOK])

        async def run() -> ChunkResult:
            return await send(
                chunk,
                channel=Channel.WEBHOOK,
                registry=self.registry,
                attempt=self.sender,
                concurrency=50,
                in_flight=self.hooks.in_flight,
            )

        result: ChunkResult = await asyncio.wait_for(ActivityEnvironment().run(run), 10)
        return result


class Faulty(Registry):
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
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inline, "INLINE_WAIT_SECONDS", PATIENCE)
    monkeypatch.setattr(in_flight, "CHECK_SECONDS", 0.01)


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Faulty]:
    opened = await Faulty.open(f"sqlite:///{tmp_path}/registry.db")
    await opened.migrate()
    yield opened
    await opened.close()


@pytest.fixture
async def running(registry: Faulty) -> AsyncIterator[Callable[..., Process]]:
    """Starts processes; all have ended when the test has."""
    started: list[Process] = []

    def start(*, most: int = 50, **answers: Outcome | Exception | asyncio.Event) -> Process:
        started.append(Process(registry, most=most, **answers))
        return started[-1]

    yield start
    for process in started:
        await process.hooks.in_flight.close(0)


Running = Callable[..., Process]


async def stored(registry: Registry, *names: str, **fields: Any) -> tuple[Group, ...]:
    """A delivery of one event to each of these subscriptions, pending; as groups of one."""
    await registry.events.accept([EVENT], "run")
    groups = []
    for name in names:
        wish = subscription(id=name, **fields)
        await registry.subscriptions.create(wish)
        groups.append(Group(event_key=EVENT.key, channel=wish.channel, subscription_ids=(name,)))
    await registry.deliveries.add("run", groups)
    return tuple(groups)


async def delivery(registry: Registry, name: str) -> Delivery:
    (found,) = await registry.deliveries.list(event_key=EVENT.key, subscription_id=name)
    return found


async def attempts(registry: Registry, name: str) -> Sequence[Attempt]:
    return await registry.attempts.list(EVENT.key, name)


async def on_record(registry: Registry, name: str) -> Attempt:
    """The one attempt at a delivery, as soon as it is on record."""
    async with asyncio.timeout(10):
        while not (found := await attempts(registry, name)):
            await asyncio.sleep(0.005)
    (attempt,) = found
    return attempt


async def fact(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.001)


async def is_leased(registry: Registry, name: str) -> bool:
    return (await delivery(registry, name)).leased(datetime.now(UTC))


async def test_what_ends_in_time_is_told_and_on_record(registry: Faulty, running: Running) -> None:
    groups, process = await stored(registry, "a", "b"), running(b=BUSY)
    result = await process.at_once(*groups)
    deferred = Deferred(event_key=EVENT.key, subscription_id="b", attempts=1, delay=5.0, reason="HTTP 503")
    assert result == InlineSendResult(settled={EVENT.key: {DeliveryState.DELIVERED: 1}}, deferred=(deferred,))
    assert [(one.subscription_id, one.state) for one in await registry.attempts.list(EVENT.key)] == [
        ("a", DeliveryState.DELIVERED),
        ("b", DeliveryState.WAITING),
    ]
    assert (await delivery(registry, "a")).intent_at is None, "nothing needed a lease"
    assert process.hooks.in_flight.among(groups) == {}


async def test_a_try_that_follows_is_answered_from_the_record(registry: Faulty, running: Running) -> None:
    groups, process = await stored(registry, "a", "b"), running(b=BUSY)
    first = await process.at_once(*groups)
    assert await process.at_once(*groups) == first
    assert sorted(process.sender.attempted) == ["a", "b"]


async def test_what_takes_longer_is_left_leased_and_its_activity_takes_part_in_it(
    registry: Faulty, running: Running
) -> None:
    gate, groups = asyncio.Event(), await stored(registry, "fast", "slow")
    process = running(slow=gate)
    began = datetime.now(UTC)
    result = await process.at_once(*groups)
    assert (datetime.now(UTC) - began).total_seconds() < PATIENCE + 1
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
    assert (await on_record(registry, "slow")).state is DeliveryState.DELIVERED


async def test_another_process_makes_no_attempt_of_its_own_and_answers_from_the_record(
    registry: Faulty, running: Running
) -> None:
    gate, (group,) = asyncio.Event(), await stored(registry, "slow")
    process, other = running(slow=gate), running()
    left = (await process.at_once(group)).remaining
    assert (await other.at_once(group)).remaining == left, "nor does its first round"
    sending = asyncio.create_task(other.send(*left))
    await asyncio.wait([sending], timeout=0.05)
    assert not sending.done()
    gate.set()
    assert (await sending).settled == {EVENT.key: {DeliveryState.DELIVERED: 1}}
    assert (process.sender.attempted, other.sender.attempted) == (["slow"], [])
    assert len(await attempts(registry, "slow")) == 1


async def test_what_ends_between_the_last_look_and_the_return_is_leased_too(
    registry: Faulty, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else another process would make it again before its outcome is on record."""
    gate, (group,) = asyncio.Event(), await stored(registry, "slow")
    process = running(slow=gate)
    write = AttemptLedger.write

    async def write_late(book: AttemptLedger) -> None:
        await write(book)
        if asyncio.get_running_loop().time() > ends_at:
            gate.set()
            await fact(lambda: process.sender.in_flight == 0)

    ends_at = asyncio.get_running_loop().time() + PATIENCE / 2
    monkeypatch.setattr(AttemptLedger, "write", write_late)
    leased: list[str] = []
    lease = registry.attempts.lease

    async def noted(requests: list[SendRequest]) -> None:
        leased.extend(request.subscription.id for request in requests)
        await lease(requests)

    monkeypatch.setattr(registry.attempts, "lease", noted)
    assert (await process.at_once(group)).remaining == (group,)
    assert leased == ["slow"]
    assert (await on_record(registry, "slow")).state is DeliveryState.DELIVERED


async def test_what_a_dead_process_was_attempting_is_taken_over_when_its_lease_has_run_out(
    registry: Faulty, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    (group,) = await stored(registry, "slow")
    dead, other = running(slow=asyncio.Event()), running()
    left = (await dead.at_once(group)).remaining
    await dead.hooks.in_flight.close(0)
    assert await is_leased(registry, "slow"), "it could not say so any more"
    assert (await other.at_once(group)).remaining == left
    assert other.sender.attempted == []
    monkeypatch.setattr("bellwire.deliveries.LEASE", LEASE / 100)
    assert (await other.send(*left)).settled == {EVENT.key: {DeliveryState.DELIVERED: 1}}
    assert other.sender.attempted == ["slow"]


async def test_a_channel_that_is_not_at_hand_is_left_untouched(registry: Faulty, running: Running) -> None:
    hooks, mails = await stored(registry, "a"), await stored(registry, "m", target=MAIL)
    process, before = running(), await delivery(registry, "m")
    result = await process.at_once(*hooks, *mails)
    assert result.remaining == mails
    assert process.sender.attempted == ["a"]
    assert await delivery(registry, "m") == before


async def test_an_attempt_that_raises_is_left_and_its_activity_shows_why(registry: Faulty, running: Running) -> None:
    groups, process = await stored(registry, "bad", "good"), running(bad=ValueError("bug"))
    result = await process.at_once(*groups)
    assert result.remaining == (groups[0],)
    assert result.settled == {EVENT.key: {DeliveryState.DELIVERED: 1}}
    assert await attempts(registry, "bad") == []
    assert not await is_leased(registry, "bad"), "nobody would wait for anything"
    with pytest.raises(ValueError, match="bug"):
        await process.send(*result.remaining)
    assert await attempts(registry, "bad") == []


async def test_a_cancel_leaves_what_is_in_flight_going_on_and_leased(registry: Faulty, running: Running) -> None:
    gate, (group,) = asyncio.Event(), await stored(registry, "slow")
    process, other, env = running(slow=gate), running(), ActivityEnvironment()
    round_ = asyncio.create_task(process.at_once(group, env=env))
    await fact(lambda: process.sender.in_flight == 1)
    env.cancel()
    with pytest.raises(asyncio.CancelledError):
        await round_
    assert process.sender.in_flight == 1
    async with asyncio.timeout(1):
        while not await is_leased(registry, "slow"):
            await asyncio.sleep(0)
    sending = asyncio.create_task(other.send(group))
    await asyncio.wait([sending], timeout=0.05)
    gate.set()
    assert (await sending).settled == {EVENT.key: {DeliveryState.DELIVERED: 1}}
    assert (process.sender.attempted, other.sender.attempted) == (["slow"], [])


@pytest.mark.parametrize("ends", [True, False], ids=["what-has-ended", "what-goes-on"])
async def test_a_registry_that_fails_meanwhile_leads_to_nothing_sent_twice(
    registry: Faulty, running: Running, ends: bool
) -> None:
    gate, (group,) = asyncio.Event(), await stored(registry, "a")
    process = running(**({} if ends else {"a": gate}))
    registry.record_errors, registry.lease_errors = ([AWAY, AWAY], []) if ends else ([], [AWAY, AWAY])
    with pytest.raises(RegistryUnavailable, match="away"):
        await process.at_once(group)
    again = await process.at_once(group)
    assert again.remaining == (group,)
    sending = asyncio.create_task(process.send(group))
    gate.set()
    assert (await sending).settled == {EVENT.key: {DeliveryState.DELIVERED: 1}}
    assert process.sender.attempted == ["a"]
    assert (await on_record(registry, "a")).state is DeliveryState.DELIVERED


async def test_what_is_put_on_record_while_a_next_try_reads_is_not_sent_twice(
    registry: Faulty, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    (group,) = await stored(registry, "a")
    process, load = running(), registry.attempts.load
    registry.record_errors = [AWAY] * 2
    with pytest.raises(RegistryUnavailable):
        await process.at_once(group)

    async def load_slowly(groups: Any) -> Sequence[SendRequest]:
        read = await load(groups)
        await fact(lambda: not process.hooks.in_flight.among([group]))
        return read

    monkeypatch.setattr(registry.attempts, "load", load_slowly)
    assert (await process.at_once(group)).remaining == (group,)
    assert process.sender.attempted == ["a"]


async def test_a_limited_subscription_is_held_back(registry: Faulty, running: Running) -> None:
    await stored(registry, "paced", rate_limit=0.1)
    second = event(id="43")
    await registry.events.accept([second], "run")
    groups = [Group(event_key=one.key, channel=Channel.WEBHOOK, subscription_ids=("paced",)) for one in (EVENT, second)]
    await registry.deliveries.add("run", groups)
    process = running()
    result = await process.at_once(*groups)
    assert process.sender.attempted == ["paced"]
    assert sum(states[DeliveryState.DELIVERED] for states in result.settled.values()) == 1
    (held,) = result.deferred
    assert (held.reason, held.from_retry_after, held.attempts) == (HoldReason.RATE_LIMIT, True, 0)
    assert held.delay == pytest.approx(10, abs=1)
    assert result.remaining == ()


async def test_no_more_are_under_way_than_allowed_and_those_that_go_on_count(
    registry: Faulty, running: Running
) -> None:
    gate = asyncio.Event()
    process = running(most=2, slow=gate)
    slow, a, b = await stored(registry, "slow", "a", "b")
    assert {group.subscription_ids for group in (await process.at_once(slow)).remaining} == {("slow",)}
    # Both or none: the one that is left would wait for the other.
    assert {group.subscription_ids for group in (await process.at_once(a, b)).remaining} == {("a",), ("b",)}
    assert process.sender.attempted == ["slow"]
    gate.set()
    await process.send(slow)
    assert (await process.at_once(a, b)).remaining == ()
    assert process.sender.attempted == ["slow", "a", "b"]


async def test_a_receiver_that_was_slow_begins_with_an_activity_for_a_while(
    registry: Faulty, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inline, "SLOW_SECONDS", 0.3)
    gate = asyncio.Event()
    process = running(slow=gate)
    (first,) = await stored(registry, "slow")
    await process.at_once(first)
    gate.set()
    await process.send(first)
    again = event(id="again")
    await registry.events.accept([again], "run")
    group = Group(event_key=again.key, channel=Channel.WEBHOOK, subscription_ids=("slow",))
    await registry.deliveries.add("run", [group])
    assert [one.subscription_ids for one in (await process.at_once(group)).remaining] == [("slow",)]
    assert process.sender.attempted == ["slow"]
    await asyncio.sleep(0.3)
    assert (await process.at_once(group)).remaining == ()
    assert process.sender.attempted == ["slow", "slow"]


async def test_what_has_to_wait_its_turn_is_left_and_comes_back_to_be_paced(registry: Faulty, running: Running) -> None:
    groups, process = await stored(registry, "a", "b"), running(b=Throttled())
    result = await process.at_once(*groups)
    assert result.remaining == groups[1:]
    sent = await process.send(*result.remaining)
    assert [(item.subscription_id, item.reason, item.attempts) for item in sent.deferred] == [
        ("b", HoldReason.RATE_LIMIT, 0)
    ]
    assert await attempts(registry, "b") == []
