"""BellwireEnvironment: a whole Bellwire in the test's process, whose clock skips, and whose receivers follow a script."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta
from itertools import repeat
from typing import TYPE_CHECKING

from temporalio.client import Client as Temporal
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import UnsandboxedWorkflowRunner

from bellwire.client import Client
from bellwire.contract import HandlerRegistration
from bellwire.receipts import EventReference, Status
from bellwire.subscriptions import Subscription
from bellwire.testing.captured import CapturedAttempt, CapturedDelivery
from bellwire.testing.platform import ScriptedPlatform
from bellwire.testing.registry import MemoryDelivery
from bellwire.testing.responses import Response, delivered
from bellwire.testing.server import Clock, time_skipping_server

if TYPE_CHECKING:
    from bellwire.catalog import Catalog
    from bellwire.handlers import Handlers

#: Real seconds that `wait` and `until` take at most: a test must not hang.
MAX_WAIT = 60.0
#: Real seconds between two looks at a fact.
_LOOK_INTERVAL = 0.01
#: Seconds that functions which run get when a test leaves `running`.
GRACE = 10.0
#: Servers that have an environment.
_in_use: set[int] = set()


class SkippingClient(Client):
    """A client whose `wait` skips time."""

    def __init__(self, temporal: Temporal, clock: Clock, *, catalog: "Catalog | None" = None) -> None:
        super().__init__(temporal, catalog=catalog)
        self._clock = clock

    async def wait(self, event: EventReference, timeout: float | None = None) -> Status:
        """Skip time until every delivery of the event is settled. `timeout` is in real seconds, 60 by default."""
        async with self._clock.skipping():
            return await super().wait(event, MAX_WAIT if timeout is None else timeout)

    async def wait_many(self, events: Iterable[EventReference], timeout: float | None = None) -> list[Status]:
        """Skip time until every delivery of all the events is settled. `timeout` is in real seconds, 60 by default."""
        async with self._clock.skipping():
            return await super().wait_many(events, MAX_WAIT if timeout is None else timeout)


class BellwireEnvironment:
    """What `bellwire_environment` yields: a client, subscriptions, scripted receivers, and what was delivered."""

    def __init__(self, server: WorkflowEnvironment, *, catalog: "Catalog | None" = None) -> None:
        self._platform = ScriptedPlatform(server)
        self._platform.respond = self._respond
        self._clock = Clock(server)
        self._scripts: dict[str, list[_Script]] = defaultdict(list)
        #: Temporal's client, for workflows of the service's own: awaiting the result of one that it started skips time.
        self.temporal = server.client
        configuration = server.client.config()
        configuration["interceptors"] = []  # the lookups of a client must not skip time
        #: Publishes events and follows them. `wait` skips time.
        self.client: Client = SkippingClient(Temporal(**configuration), self._clock, catalog=catalog)

    @property
    def address(self) -> str:
        """Of the Temporal server, for `Client.connect(target_host=…)` in code that connects by itself."""
        return str(self.temporal.service_client.config.target_host)

    async def subscribe(self, subscription: Subscription, *, since: timedelta | datetime | None = None) -> Subscription:
        """Store a subscription, in place of one with the same id, and return it.

        With `since`, a time or a delay before now, it also gets what was published from then on.
        """
        self._platform.subscribe(subscription)
        if isinstance(since, timedelta):
            since = await self.now() - since
        if since is not None:
            await self._platform.deliver_past(subscription, since)
        return subscription

    async def unsubscribe(self, subscription_id: str) -> None:
        """Delete a subscription. Its unsettled deliveries are cancelled when they are due."""
        self._platform.unsubscribe(subscription_id)

    def respond(self, to: str, *responses: Response, times: int | None = None) -> None:
        """Script how a receiver responds: `to` is the address of a target, such as its URL, or the id of a subscription.

        The responses are given one after the other, in the order of the calls: `times` repeats them that often, and without it
        the last one stays for ever if there is one response only. Attempts that no script covers are delivered.

        ```python
        bellwire.respond("https://shop.example/hooks", deferred("HTTP 503"), times=9)  # then delivered
        bellwire.respond("sub_ann", deferred("SMTP 451"), rejected("SMTP 550 5.1.1"))
        bellwire.respond("+14155550123", rejected("Twilio 21211"))  # for ever
        ```
        """
        if not responses:
            raise ValueError("responses: give at least one, such as deferred() or rejected()")
        if times is not None and times < 1:
            raise ValueError(f"times: must be at least 1, not {times}")
        self._scripts[to].append(_Script(responses, times))

    @property
    def attempts(self) -> list[CapturedAttempt]:
        """Every attempt that was made, in order."""
        return list(self._platform.captured)

    @property
    def deliveries(self) -> list[CapturedDelivery]:
        """Every delivery, as it is now, in the order in which they were matched."""
        return [self._captured(each) for each in self._platform.deliveries.values() if self._is_known(each)]

    async def now(self) -> datetime:
        """The simulated time."""
        return await self._clock.now()

    async def skip(self, duration: timedelta) -> None:
        """Let a duration pass at once. Attempts that are due meanwhile are made."""
        await self._clock.skip(duration)

    @asynccontextmanager
    async def skipping(self) -> AsyncIterator[None]:
        """Skip time while inside, such as for the result of a workflow that something else started."""
        async with self._clock.skipping():
            yield

    async def until(self, fact: Callable[[], bool], timeout: float = MAX_WAIT) -> None:
        """Wait, without skipping time, until a fact holds. Raises TimeoutError after `timeout` real seconds."""
        async with asyncio.timeout(timeout):
            while not fact():  # noqa: ASYNC110 - a fact is not an event
                await asyncio.sleep(_LOOK_INTERVAL)

    @asynccontextmanager
    async def running(self, handlers: "Handlers") -> AsyncIterator[None]:
        """Register a service's handlers, and call them while inside, for what is published there and for what waited for them.

        A new handler with `since` also gets what was published before, by the simulated time.
        """
        from bellwire.handlers.running import running

        now = await self.now()
        handlers.registration()  # raises if there are no handlers

        def registration(is_live: bool) -> HandlerRegistration:
            return handlers.registration(is_live=is_live, now=now)

        async with running(handlers.service, handlers.declared, self.client, registration, grace=GRACE):
            yield

    @asynccontextmanager
    async def _polling(self) -> AsyncIterator[None]:
        # No sandbox: the workflows are Bellwire's own, and without it they run three times as fast. Debug mode only lets an
        # activation take more than two seconds, as it may on a busy machine.
        async with self._platform.running(workflow_runner=UnsandboxedWorkflowRunner(), debug_mode=True):
            yield

    def _respond(self, subscription_id: str, _: int) -> Response:
        subscription = self._platform.stored.get(subscription_id)
        addresses = (subscription.target.address, *subscription.target.recipients) if subscription else ()
        for to in (subscription_id, *dict.fromkeys(addresses)):
            for script in self._scripts.get(to, ()):
                if (response := script.next()) is not None:
                    return response
        return delivered()

    def _is_known(self, delivery: MemoryDelivery) -> bool:
        return delivery.subscription_id in self._platform.stored and delivery.event_key in self._platform.events

    def _captured(self, delivery: MemoryDelivery) -> CapturedDelivery:
        return CapturedDelivery(
            event=self._platform.events[delivery.event_key].event,
            subscription=self._platform.stored[delivery.subscription_id],
            state=delivery.state,
            attempts=delivery.attempts,
            reason=delivery.reason,
        )


class _Script:
    """Responses that are used up one by one."""

    def __init__(self, responses: Sequence[Response], times: int | None) -> None:
        if times is None and len(responses) == 1:
            self._left = repeat(responses[0])
        else:
            self._left = iter(list(responses) * (times or 1))  # type: ignore[assignment]

    def next(self) -> Response | None:
        return next(self._left, None)


@asynccontextmanager
async def bellwire_environment(
    server: WorkflowEnvironment | None = None, *, catalog: "Catalog | None" = None
) -> AsyncIterator[BellwireEnvironment]:
    """Run a whole Bellwire for a test: the real workflows, a registry in memory, and receivers that follow a script.

    It starts a time-skipping server of its own, or uses one from `time_skipping_server`, which serves one environment at a time.
    With a `catalog`, events are checked before they are published. Raises NotSetUp if `bellwire[testing]` is not installed.

    ```python
    async with bellwire_environment() as bellwire:
        await bellwire.subscribe(Subscription(types=("order.paid",), target=WebhookTarget(url="https://shop.example/hooks")))
        bellwire.respond("https://shop.example/hooks", deferred("HTTP 503"), times=9)
        receipt = await bellwire.client.publish(Event(source="/shop", type="order.paid"))
        status = await bellwire.client.wait(receipt)  # three days, in a second
        assert bellwire.deliveries[0].attempts == 10
    ```
    """
    async with AsyncExitStack() as stack:
        if server is None:
            server = await stack.enter_async_context(time_skipping_server())
        if id(server) in _in_use:
            raise RuntimeError("bellwire_environment: this server already has an environment; leave that one first")
        _in_use.add(id(server))
        stack.callback(_in_use.discard, id(server))
        environment = BellwireEnvironment(server, catalog=catalog)
        await stack.enter_async_context(environment._polling())
        yield environment
