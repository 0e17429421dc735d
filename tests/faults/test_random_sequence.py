"""A sequence of publishing, refusing, operating and breaking that the seed chooses, and that ends settled and consistent.

The seed decides every step: what is done, to which event and subscription, to which worker. With BELLWIRE_FAULT_SEED the same is
done again in the same order; what runs in parallel with it is as fast as it is.
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
from tests.faults.conftest import Postgres
from tests.faults.load import Load
from tests.faults.verdict import Scenario, rows_of

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


#: How often each kind is, of all together.
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
VERBS = {
    Kind.RETRY_NOW: Action.RETRY_NOW,
    Kind.PAUSE: Action.PAUSE,
    Kind.RESUME: Action.RESUME,
    Kind.CANCEL: Action.CANCEL,
}


@dataclass(frozen=True)
class Step:
    """One step. Which event, subscription and worker: by their numbers, in the order in which they were made."""

    kind: Kind
    event: int
    #: None for all.
    wish: int | None
    worker: int
    #: Events to publish, or refusals.
    several: int
    immediate: bool


def steps_of(seed: int, *, wishes: int) -> list[Step]:
    """The steps of a seed, for a load of so many subscriptions of which one event is published beforehand."""
    chance, events, steps = random.Random(seed), 1, list[Step]()
    for kind in chance.choices(list(WEIGHTS), list(WEIGHTS.values()), k=STEPS):
        step = Step(
            kind=kind,
            event=chance.randrange(events),
            wish=chance.choice((None, chance.randrange(wishes))),
            worker=chance.randrange(2),
            several=chance.randrange(2, 5),
            immediate=chance.choice((True, False)),
        )
        events += {Kind.PUBLISH: 1, Kind.PUBLISH_MANY: step.several}.get(kind, 0)
        steps.append(step)
    return steps


def test_a_seed_decides_all_steps_and_together_they_have_every_kind() -> None:
    assert steps_of(7, wishes=24) == steps_of(7, wishes=24)
    assert steps_of(7, wishes=24) != steps_of(8, wishes=24)
    assert {step.kind for seed in range(20) for step in steps_of(seed, wishes=24)} == set(Kind)


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_any_sequence_ends_settled_and_consistent(tmp_path: Path, postgres: Postgres, seed: int) -> None:
    async with breakable(tmp_path, await postgres.database(), seed=seed) as system:
        load = Load(system, hooks=12, mails=5, texts=5)
        await load.subscribe()
        steps = steps_of(seed, wishes=len(load.wishes))
        outages = {Kind.KILL_TEMPORAL, Kind.STOP_REGISTRY} & {step.kind for step in steps}
        scenario = Scenario(f"{STEPS} random steps", load, bounded=not outages)
        await load.publish(singles=1)
        for step in steps:
            print(step)  # noqa: T201 - what led to a failure
            await _take(step, scenario, load, postgres)
        for run in dict.fromkeys(receipt.workflow_id for receipt in load.receipts):
            await _tell(load, run, Action.RESUME, None)
        await scenario.settles(timeout=120)
        again = [row.attempts for row in await rows_of(load) if row.attempts > 1]
        assert again, "nothing was ever refused, so this proves little"


async def _take(step: Step, scenario: Scenario, load: Load, postgres: Postgres) -> None:
    system, receipt = load.system, load.receipts[step.event]
    match step.kind:
        case Kind.PUBLISH:
            await load.publish(singles=1)
        case Kind.PUBLISH_MANY:
            await load.publish(singles=0, batch=step.several)
        case Kind.REFUSE:
            path = f"/load/{(step.wish or 0) % load.hooks}"
            system.hooks.script(
                path, *[WebhookResponse(status=503)] * step.several, WebhookResponse(delay=load.takes), repeat=True
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
                await system.registry.ping()  # finds the old connections dead, once for all of them
        case kind:
            wish = None if step.wish is None else load.wishes[step.wish]
            await _tell(load, receipt.workflow_id, VERBS[kind], wish)


async def _tell(load: Load, run: str, action: Action, subscription_id: str | None) -> None:
    """Tell a run something. That it has ended, or does not hold the delivery any more, is as good."""
    handle = load.system.client.temporal.get_workflow_handle(run)
    try:
        async with asyncio.timeout(60):
            await handle.execute_update(action, subscription_id)
    except WorkflowUpdateFailedError:
        return
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
