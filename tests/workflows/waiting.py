"""What workflow tests wait for: facts, with a timeout, instead of time."""

import asyncio
from collections.abc import Callable

from bellwire import Client, Receipt
from bellwire.contract import ControlResult


async def until(fact: Callable[[], bool]) -> None:
    """Wait until a fact about the fake platform holds."""
    async with asyncio.timeout(60):
        while not fact():
            await asyncio.sleep(0.01)


async def until_in_history(client: Client, receipt: Receipt, kind: str, number: int = 1) -> None:
    """Wait until the history has a number of events of a kind.

    The test server fails when a cancel arrives while an activity completes.
    """
    async with asyncio.timeout(60):
        while True:
            history = await client.temporal.get_workflow_handle(receipt.workflow_id).fetch_history()
            if sum(each.HasField(f"{kind}_event_attributes") for each in history.events) >= number:  # type: ignore[arg-type]
                return
            await asyncio.sleep(0.02)


async def until_idle(client: Client, receipt: Receipt) -> None:
    """Wait until no workflow task is open: the test server loses updates that arrive during one."""
    async with asyncio.timeout(60):
        while True:
            history = await client.temporal.get_workflow_handle(receipt.workflow_id).fetch_history()
            last = history.events[-1].WhichOneof("attributes") or ""
            if not last.startswith(("workflow_task_scheduled", "workflow_task_started")):
                return
            await asyncio.sleep(0.02)


async def update(client: Client, receipt: Receipt, action: str, *subscription_ids: str) -> ControlResult:
    """Send an operator's update, and return its result."""
    handle = client.temporal.get_workflow_handle(receipt.workflow_id)
    result: ControlResult = await handle.execute_update(action, *subscription_ids, result_type=ControlResult)
    return result
