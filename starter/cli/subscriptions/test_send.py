"""`subscriptions test`: sends one event to one subscription now, through a worker, and says what came of it."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ActivityError, ApplicationError, TimeoutType
from temporalio.exceptions import TimeoutError as Timeout

from bellwire.contract import (
    QUEUE,
    SUBSCRIPTION_NOT_FOUND,
    TEST_SEND,
    TestSendInput,
    TestSendResult,
    new_test_send_id,
)
from bellwire.deliveries import OutcomeKind
from bellwire.errors import SubscriptionNotFound
from bellwire.events import Event
from bellwire.service.settings import Settings
from bellwire.targets import Channel
from bellwire.temporal.connection import translated
from starter.cli.events.publish import read_events
from starter.cli.input.documents import read_items
from starter.cli.tables import print_facts
from starter.cli.terminal import (
    AsJson,
    CommandFailed,
    InputInvalid,
    command,
    connected,
    opened_registry,
    print_json,
)

#: For all of it: a minute for the attempt, and the waits for the workers that take up the run and the attempt.
WHOLE = timedelta(seconds=90)


@command
async def try_subscription(
    subscription_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the subscription.")],
    event: Annotated[
        Path | None, typer.Option(help="A file with the event to send, as JSON; - reads stdin. A sample if left out.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send an event to one subscription now, whatever its state, and say what came of it. It is not recorded as a delivery."""
    given = None if event is None else _one_event(str(event))
    async with opened_registry(Settings.read()) as registry:
        wish = await registry.subscriptions.get(subscription_id)
    result = await try_out(TestSendInput(subscription_id=wish.id, channel=wish.channel, event=given))
    if as_json:
        print_json(result.model_dump(mode="json"))
    else:
        print_facts(
            [("outcome", result.kind), ("reason", result.reason), ("duration", f"{result.duration * 1000:.0f} ms")]
        )
    if result.kind is not OutcomeKind.DELIVERED:
        raise CommandFailed(f"{wish.id}: the test was not delivered: {result.reason}")


def _one_event(name: str) -> Event:
    events = read_events(read_items(name))
    if len(events) != 1:
        raise InputInvalid(f"--event: {name} holds {len(events)} events; give one")
    return events[0]


async def try_out(trial: TestSendInput) -> TestSendResult:
    """Raises CommandFailed, SubscriptionNotFound, TemporalUnavailable."""
    client = (await connected()).temporal
    try:
        with translated():
            result: TestSendResult = await client.execute_workflow(
                TEST_SEND,
                trial,
                id=new_test_send_id(trial.subscription_id),
                task_queue=QUEUE,
                result_type=TestSendResult,
                execution_timeout=WHOLE,
                static_summary=f"test send to {trial.subscription_id}",
            )
    except WorkflowFailureError as failure:
        raise _told(failure.cause, trial.channel) from failure
    return result


def _told(cause: BaseException, channel: Channel) -> Exception:
    if isinstance(cause, Timeout):
        return CommandFailed(f"no worker took it up within {WHOLE.total_seconds():.0f} s; start `python worker.py`")
    inner = cause.cause if isinstance(cause, ActivityError) else cause
    if isinstance(inner, ApplicationError) and inner.type == SUBSCRIPTION_NOT_FOUND:
        return SubscriptionNotFound()
    if isinstance(inner, Timeout) and inner.type is TimeoutType.SCHEDULE_TO_START:
        return CommandFailed(f"no worker sends by {channel}; start `python worker.py --channels {channel}`")
    if isinstance(inner, Timeout):
        return CommandFailed("the attempt did not end within a minute; what was sent may still arrive")
    return CommandFailed(f"the worker failed: {inner or cause}; its log says more")
