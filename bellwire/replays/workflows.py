"""Starts and wakes the workflows of replays. The registry has what they do."""

from temporalio.client import Client
from temporalio.common import Priority, SearchAttributePair, TypedSearchAttributes, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from bellwire import contract
from bellwire.contract import ReplayInput
from bellwire.replays import Replay
from bellwire.temporal.connection import translated


async def start_replay(client: Client, replay: Replay) -> None:
    """Start the workflow of a replay that the registry has; nothing if it was started before. Raises TemporalUnavailable."""
    try:
        with translated(client):
            await client.start_workflow(
                contract.REPLAY,
                ReplayInput(replay_id=replay.id),
                id=contract.replay_workflow_id(replay.id),
                task_queue=contract.QUEUE,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                search_attributes=TypedSearchAttributes([SearchAttributePair(contract.TENANT, replay.tenant)]),
                priority=Priority(fairness_key=replay.tenant),
                static_summary=f"replay to {replay.subscription_id}",
            )
    except WorkflowAlreadyStartedError:
        return


async def wake_replay(client: Client, replay: Replay) -> None:
    """Have the workflow of a replay look at the registry now. Raises TemporalUnavailable."""
    handle = client.get_workflow_handle(contract.replay_workflow_id(replay.id))
    try:
        with translated(client):
            await handle.signal("changed")
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
        # It has not begun, and will look then; or it has ended.
