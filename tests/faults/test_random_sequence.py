"""A random sequence of publications, refusals, controls and faults, after which everything is settled and consistent.

The seed decides every step: what is done, and to which event, subscription and worker. With BELLWIRE_FAULT_SEED the same steps
are repeated in the same order; how fast the system works in parallel is not repeated.
"""

import asyncio
import random
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import pytest
from temporalio.client import WorkflowUpdateFailedError
from temporalio.service import RPCError, RPCStatusCode

from bellwire.contract import Action
from bellwire.errors import RegistryUnavailable
from starter.local.receivers.webhooks import WebhookResponse
from tests.faults.breakable import breakable
from tests.faults.conftest import BreakablePostgres
from tests.faults.load import Load
from tests.faults.scenario import Scenario, rows_of

STEPS = 40


class Kind(StrEnum):
    PUBLISH = "publish"
    PUBLISH_MANY = "publish many"
    REFUSE = "refuse"
    RETRY_NOW = "retry now"
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    CANCEL_EVENT = "cancel the event"
    KILL_WORKER = "kill a worker"
    KILL_TEMPORAL = "kill Temporal"
    STOP_REGISTRY = "stop PostgreSQL"


#: Relative frequency of each kind.
WEIGHTS = {
    Kind.PUBLISH: 6,
    Kind.PUBLISH_MANY: 3,
    Kind.REFUSE: 6,
    Kind.RETRY_NOW: 6,
    Kind.PAUSE: 4,
    Kind.RESUME: 4,
    Kind.CANCEL: 2,
    Kind.CANCEL_EVENT: 2,
    Kind.KILL_WORKER: 2,
    Kind.KILL_TEMPORAL: 1,
    Kind.STOP_REGISTRY: 1,
}
ACTIONS = {
    Kind.RETRY_NOW: Action.RETRY_NOW,
    Kind.PAUSE: Action.PAUSE,
    Kind.RESUME: Action.RESUME,
    Kind.CANCEL: Action.CANCEL,
}


@dataclass(frozen=True)
class Step:
    """One step. Events, subscriptions and workers are numbered in the order of creation."""

    kind: Kind
    event: int
    #: None: all subscriptions.
    subscription: int | None
    worker: int
    #: Number of events to publish, or of refusals.
    count: int
    immediate: bool


def steps_of(seed: int, *, subscriptions: int) -> list[Step]:
    """The steps of a seed, for a load of `subscriptions` whose first event is published beforehand."""
    chance, events, steps = random.Random(seed), 1, list[Step]()
    for kind in chance.choices(list(WEIGHTS), list(WEIGHTS.values()), k=STEPS):
        step = Step(
            kind=kind,
            event=chance.randrange(events),
            subscription=chance.choice((None, chance.randrange(subscriptions))),
            worker=chance.randrange(2),
            count=chance.randrange(2, 5),
            immediate=chance.choice((True, False)),
        )
        events += {Kind.PUBLISH: 1, Kind.PUBLISH_MANY: step.count}.get(kind, 0)
        steps.append(step)
    return steps


def test_a_seed_decides_all_steps_and_every_kind_occurs() -> None:
    assert steps_of(7, subscriptions=24) == steps_of(7, subscriptions=24)
    assert steps_of(7, subscriptions=24) != steps_of(8, subscriptions=24)
    assert {step.kind for seed in range(20) for step in steps_of(seed, subscriptions=24)} == set(Kind)


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_any_sequence_ends_settled_and_consistent(tmp_path: Path, postgres: BreakablePostgres, seed: int) -> None:
    async with breakable(tmp_path, await postgres.database(), seed=seed) as system:
        load = Load(system, hooks=12, mails=5, texts=5)
        await load.subscribe()
        steps = steps_of(seed, subscriptions=len(load.subscription_ids))
        outages = {Kind.KILL_TEMPORAL, Kind.STOP_REGISTRY} & {step.kind for step in steps}
        scenario = Scenario(f"{STEPS} random steps", load, bounded=not outages)
        await load.publish(singles=1)
        for step in steps:
            print(step)  # noqa: T201 - needed to explain a failure
            await _run(step, scenario, load, postgres)
        for workflow_id in dict.fromkeys(receipt.workflow_id for receipt in load.receipts):
            await _control(load, workflow_id, Action.RESUME, None)
        await scenario.settles(timeout=300)
        again = [row.attempts for row in await rows_of(load) if row.attempts > 1]
        assert again, "no delivery was retried, so this proves little"


async def _run(step: Step, scenario: Scenario, load: Load, postgres: BreakablePostgres) -> None:
    system, receipt = load.system, load.receipts[step.event]
    match step.kind:
        case Kind.PUBLISH:
            await load.publish(singles=1)
        case Kind.PUBLISH_MANY:
            await load.publish(singles=0, batch=step.count)
        case Kind.REFUSE:
            path = f"/load/{(step.subscription or 0) % load.hooks}"
            system.hooks.script(
                path,
                *[WebhookResponse(status=503)] * step.count,
                WebhookResponse(delay=load.response_delay),
                repeat=True,
            )
        case Kind.CANCEL_EVENT:
            await system.client.cancel(receipt)
        case Kind.KILL_WORKER:
            await scenario.kill(system.workers[step.worker])
            await system.start_worker()
        case Kind.KILL_TEMPORAL:
            await scenario.before_fault()
            await system.kill_server()
            await system.start_server()
        case Kind.STOP_REGISTRY:
            await scenario.before_fault()
            await asyncio.to_thread(postgres.stop, immediate=step.immediate)
            await asyncio.to_thread(postgres.start)
            with suppress(RegistryUnavailable):
                await system.registry.ping()  # one failure discards all broken connections
        case kind:
            subscription_id = None if step.subscription is None else load.subscription_ids[step.subscription]
            await _control(load, receipt.workflow_id, ACTIONS[kind], subscription_id)


async def _control(load: Load, workflow_id: str, action: Action, subscription_id: str | None) -> None:
    """Control a run. It may have ended, or may not hold the delivery any more.

    After kills, the server refuses updates while the run's workflow task has failed repeatedly; then it is tried again.
    """
    handle = load.system.client.temporal.get_workflow_handle(workflow_id)
    async with asyncio.timeout(60):
        while True:
            try:
                await handle.execute_update(action, subscription_id)
            except WorkflowUpdateFailedError:
                return
            except RPCError as error:
                if error.status is RPCStatusCode.FAILED_PRECONDITION:
                    await asyncio.sleep(0.5)
                    continue
                if error.status is not RPCStatusCode.NOT_FOUND:
                    raise
            return
