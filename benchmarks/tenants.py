"""Tenants: the latency of a healthy tenant's events beside one hostile tenant after another, against alone."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

from temporalio.client import WorkflowFailureError
from temporalio.service import RPCError, RPCStatusCode

from bellwire import Receipt, Subscription
from bellwire.deliveries import delivery_id
from benchmarks.fairness import ONE_PARTITION, dynamic_config, steadily
from benchmarks.figures import CRITERIA, Result, quantile
from benchmarks.rig import Rig, event, running_rig, subscription_id
from benchmarks.sizes import Sizes

HEALTHY, HOSTILE = "healthy", "hostile"
#: Events a second of the healthy tenant.
OFTEN = 10.0
#: Seconds between two attacks, and how many run at a time: enough to fill every pool again and again.
ATTACK_SECONDS, MAX_ATTACKS = 1.0, 3
#: Seconds from the first attack until the healthy tenant's events are measured.
SETTLING = 1.0
#: Seconds that the platform has to end what was cancelled.
CANCEL_SECONDS = 60.0
#: Timeouts of webhooks and attachments, and of tenants' templates, in seconds.
TIMEOUT, TEMPLATE_TIMEOUT = 5.0, 0.25
#: Events of one publication.
BATCH = 100

_ENDLESS = "{{% for a in range(300) %}}{{% for b in range(300) %}}{{{{ a * b }}}}{{% endfor %}}{{% endfor %}} {index}"


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What both tenants subscribe, and what one attack publishes."""

    #: The fields of the subscription with an index, for a sink at a port.
    healthy: Callable[[int, int], dict[str, Any]]
    hostile: Callable[[int, int], dict[str, Any]]
    #: Subscriptions of the hostile tenant, and events of one attack.
    subscribers: int = 200
    events: int = 1
    #: The data of events, for a sink at a port.
    healthy_data: Callable[[int], Any] = lambda _: {"order": "42"}
    hostile_data: Callable[[int], Any] = lambda _: {"order": "42"}
    #: Subscriptions of the healthy tenant that take turns.
    turns: int = 1


def _webhook(path: str, host: Callable[[int], str] = lambda _: "127.0.0.1") -> Callable[[int, int], dict[str, Any]]:
    return lambda port, index: {
        "target": {"channel": "webhook", "url": f"http://{host(index)}:{port}/{path}/{index}"},
    }


def _own_host(index: int) -> str:
    return f"n{index}.answered.example.com"


def _templated(template: str) -> Callable[[int, int], dict[str, Any]]:
    return lambda port, index: {
        "target": {"channel": "webhook", "url": f"http://127.0.0.1:{port}/accept/{index}", "format": "template"},
        "templates": {"webhook.json": template.format(index=index)},
    }


def _mail(_: int, index: int) -> dict[str, Any]:
    return {"target": {"channel": "email", "to": f"user{index}@example.com", "attachments": True}}


def _attached(path: str) -> Callable[[int], Any]:
    return lambda port: {"attachments": [{"url": f"http://127.0.0.1:{port}/{path}/a.txt", "name": "a.txt"}]}


SITUATIONS: Mapping[str, Situation] = {
    "names that are never resolved": Situation(
        healthy=_webhook("accept", _own_host),
        hostile=_webhook("accept", lambda index: f"n{index}.unanswered.example.com"),
        # More than are used within the seconds for which addresses are cached.
        turns=120,
    ),
    "slow attachments": Situation(
        healthy=_mail, hostile=_mail, healthy_data=_attached("file"), hostile_data=_attached("stall")
    ),
    "endless templates": Situation(healthy=_templated("{{{{ data }}}}"), hostile=_templated(_ENDLESS)),
    "endpoints that never respond": Situation(healthy=_webhook("accept"), hostile=_webhook("hang", _own_host)),
    "endless interim responses": Situation(healthy=_webhook("accept"), hostile=_webhook("interim", _own_host)),
    "a burst to one endpoint": Situation(
        healthy=_webhook("accept"), hostile=_webhook("late", _own_host), subscribers=1, events=1_000
    ),
}


async def tenants(sizes: Sizes) -> Result:
    """The healthy tenant's p99 from publish to arrival, alone and beside the hostile one, in turn; the worst ratio."""
    raw: dict[str, list[float]] = {}
    ratios = {}
    options = dynamic_config("matching.enableFairness=true", *ONE_PARTITION)
    async with running_rig(
        server_options=options,
        BELLWIRE_WEBHOOK_TIMEOUT=str(TIMEOUT),
        BELLWIRE_TEMPLATE_TIMEOUT=str(TEMPLATE_TIMEOUT),
    ) as rig:
        for name, situation in SITUATIONS.items():
            alone, beside = await _measure(rig, name.replace(" ", "-"), situation, sizes)
            raw[f"alone (for {name}), ms"], raw[f"beside {name}, ms"] = alone, beside
            ratios[name] = quantile(beside, 0.99) / quantile(alone, 0.99)
    p99s = (
        f"{name}: {ratio:.3g} ({quantile(raw[f'alone (for {name}), ms'], 0.99):.0f} → "
        f"{quantile(raw[f'beside {name}, ms'], 0.99):.0f} ms)"
        for name, ratio in ratios.items()
    )
    return Result(
        criterion=CRITERIA["tenants"],
        ratio=max(ratios.values()),
        raw=raw,
        notes=[
            *p99s,
            f"{sizes.tenants_repeats} times {sizes.tenants:g} s alone and beside, in turn; {OFTEN:g} events/s",
        ],
    )


async def _measure(rig: Rig, label: str, situation: Situation, sizes: Sizes) -> tuple[list[float], list[float]]:
    port = int(rig.sink.url.rpartition(":")[2])
    kinds = [f"bench.{HEALTHY}.{label}.{index}" for index in range(situation.turns)]
    for index, kind in enumerate(kinds):
        await _subscribe(rig, HEALTHY, label, index, kind, situation.healthy(port, index))
    attack = f"bench.{HOSTILE}.{label}"
    for index in range(min(situation.subscribers, sizes.tenants_attack)):
        await _subscribe(rig, HOSTILE, label, index, attack, situation.hostile(port, index))
    data, number = situation.hostile_data(port), min(situation.events, sizes.tenants_attack)

    async def attacked() -> list[Receipt]:
        events = [event(attack, tenant=HOSTILE, data=data) for _ in range(number)]
        return [
            receipt
            for start in range(0, number, BATCH)
            for receipt in await rig.client.publish_many(events[start : start + BATCH])
        ]

    async def healthy() -> list[float]:
        return await _latencies(rig, label, kinds, situation.healthy_data(port), seconds=sizes.tenants)

    await healthy()  # warm: child processes, connections
    alone, beside = list[float](), list[float]()
    for _ in range(sizes.tenants_repeats):
        alone += await healthy()
        async with _attacks(rig, attacked):
            await asyncio.sleep(SETTLING)
            beside += await healthy()
    return alone, beside


async def _subscribe(rig: Rig, tenant: str, label: str, index: int, kind: str, fields: Mapping[str, Any]) -> None:
    name = subscription_id(tenant, label, index)
    given = {"id": name, "tenant": tenant, "types": [kind], "retry_schedule": [], **fields}
    await rig.stack.registry.subscriptions.create(Subscription.model_validate(given))


@asynccontextmanager
async def _attacks(rig: Rig, attack: Callable[[], Any]) -> AsyncIterator[None]:
    """Attack every ATTACK_SECONDS while fewer than MAX_ATTACKS run, until the body ends; then cancel what still runs."""
    slots, runs = asyncio.Semaphore(MAX_ATTACKS), set[str]()

    async def one(receipts: Sequence[Receipt]) -> None:
        await _ended(rig, {receipt.workflow_id for receipt in receipts})
        slots.release()

    async def repeat() -> None:
        async with asyncio.TaskGroup() as attacks:
            while True:
                await slots.acquire()
                receipts = await attack()
                runs.update(receipt.workflow_id for receipt in receipts)
                attacks.create_task(one(receipts))
                await asyncio.sleep(ATTACK_SECONDS)

    attacking = asyncio.create_task(repeat())
    try:
        yield
    finally:
        attacking.cancel()
        await asyncio.wait([attacking])
        for run in runs:
            await _cancel(rig, run)
        async with asyncio.timeout(CANCEL_SECONDS):
            await _ended(rig, runs)


async def _cancel(rig: Rig, run: str) -> None:
    try:
        await rig.client.temporal.get_workflow_handle(run).cancel()
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:  # it has ended
            raise


async def _ended(rig: Rig, runs: set[str]) -> None:
    """Wait until the runs have ended, or were cancelled."""
    results = await asyncio.gather(
        *(rig.client.temporal.get_workflow_handle(run).result() for run in runs), return_exceptions=True
    )
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, WorkflowFailureError):
            raise result


async def _latencies(rig: Rig, label: str, kinds: Sequence[str], data: Any, *, seconds: float) -> list[float]:
    """Milliseconds from publish to arrival of the healthy tenant's events, OFTEN a second."""
    began: dict[str, float] = {}
    numbers = count()

    async def publish() -> None:
        index = next(numbers) % len(kinds)
        published = event(kinds[index], tenant=HEALTHY, data=data)
        began[delivery_id(published.key, subscription_id(HEALTHY, label, index))] = time.monotonic()
        await rig.ended([await rig.client.publish(published)])

    await rig.sink.arrivals()
    await steadily(publish, often=OFTEN, seconds=seconds)
    arrived = await rig.sink.arrivals()
    return [(arrived[name] - moment) * 1000 for name, moment in began.items()]
