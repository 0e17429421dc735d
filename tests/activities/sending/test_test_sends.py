"""Test sends: one attempt whatever the state of the subscription, not recorded, with a bounded reason."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest
from temporalio.exceptions import ActivityError, ApplicationError, RetryState, TimeoutType
from temporalio.exceptions import TimeoutError as Timeout
from temporalio.testing import ActivityEnvironment

from activities.sending.test_sends import TestSends
from activities.sending.throttling import Throttled
from bellwire.contract import SUBSCRIPTION_NOT_FOUND, TestSendInput, TestSendResult
from bellwire.deliveries import MAX_REASON, Outcome, OutcomeKind
from bellwire.errors import SubscriptionNotFound
from bellwire.registry import Registry
from bellwire.sends import SendRequest
from bellwire.subscriptions import SubscriptionState
from bellwire.suppressions import Suppression, SuppressionReason
from bellwire.targets import Channel
from starter.cli.main import main
from starter.operations.problems import OperationError
from starter.operations.subscribers.test_sends import error_of
from tests.factories import event, subscription


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/registry.db"


@pytest.fixture
async def registry(url: str) -> AsyncIterator[Registry]:
    opened = await Registry.open(url)
    await opened.migrate()
    await opened.subscriptions.create(subscription(id="sub", types=["never.*"]))
    yield opened
    await opened.close()


class Attempts:
    """Gives every attempt the same answer, and keeps the requests."""

    def __init__(self, answer: Outcome | Exception) -> None:
        self.answer = answer
        self.requests: list[SendRequest] = []

    async def __call__(self, request: SendRequest) -> Outcome:
        self.requests.append(request)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def run_test_send(registry: Registry, attempts: Attempts, given: TestSendInput) -> TestSendResult:
    test_sends = TestSends(registry, {Channel.WEBHOOK: attempts})
    return cast(TestSendResult, await ActivityEnvironment().run(test_sends.send_test, given))


GIVEN = TestSendInput(subscription_id="sub", channel=Channel.WEBHOOK)
OK = Outcome(kind=OutcomeKind.DELIVERED, reason="HTTP 204", response="private")


@pytest.mark.parametrize("state", list(SubscriptionState))
async def test_sample_event_is_sent_whatever_the_state_and_nothing_is_recorded(
    registry: Registry, state: SubscriptionState
) -> None:
    await registry.subscriptions.set_state("sub", state)
    attempts = Attempts(OK)
    result = await run_test_send(registry, attempts, GIVEN)
    assert (result.kind, result.reason) == (OutcomeKind.DELIVERED, "HTTP 204")
    (request,) = attempts.requests
    assert (request.event.type, request.event.tenant, request.event.subject) == (
        "bellwire.subscription.test",
        "acme",
        "sub",
    )
    assert request.secrets
    assert request.number == 1
    assert await registry.events.list() == []
    assert await registry.deliveries.list() == []


async def test_given_event_is_sent_unchanged(registry: Registry) -> None:
    attempts, published = Attempts(OK), event(id="mine", data={"order": 7})
    await run_test_send(registry, attempts, GIVEN.model_copy(update={"event": published}))
    assert [(request.events, request.events_json) for request in attempts.requests] == [
        ((published,), (published.to_json(),))
    ]


async def test_attempt_knows_the_suppressed_addresses(registry: Registry) -> None:
    await registry.subscriptions.create(
        subscription({"channel": "email", "to": ["ann@example.com", "bob@example.com"]}, id="mail")
    )
    gone = Suppression(channel=Channel.EMAIL, address="bob@example.com", reason=SuppressionReason.BOUNCED)
    await registry.suppressions.add(gone)
    attempts = Attempts(OK)
    test_sends = TestSends(registry, {Channel.EMAIL: attempts})
    await ActivityEnvironment().run(test_sends.send_test, TestSendInput(subscription_id="mail", channel=Channel.EMAIL))
    assert attempts.requests[0].suppressed == {"bob@example.com": SuppressionReason.BOUNCED}


@pytest.mark.parametrize(
    ("answer", "kind", "reason"),
    [
        (Outcome(kind=OutcomeKind.REJECTED, reason="HTTP 410", disable=True), OutcomeKind.REJECTED, "HTTP 410"),
        (Outcome(kind=OutcomeKind.DEFERRED, reason="x" * 500), OutcomeKind.DEFERRED, "x" * MAX_REASON),
        (Throttled(), OutcomeKind.DEFERRED, "rate limit"),
    ],
)
async def test_outcome_is_returned_and_changes_nothing(
    registry: Registry, answer: Outcome | Exception, kind: OutcomeKind, reason: str
) -> None:
    before = await registry.subscriptions.context("sub")
    result = await run_test_send(registry, Attempts(answer), GIVEN)
    assert (result.kind, result.reason) == (kind, reason)
    assert await registry.subscriptions.context("sub") == before


async def test_missing_subscription_fails_without_a_retry(registry: Registry) -> None:
    with pytest.raises(ApplicationError) as refused:
        await run_test_send(registry, Attempts(OK), TestSendInput(subscription_id="nobody", channel=Channel.WEBHOOK))
    assert (refused.value.type, refused.value.non_retryable) == (SUBSCRIPTION_NOT_FOUND, True)


def failed(cause: BaseException) -> BaseException:
    """The failure of an activity, as the client of its workflow gets it."""
    error = ActivityError(
        "failed",
        scheduled_event_id=1,
        started_event_id=2,
        identity="",
        activity_type="send_test",
        activity_id="1",
        retry_state=RetryState.TIMEOUT,
    )
    error.__cause__ = cause
    return error


def timeout(kind: TimeoutType) -> Timeout:
    return Timeout("timeout", type=kind, last_heartbeat_details=[])


@pytest.mark.parametrize(
    ("cause", "error", "text"),
    [
        (timeout(TimeoutType.START_TO_CLOSE), OperationError, "no worker started it within 90 s"),
        (failed(timeout(TimeoutType.SCHEDULE_TO_START)), OperationError, "no worker polls the queue of sms"),
        (failed(timeout(TimeoutType.START_TO_CLOSE)), OperationError, "did not end within a minute"),
        (
            failed(ApplicationError("no subscription a", type=SUBSCRIPTION_NOT_FOUND)),
            SubscriptionNotFound,
            "no subscription a",
        ),
        (failed(ApplicationError("boom")), OperationError, "the worker failed: boom"),
    ],
)
def test_failed_workflow_is_reported_with_its_remedy(cause: BaseException, error: type[Exception], text: str) -> None:
    found = error_of(cause, Channel.SMS)
    assert type(found) is error
    assert text in str(found)


def test_command_needs_a_subscription_one_event_and_temporal(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def prepare() -> None:
        registry = await Registry.open(url)
        await registry.migrate()
        await registry.subscriptions.create(subscription(id="sub"))
        await registry.close()

    asyncio.run(prepare())
    monkeypatch.setenv("BELLWIRE_REGISTRY_URL", url)
    monkeypatch.setenv("TEMPORAL_ADDRESS", "127.0.0.1:1")
    two = tmp_path / "two.json"
    two.write_text('[{"source": "/a", "type": "a"}, {"source": "/a", "type": "b"}]')
    results = []
    for arguments in (["nobody"], ["sub", "--event", str(two)], ["sub", "--event", "missing.json"], ["sub"]):
        status = main(["subscriptions", "test", *arguments])
        results.append((status, capsys.readouterr().err))
    assert [status for status, _ in results] == [1, 2, 2, 1]
    for (_, err), words in zip(
        results, ("no subscription", "holds 2 events", "missing.json", "cannot reach"), strict=True
    ):
        assert words in err
