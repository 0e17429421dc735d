"""Declaring handlers in code, and what their functions say by returning and raising."""

import asyncio
import dataclasses
import functools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.activity import ActivityCancellationDetails
from temporalio.client import AsyncActivityCancelledError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.testing import ActivityEnvironment

from bellwire import Event, Handlers, Reject, Retry
from bellwire.contract import BegunCall, CallOutcomes, HandlerCall, HandlerCalls, handler_subscription_id
from bellwire.deliveries import OutcomeKind
from bellwire.errors import SubscriptionInvalid
from bellwire.handlers import current_delivery
from bellwire.handlers.calling import Caller
from bellwire.handlers.outcomes import result_of
from bellwire.handlers.threads import DaemonThreads
from starter.checkout import CHECKOUT
from tests.factories import event


async def nothing(event: Event) -> None: ...


def declared(function: Callable[..., Any] = nothing, **options: Any) -> Handlers:
    handlers = Handlers(service="accounts")
    handlers.on("a.*", name="it", **options)(function)
    return handlers


def test_a_declaration_becomes_a_subscription() -> None:
    handlers = Handlers(service="accounts", tenant="acme")

    @handlers.on(
        "user.registered",
        "user.*",
        filters=[{"exact": {"subject": "1"}}],
        since="1h",
        rate_limit=5,
        retry_schedule=["5s", 60],
    )
    async def send_welcome(event: Event) -> None: ...

    (handler,) = handlers.declared
    subscription = handler.subscription
    assert subscription.id == handler_subscription_id("accounts", "send_welcome")
    assert (subscription.tenant, subscription.target.address) == ("acme", "accounts/send_welcome")
    assert (subscription.types, subscription.retry_schedule) == (("user.registered", "user.*"), (5.0, 60.0))
    registration = handlers.registration()
    assert (registration.service, registration.application, registration.tenant) == ("accounts", "tests", "acme")
    (sent,) = registration.handlers
    assert sent.since is not None
    assert abs(datetime.now(UTC) - timedelta(hours=1) - sent.since) < timedelta(minutes=1)
    assert sent.filters == ({"exact": {"subject": "1"}},)
    assert send_welcome.__name__ == "send_welcome", "the function stays as it is"


def test_the_id_follows_service_and_name_only() -> None:
    ids = {handler_subscription_id(*each) for each in (("a", "b"), ("a", "c"), ("b", "b"), ("ab", ""), ("", "ab"))}
    assert len(ids) == 5
    assert handler_subscription_id("a", "b") == "hdl_" + handler_subscription_id("a", "b").removeprefix("hdl_")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"timeout": "2h"}, "timeout: must be more than 0 and at most 1h"),
        ({"timeout": 0}, "timeout: must be more than 0"),
        ({"timeout": "soon"}, "timeout: 'soon' is not a valid duration"),
        ({"concurrency": 0}, "concurrency: must be 1 to 1,000"),
        ({"concurrency": True}, "concurrency: must be 1 to 1,000"),
        ({"since": datetime(2026, 1, 1)}, "since: has no time zone"),  # noqa: DTZ001 - that is the point
        ({"since": 1e15}, "since: must be 0 to 3,650 days; give a delay before now"),
        ({"since": float("nan")}, "since: must be 0 to 3,650 days"),
        ({"since": 10**400}, "since: "),
        ({"since": timedelta(days=999_999)}, "since: must be 0 to 3,650 days"),
        ({"since": -1}, "since: must be 0 to 3,650 days"),
        ({"since": timedelta(hours=-1)}, "since: must be 0 to 3,650 days"),
        ({"since": "yesterday"}, "since: 'yesterday' is not a valid duration"),
        ({"rate_limit": 0}, "rate_limit: must be greater than or equal to"),
        ({"retry_schedule": ["never"]}, "retry_schedule: 'never' is not a valid duration"),
        ({"filters": [{"exakt": {"type": "a"}}]}, "filters.0: is not a valid filter"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(SubscriptionInvalid, match=problem):
        declared(**options)


def test_wrong_declarations_are_refused() -> None:
    with pytest.raises(SubscriptionInvalid, match="service: must be 1 to 63 lower-case"):
        Handlers(service="Accounts Service")
    with pytest.raises(SubscriptionInvalid, match="tenant"):
        Handlers(service="accounts", tenant="*")
    handlers = declared()
    with pytest.raises(SubscriptionInvalid, match="it is declared twice"):
        handlers.on("b", name="it")(nothing)
    with pytest.raises(SubscriptionInvalid, match="types: must have at least 1 item"):
        handlers.on(name="other")(nothing)
    with pytest.raises(SubscriptionInvalid, match="name: must be 1 to 100 letters"):
        handlers.on("b")(lambda event: None)
    with pytest.raises(TypeError, match=r'@handlers.on\("user.registered"\)'):
        handlers.on(nothing)  # type: ignore[arg-type]
    with pytest.raises(SubscriptionInvalid, match="there are none"):
        Handlers(service="accounts").registration()


def test_what_is_raised_decides() -> None:
    assert result_of(Retry("busy", after="5m")) == (OutcomeKind.DEFERRED, "busy", 300.0)
    assert result_of(Retry()) == (OutcomeKind.DEFERRED, "the handler asked for a retry", None)
    assert result_of(Reject("gone")) == (OutcomeKind.REJECTED, "gone", None)
    assert result_of(KeyError("name")) == (OutcomeKind.DEFERRED, "KeyError: 'name'", None)
    assert result_of(ValueError()) == (OutcomeKind.DEFERRED, "ValueError", None)
    long = result_of(ValueError("line\n" * 1000)).reason
    assert len(long) == 120
    assert "\n" not in long
    with pytest.raises(ValueError, match="after: must be 0 to 7d"):
        Retry(after="8d")


class Undescribed(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def test_an_exception_that_cannot_describe_itself_has_its_type() -> None:
    assert result_of(Undescribed()).reason == "Undescribed"


async def call(
    handlers: Handlers, events: list[Event], *, environment: ActivityEnvironment | None = None, name: str = "it"
) -> CallOutcomes:
    calls = HandlerCalls(
        service="accounts",
        events={each.key: each for each in events},
        calls=tuple(HandlerCall(event_key=each.key, subscription_id="s", handler=name, attempt=3) for each in events),
    )
    with DaemonThreads(10) as executor:
        caller = Caller(handlers.declared, executor)
        result: CallOutcomes = await (environment or ActivityEnvironment()).run(caller.call_handlers, calls)
        return result


@pytest.mark.parametrize("sync", [False, True])
async def test_functions_know_their_delivery_and_their_exceptions_are_reasons(sync: bool) -> None:
    seen = []

    def work(event: Event) -> None:
        seen.append((current_delivery(), threading.current_thread() is threading.main_thread()))
        raise LookupError("no user")

    async def work_async(event: Event) -> None:
        work(event)

    one = event()
    (outcome,) = (await call(declared(work if sync else work_async), [one])).outcomes
    assert (outcome.kind, outcome.reason) == (OutcomeKind.DEFERRED, "LookupError: no user")
    assert seen == [((f"dlv_{one.key}_s", 3), not sync)]
    with pytest.raises(LookupError):
        current_delivery()


async def test_each_call_has_an_event_of_its_own() -> None:
    seen = []
    handlers = Handlers(service="accounts")

    @handlers.on("a.*")
    async def one(event: Event) -> None:
        assert isinstance(event.data, dict)
        seen.append(event.data.pop("user", None))

    handlers.on("a.*", name="other")(one)
    shared = event(data={"user": "ann"})
    calls = HandlerCalls(
        service="accounts",
        events={shared.key: shared},
        calls=tuple(
            HandlerCall(event_key=shared.key, subscription_id=name, handler=name, attempt=1)
            for name in ("one", "other")
        ),
    )
    with DaemonThreads(10) as executor:
        await ActivityEnvironment().run(Caller(handlers.declared, executor).call_handlers, calls)
    assert seen == ["ann", "ann"]
    assert shared.data == {"user": "ann"}


async def test_a_partial_and_an_object_are_called_as_what_they_are() -> None:
    class Service:
        called = 0

        async def __call__(self, event: Event) -> None:
            self.called += 1

    service = Service()
    assert (await call(declared(service), [event()])).outcomes[0].kind is OutcomeKind.DELIVERED
    assert (await call(declared(functools.partial(service)), [event()])).outcomes[0].kind is OutcomeKind.DELIVERED
    assert service.called == 2
    (outcome,) = (await call(declared(lambda event: service(event)), [event()])).outcomes
    assert outcome.reason == "TypeError: the function returned a coroutine; declare it with async def"


@pytest.mark.parametrize("sync", [False, True])
async def test_a_function_that_takes_too_long_is_deferred(sync: bool) -> None:
    released = threading.Event()

    async def wait(event: Event) -> None:
        await asyncio.sleep(60)

    def block(event: Event) -> None:
        released.wait(5)

    handlers = declared(block if sync else wait, timeout=0.1)
    asyncio.get_running_loop().call_later(0.5, released.set)
    (outcome,) = (await call(handlers, [event()])).outcomes
    assert (outcome.kind, outcome.reason) == (OutcomeKind.DEFERRED, "timed out after 0.1 s")
    assert 0.1 <= outcome.duration < 5


async def test_a_timeout_of_its_own_is_told_from_that_of_the_handler() -> None:
    async def fail(event: Event) -> None:
        raise TimeoutError("database")

    (outcome,) = (await call(declared(fail), [event()])).outcomes
    assert outcome.reason == "TimeoutError: database"


async def test_a_function_that_ends_the_program_or_is_cancelled_is_deferred() -> None:
    def leave(event: Event) -> None:
        raise SystemExit(1)

    async def cancelled(event: Event) -> None:
        raise asyncio.CancelledError

    assert (await call(declared(leave), [event()])).outcomes[0].reason == "SystemExit: 1"
    assert (await call(declared(cancelled), [event()])).outcomes[0].reason == "CancelledError"


async def test_no_more_calls_than_the_concurrency_run_at_a_time() -> None:
    now, most = 0, 0

    async def count(event: Event) -> None:
        nonlocal now, most
        now, most = now + 1, max(most, now + 1)
        await asyncio.sleep(0.01)
        now -= 1

    result = await call(declared(count, concurrency=3), [event(id=str(number)) for number in range(20)])
    assert len(result.outcomes) == 20
    assert most == 3


async def test_threads_that_outlast_their_timeout_hold_their_slot() -> None:
    now, most, lock = 0, 0, threading.Lock()

    def block(event: Event) -> None:
        nonlocal now, most
        with lock:
            now, most = now + 1, max(most, now + 1)
        time.sleep(0.2)
        with lock:
            now -= 1

    result = await call(declared(block, concurrency=1, timeout=0.05), [event(id=str(number)) for number in range(3)])
    assert [each.reason for each in result.outcomes] == ["timed out after 0.05 s"] * 3
    assert most == 1


async def test_an_unknown_handler_is_handed_back() -> None:
    result = await call(declared(), [event()], name="other")
    assert (result.outcomes, result.unknown) == ((), ("other",))


async def test_a_cancel_ends_what_runs_and_hands_the_rest_back() -> None:
    begun = asyncio.Event()
    called = []

    async def slow(event: Event) -> None:
        called.append(event.id)
        begun.set()
        await asyncio.sleep(0.3)

    environment = ActivityEnvironment()
    running = asyncio.create_task(
        call(declared(slow, concurrency=1), [event(id=str(number)) for number in range(5)], environment=environment)
    )
    await begun.wait()
    environment.cancel(ActivityCancellationDetails(cancel_requested=True))
    result = await running
    assert [each.kind for each in result.outcomes] == [OutcomeKind.DELIVERED]
    assert len(called) == 1


async def test_what_ended_before_a_crash_is_not_called_again() -> None:
    called = []

    async def work(event: Event) -> None:
        called.append(event.id)

    events = [event(id=str(number)) for number in range(3)]
    first = await call(declared(work), events[:2])
    environment = ActivityEnvironment()
    info = environment.info
    environment.info = info.__class__(**{**vars(info), "heartbeat_details": [first.model_dump(mode="json")]})
    result = await call(declared(work), events, environment=environment)
    assert len(result.outcomes) == 3
    assert called == ["0", "1", "2"]


class Heartbeats:
    """A client that keeps the heartbeats which the server has got."""

    def __init__(self, error: Exception | None = None) -> None:
        self.details, self._error = list[CallOutcomes](), error

    def get_async_activity_handle(self, *, task_token: bytes) -> "Heartbeats":
        return self

    async def heartbeat(self, details: CallOutcomes, *, rpc_timeout: timedelta) -> None:
        await asyncio.sleep(0)
        if self._error:
            raise self._error
        self.details.append(details)


def later_try(heartbeats: Heartbeats, *details: CallOutcomes) -> ActivityEnvironment:
    """Of an activity whose process ended after it had sent these details."""
    environment = ActivityEnvironment(client=heartbeats)  # type: ignore[arg-type]
    sent = [each.model_dump(mode="json") for each in details]
    environment.info = dataclasses.replace(environment.info, attempt=2, heartbeat_details=sent)
    return environment


async def test_after_a_crash_the_server_knows_of_each_call_before_it_begins() -> None:
    heartbeats, events, seen = Heartbeats(), [event(id=str(number)) for number in range(3)], []

    async def work(event: Event) -> None:
        known = heartbeats.details[-1]
        seen.append((known.calling and known.calling.event_key, len(known.outcomes)))
        await asyncio.sleep(0)

    result = await call(declared(work), events, environment=later_try(heartbeats))
    assert seen == [(each.key, number) for number, each in enumerate(events)]
    assert [each.kind for each in result.outcomes] == [OutcomeKind.DELIVERED] * 3
    assert heartbeats.details[-1].calling is None, "nothing runs any more"


async def test_the_call_during_which_the_process_ended_again_is_an_attempt_and_the_others_are_made() -> None:
    called, events = [], [event(id=str(number)) for number in range(3)]

    async def work(event: Event) -> None:
        called.append(event.id)

    began = BegunCall(
        event_key=events[1].key, subscription_id="s", started_at=datetime.now(UTC) - timedelta(seconds=20)
    )
    environment = later_try(Heartbeats(), CallOutcomes(calling=began))
    outcomes = {each.event_key: each for each in (await call(declared(work), events, environment=environment)).outcomes}
    lost = outcomes.pop(events[1].key)
    assert (lost.kind, lost.reason) == (OutcomeKind.DEFERRED, "the process ended during the call, twice")
    assert lost.started_at == began.started_at
    assert 20 <= lost.duration < 30
    assert [each.kind for each in outcomes.values()] == [OutcomeKind.DELIVERED] * 2
    assert called == ["0", "2"]


@pytest.mark.parametrize(
    "error",
    [
        AsyncActivityCancelledError(ActivityCancellationDetails(cancel_requested=True)),
        RPCError("gone", RPCStatusCode.NOT_FOUND, b""),
        RPCError("down", RPCStatusCode.UNAVAILABLE, b""),
    ],
)
async def test_no_call_begins_that_the_server_does_not_know_of(error: Exception) -> None:
    called = []

    async def work(event: Event) -> None:
        called.append(event.id)

    result = await call(declared(work), [event(id="1"), event(id="2")], environment=later_try(Heartbeats(error)))
    assert (result.outcomes, called) == ((), [])


def test_a_function_that_does_not_return_keeps_no_process_from_ending() -> None:
    program = (
        "import threading; from bellwire.handlers.threads import DaemonThreads\n"
        "begun, threads = threading.Event(), DaemonThreads(2)\n"
        "threads.submit(lambda: (begun.set(), threading.Event().wait()))\n"
        "begun.wait(); threads.shutdown(wait=False, cancel_futures=True); print('ended')"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True)
    assert ended.stdout == "ended\n"


def test_threads_are_used_again_and_end_when_they_are_idle() -> None:
    release, names = threading.Event(), set[str]()

    def work() -> bool:
        names.add(threading.current_thread().name)
        return release.wait(5)

    with DaemonThreads(2) as threads:
        futures = [threads.submit(work) for _ in range(5)]
        waiting = threads.submit(release.wait)
        assert waiting.cancel()
        release.set()
        assert [future.result(5) for future in futures] == [True] * 5
        with pytest.raises(ZeroDivisionError):
            threads.submit(lambda: 1 / 0).result(5)
    assert len(names) <= 2
    assert not [each for each in threading.enumerate() if each.name in names]
    with pytest.raises(RuntimeError):
        threads.submit(print)


@pytest.mark.parametrize(
    ("folder", "arguments", "application"),
    [("api", ["main.py"], "api/main"), (".", ["-m", "api.main"], "api"), ("api", ["-m", "main"], "api/main")],
)
def test_a_program_is_told_from_others_by_its_folder(
    tmp_path: Path, folder: str, arguments: list[str], application: str
) -> None:
    (tmp_path / "api").mkdir()
    (tmp_path / "api" / "main.py").write_text(
        "from bellwire import Handlers\nhandlers = Handlers(service='a')\n"
        "@handlers.on('*')\ndef work(event): ...\nprint(handlers.application)\n"
    )
    variables = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    ran = subprocess.run(
        [sys.executable, *arguments], cwd=tmp_path / folder, env=variables, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == application
