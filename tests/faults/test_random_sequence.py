"""A sequence of publishing, refusing, operating and killing that the seed chooses, and that ends settled and consistent."""

import asyncio
from pathlib import Path

import pytest
from temporalio.client import WorkflowUpdateFailedError
from temporalio.service import RPCError, RPCStatusCode

from bellwire.contract import Verb
from starter.receivers.hooks import Answer
from tests.faults.breakable import breakable
from tests.faults.conftest import Postgres
from tests.faults.load import Load
from tests.faults.verdict import Scenario, rows_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

STEPS = 40
#: What a step may be, and how often.
WEIGHTS = {
    "publish": 6,
    "publish_many": 3,
    "refuse": 6,
    Verb.RETRY_NOW: 6,
    Verb.PAUSE: 4,
    Verb.RESUME: 4,
    Verb.CANCEL: 2,
    "cancel the event": 2,
    "kill": 2,
}


async def test_any_sequence_ends_settled_and_consistent(tmp_path: Path, postgres: Postgres, seed: int) -> None:
    async with breakable(tmp_path, await postgres.database(), seed=seed) as system:
        load, chance = Load(system, hooks=12, mails=5, texts=5), system.random
        await load.subscribe()
        scenario = Scenario(f"{STEPS} random steps", load)
        await load.publish(singles=1)
        wishes = sorted(wish.id for wish in await system.registry.subscriptions())
        for step in chance.choices(list(WEIGHTS), list(WEIGHTS.values()), k=STEPS):
            print(step)  # noqa: T201 - what led to a failure
            receipt, wish = chance.choice(load.receipts), chance.choice([None, *wishes])
            several, path = chance.randrange(2, 5), f"/load/{chance.randrange(load.hooks)}"
            match step:
                case "publish":
                    await load.publish(singles=1)
                case "publish_many":
                    await load.publish(singles=0, batch=several)
                case "refuse":
                    system.hooks.script(path, *[Answer(status=503)] * several, Answer(), repeat=True)
                case "cancel the event":
                    await system.client.cancel(receipt)
                case "kill":
                    await scenario.before_fault()
                    await system.kill_worker(chance.choice(system.workers))
                    await system.start_worker()
                case verb:
                    await _tell(load, receipt.workflow_id, verb, wish)
        for run in dict.fromkeys(receipt.workflow_id for receipt in load.receipts):
            await _tell(load, run, Verb.RESUME, None)
        await scenario.settles(timeout=120)
        again = [row.attempts for row in await rows_of(load) if row.attempts > 1]
        assert again, "nothing was ever refused, so this proves little"


async def _tell(load: Load, run: str, verb: str, subscription_id: str | None) -> None:
    """Tell a run something. That it has ended, or does not hold the delivery any more, is as good."""
    handle = load.system.client.temporal.get_workflow_handle(run)
    try:
        async with asyncio.timeout(60):
            await handle.execute_update(verb, subscription_id)
    except WorkflowUpdateFailedError:
        return
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
