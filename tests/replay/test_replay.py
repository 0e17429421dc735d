"""The workflow code replays the recorded histories of workflows that started before it was changed.

If a test here fails, open workflows would be stuck after a deployment. Guard the change with `workflow.patched("name")`, so that
open workflows take the old path, and record the new path beside it (`python -m tests.replay.record`).
"""

import json
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Replayer

from tests.replay.record import HISTORIES, SCENARIOS, Scenario, play
from workflows import WORKFLOWS

FILES = sorted(HISTORIES.glob("*.json"))


def started(file: Path) -> dict[str, Any]:
    """The attributes of the start event."""
    attributes: dict[str, Any] = json.loads(file.read_text())["events"][0]["workflowExecutionStartedEventAttributes"]
    return attributes


def history(file: Path, text: str | None = None) -> WorkflowHistory:
    return WorkflowHistory.from_json(started(file)["workflowId"], text or file.read_text())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
async def test_a_recorded_history_replays(file: Path) -> None:
    replayer = Replayer(workflows=WORKFLOWS, data_converter=pydantic_data_converter)
    result = await replayer.replay_workflow(history(file))
    assert result.replay_failure is None


def test_every_workflow_has_a_recorded_history() -> None:
    recorded = {started(file)["workflowType"]["name"] for file in FILES}
    assert recorded == {workflow.__name__ for workflow in WORKFLOWS}


async def test_a_change_of_commands_fails_the_replay() -> None:
    """A history whose activity has another name does not replay."""
    file = next(file for file in FILES if file.stem == "notify-delivered")
    replayer = Replayer(workflows=WORKFLOWS, data_converter=pydantic_data_converter)
    changed = file.read_text().replace("send_sms", "send_telegram")
    result = await replayer.replay_workflow(history(file, changed), raise_on_replay_failure=False)
    assert result.replay_failure is not None


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
@pytest.mark.slow
async def test_every_workflow_task_replays_without_a_cache(dev_server: WorkflowEnvironment, scenario: Scenario) -> None:
    """A worker that takes a workflow over gets its history up to the workflow task it must run."""
    workflow_ids = await play(dev_server, scenario)
    # Without the SDK's limit of 2 s for an activation, which a busy machine may exceed.
    replayer = Replayer(workflows=WORKFLOWS, data_converter=pydantic_data_converter, debug_mode=True)
    for workflow_id in workflow_ids.values():
        handle = dev_server.client.get_workflow_handle(workflow_id)
        events = (await handle.fetch_history()).events
        steps = [
            n for n, event in enumerate(events, 1) if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED
        ]
        assert steps
        for step in steps:
            await replayer.replay_workflow(WorkflowHistory(workflow_id, events[:step]))
        description = await handle.describe()
        assert description.status is not None
        assert description.status.name in {"COMPLETED", "CANCELED", "FAILED"}
