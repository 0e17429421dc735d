"""A worker is killed twice in the middle of 200 sends over every channel, and another one goes on."""

import asyncio
import math
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest

from activities.sending.loop import FLUSH_SECONDS
from bellwire import Event, Status, Subscription
from bellwire.deliveries import DeliveryState, OutcomeKind, delivery_id
from bellwire.targets import Channel
from starter.local.processes import Process
from tests.acceptance.conftest import System, running_system, start_worker
from tests.activities.applications import ASKED_FOR, EVERY_DOUBLE, MainlandDouble, variables_of
from tests.activities.doubles import Double, name_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

#: Sends over each channel, kills, and sends that each channel has made before the first kill and between two.
SENDS, KILLS, BETWEEN = 200, 2, 40
#: Attempts at a time over each channel, and seconds until its receiver responds.
CONCURRENCY, LATENCY = 4, 0.25
#: Seconds that writing outcomes to the registry may take, while all channels send on a slow machine.
WRITE_SECONDS = 1.0
#: Seconds until the SMS providers without an idempotency key list what they have sent, and after which what they do not list
#: counts as not sent. A killed worker's sends are attempted again sooner.
LISTED_AFTER, ABSENT_AFTER = 25.0, 35.0
#: Maximum sends that are repeated after a kill: those in flight, and those whose outcome is not recorded. Each of CONCURRENCY
#: places has had another one every LATENCY seconds since outcomes were last written.
MAX_REPEATED = CONCURRENCY * (1 + math.ceil((FLUSH_SECONDS + WRITE_SECONDS) / LATENCY))


@dataclass
class Killed:
    """What became of the sends over every channel."""

    system: System
    doubles: Mapping[str, Double]
    statuses: dict[str, Status] = field(default_factory=dict)
    #: At each kill, how much had arrived over each channel.
    arrived: list[Mapping[str, int]] = field(default_factory=list)
    #: Deliveries that were recorded before a kill, by id, with what had arrived then.
    recorded: dict[str, list[str]] = field(default_factory=dict)

    async def arrivals(self, name: str) -> dict[str, list[str]]:
        """What arrived of each delivery, by its id."""
        double, key = self.doubles[name], event_of(name).key
        return {
            delivery_id(key, subscription_id(name, number)): await double.arrived(number, self.system.registry)
            for number in range(SENDS)
        }

    async def subscribe(self, name: str) -> None:
        for number in range(SENDS):
            subscription = Subscription.model_validate(
                {
                    "id": subscription_id(name, number),
                    "types": [event_of(name).type],
                    "target": self.doubles[name].target(number),
                    "retry_schedule": [1.0] * 20,
                }
            )
            secret = await self.system.registry.subscriptions.create(subscription)
            if secret:
                self.doubles[name].expect(number, secret.get_secret_value())

    async def until_sent(self, number: int) -> None:
        """Wait until each channel has sent so much."""
        async with asyncio.timeout(120):
            while any(double.accepted < number for double in self.doubles.values() if double.refuses):
                await asyncio.sleep(0.02)

    async def kill(self, worker: Process) -> None:
        for name in self.doubles:
            rows = await self.system.registry.deliveries.list(event_key=event_of(name).key, limit=SENDS)
            arrivals = await self.arrivals(name)
            self.recorded |= {row.id: arrivals[row.id] for row in rows if row.state.settled}
        os.kill(worker.pid, signal.SIGKILL)
        self.arrived.append({name: double.accepted for name, double in self.doubles.items()})


def subscription_id(name: str, number: int) -> str:
    """The id of the subscription of an address. A feed is read by it."""
    return name_of(number) if name == Channel.POLL else f"{name}-{number}"


def event_of(name: str) -> Event:
    """The event that is sent over this channel."""
    return Event(source="/killed", type=f"killed.{name}", id=name, data={"order": "42"})


@pytest.fixture(scope="module")
async def killed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Killed]:
    folder = tmp_path_factory.mktemp("killed")
    async with AsyncExitStack() as stack:
        doubles = {name: await stack.enter_async_context(opened()) for name, opened in EVERY_DOUBLE.items()}
        for double in doubles.values():
            double.slow_down(LATENCY)
            if isinstance(double, MainlandDouble):
                double.fake.listed_after, double.absent_after = LISTED_AFTER, ABSENT_AFTER
        settings = {**variables_of(doubles.values(), folder), "BELLWIRE_SEND_CONCURRENCY": str(CONCURRENCY)}
        system = await stack.enter_async_context(running_system(folder, database=None, **settings))
        run = Killed(system, doubles)
        await asyncio.gather(*map(run.subscribe, doubles))
        receipts = await asyncio.gather(*(system.client.publish(event_of(name)) for name in doubles))
        worker = system.stack.processes[1]
        for number in range(1, KILLS + 1):
            await run.until_sent(number * BETWEEN)
            await run.kill(worker)
            worker = await start_worker(system, folder, f"worker-{number}")
            stack.push_async_callback(worker.stop, grace=10)
        statuses = await asyncio.gather(*(system.client.wait(receipt, timeout=180) for receipt in receipts))
        run.statuses = dict(zip(doubles, statuses, strict=True))
        yield run


@pytest.mark.parametrize("name", EVERY_DOUBLE)
async def test_of_200_sends_none_is_lost_and_few_are_repeated(killed: Killed, name: str) -> None:
    double, registry, key = killed.doubles[name], killed.system.registry, event_of(name).key
    status = killed.statuses[name]
    assert (status.counts.matched, status.counts.delivered) == (SENDS, SENDS)
    rows = await registry.deliveries.list(event_key=key, limit=SENDS + 1)
    assert Counter(row.state for row in rows) == {DeliveryState.DELIVERED: SENDS}
    arrivals = await killed.arrivals(name)
    assert [each for each, arrived in arrivals.items() if not arrived] == [], "lost"
    assert {len(set(arrived)) for arrived in arrivals.values()} == {1}, "a repetition has the same id"
    repeated = sum(len(arrived) - 1 for arrived in arrivals.values())
    assert repeated <= (0 if double.exactly_once else KILLS * MAX_REPEATED)
    if double.exactly_once and double.refuses:
        assert double.accepted == SENDS, "sent by another provider, too"
    before = {each: arrived for each, arrived in killed.recorded.items() if each in arrivals}
    assert before == {each: arrivals[each] for each in before}, "what was recorded is not sent again"
    if double.refuses:
        assert [0 < arrived[name] < SENDS for arrived in killed.arrived] == [True] * KILLS, "not in the middle"
        assert before or name in ASKED_FOR
    attempts = await registry.attempts.list(key)
    delivered = Counter(each.subscription_id for each in attempts if each.outcome.kind is OutcomeKind.DELIVERED)
    assert set(delivered.values()) == {1}, "recorded twice"
    made = Counter(each.subscription_id for each in attempts)
    # An SMS that may have been sent is looked up by the next attempt.
    looked_up = set(range(1, KILLS + 2))
    assert set(made.values()) <= ({2} if name in ASKED_FOR else looked_up if double.exactly_once else {1})
    if isinstance(double, MainlandDouble):
        reconciled = [each for each in attempts if each.outcome.reason.endswith("has it, reconciled")]
        assert reconciled, "no send was unknown"
