"""Temporal workers with the options that suit deliveries: one for workflows, one for each channel."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from temporalio.client import Client
from temporalio.worker import (
    PollerBehaviorAutoscaling,
    PollerBehaviorSimpleMaximum,
    UnsandboxedWorkflowRunner,
    Worker,
)

from bellwire.contract import QUEUE
from bellwire.service.slots import BusySlots, SendSlots, tuner


def workflow_worker(
    client: Client,
    workflows: Sequence[type],
    activities: Sequence[Callable[..., Any]],
    *,
    slots: BusySlots,
    grace: float,
    nexus: Sequence[Any] = (),
) -> Worker:
    """A worker for workflows, their local activities, the activity that follows events, and Nexus operations."""
    return Worker(
        client,
        task_queue=QUEUE,
        workflows=workflows,
        activities=activities,
        nexus_service_handlers=nexus,
        # The sandbox imports all workflows again for each run, a third of what a single event costs the worker. Tests use it.
        workflow_runner=UnsandboxedWorkflowRunner(),
        tuner=tuner(workflows=slots),
        # Tasks of sticky polls come on top of the busy slots, so there are few.
        workflow_task_poller_behavior=PollerBehaviorSimpleMaximum(2),
        **_options(grace),
    )


def channel_worker(
    client: Client, queue: str, activities: Sequence[Callable[..., Any]], *, max_activities: int, grace: float
) -> Worker:
    """A worker for the send activities of one channel."""
    return Worker(
        client,
        task_queue=queue,
        activities=activities,
        tuner=tuner(activities=SendSlots(max_activities)),
        # Short, so that a cancel reaches an activity soon.
        max_heartbeat_throttle_interval=timedelta(seconds=2),
        **_options(grace),
    )


def _options(grace: float) -> dict[str, Any]:
    return {
        "graceful_shutdown_timeout": timedelta(seconds=grace),
        "activity_task_poller_behavior": PollerBehaviorAutoscaling(initial=2),
    }
