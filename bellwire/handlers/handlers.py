"""Handlers: the declaration of a service's handlers, and how they are run."""

import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from bellwire.client import Client
from bellwire.contract import HandlerRegistration, handler_subscription_id
from bellwire.errors import SubscriptionInvalid
from bellwire.filters import Filter
from bellwire.handlers.declared import Handler, argument, checked_concurrency, checked_since, checked_timeout
from bellwire.handlers.outcomes import Duration
from bellwire.subscriptions import Subscription
from bellwire.targets import HandlerTarget
from bellwire.tenants import DEFAULT_TENANT

#: Maximum handlers of one service.
MAX_HANDLERS = 500

F = TypeVar("F", bound=Callable[..., Any])


class Handlers:
    """The handlers of one service, declared in code.

    ```python
    handlers = Handlers(service="accounts")

    @handlers.on("user.registered", since="1h")
    async def send_welcome(event: Event) -> None: ...

    await handlers.run(await Client.connect())
    ```

    Every process of the service runs the same declaration; deliveries are divided between them.
    """

    def __init__(self, *, service: str, tenant: str = DEFAULT_TENANT, application: str | None = None) -> None:
        """`service` names the task queue, which no other application may use. `application` tells applications apart; by default
        the top-level package of the first function, or a program's folder and name. Raises SubscriptionInvalid."""
        # Checks both before anything is declared.
        HandlerTarget(service=service, name="check")
        Subscription(tenant=tenant, types=("*",), target=HandlerTarget(service=service, name="check"))
        self.service, self.tenant = service, tenant
        self._application = application
        self._declared: dict[str, Handler] = {}

    @property
    def declared(self) -> Sequence[Handler]:
        """The handlers, in the order of their declaration."""
        return tuple(self._declared.values())

    @property
    def application(self) -> str:
        """What tells this application from others that claim the same service."""
        if self._application is not None:
            return self._application
        function = self.declared[0].function if self._declared else None
        module: str = getattr(function, "__module__", "__main__")
        main = sys.modules["__main__"]
        if module == "__main__" and main.__spec__ and "." in main.__spec__.name:
            module = main.__spec__.name  # python -m package.module
        if module != "__main__":
            return module.partition(".")[0]
        program = getattr(main, "__file__", None)
        if program is None:
            return module
        path = Path(program).absolute()
        return f"{path.parent.name}/{path.stem}"  # many programs are called main.py

    def on(
        self,
        *types: str,
        name: str | None = None,
        filters: Iterable[Filter | dict[str, Any]] = (),
        since: Duration | datetime | None = None,
        concurrency: int = 10,
        timeout: Duration = 60.0,
        rate_limit: float | None = None,
        retry_schedule: Iterable[Duration] | None = None,
    ) -> Callable[[F], F]:
        """Declare a function as the handler of all events that match one of the type patterns, and all filters.

        The function takes the event. It may be async or not; then it runs in a thread. It succeeds by returning. It may raise
        `Retry` or `Reject`; after any other exception, and after `timeout`, it is called again by the retry schedule.

        `name` identifies it for good, by default by the function's name: another name is a new subscription. `since` delivers
        what happened before the first registration. `concurrency` is per process, `rate_limit` per second over all processes.
        Raises SubscriptionInvalid.
        """
        if any(not isinstance(each, str) for each in types):
            raise TypeError('types: give type patterns, as in @handlers.on("user.registered")')

        def declare(function: F) -> F:
            handler_name = name or str(getattr(function, "__name__", ""))
            if handler_name in self._declared:
                raise SubscriptionInvalid(f"name: {handler_name} is declared twice; give one of them another name=")
            if len(self._declared) == MAX_HANDLERS:
                raise SubscriptionInvalid(f"a service has at most {MAX_HANDLERS} handlers; divide it")
            self._declared[handler_name] = Handler(
                function=function,
                subscription=Subscription(
                    id=handler_subscription_id(self.service, handler_name),
                    tenant=self.tenant,
                    types=types,
                    filters=tuple(filters),
                    target=HandlerTarget(service=self.service, name=handler_name),
                    rate_limit=rate_limit,
                    retry_schedule=None
                    if retry_schedule is None
                    else tuple(argument("retry_schedule", delay) for delay in retry_schedule),
                ),
                timeout=checked_timeout(timeout),
                concurrency=checked_concurrency(concurrency),
                since=checked_since(since),
            )
            return function

        return declare

    def registration(
        self, *, is_live: bool = False, replace: bool = False, now: datetime | None = None
    ) -> HandlerRegistration:
        """The declaration as it is sent to the platform. `since` counts from `now`, by default the time of this process."""
        if not self._declared:
            raise SubscriptionInvalid("handlers: there are none; declare one with @handlers.on(…)")
        now = now or datetime.now(UTC)
        return HandlerRegistration(
            service=self.service,
            application=self.application,
            tenant=self.tenant,
            handlers=tuple(handler.declaration(now) for handler in self.declared),
            is_live=is_live,
            replace=replace,
        )

    async def run(self, client: Client, *, grace: float = 10.0, replace: bool = False) -> None:
        """Register the handlers, then call them until SIGTERM, SIGINT or a cancel.

        While the platform is not available, it waits. At the end, functions that run get `grace` seconds. With `replace`, takes
        the service over from another application. Raises HandlersConflict, SubscriptionInvalid, NotReadable.
        """
        from bellwire.handlers.running import run

        await run(self.service, self.declared, client, self._registering(replace), grace=grace)

    def running(
        self, client: Client, *, grace: float = 10.0, replace: bool = False
    ) -> AbstractAsyncContextManager[None]:
        """The same for a program that does something else too: the handlers are called while the body runs."""
        from bellwire.handlers.running import running

        return running(self.service, self.declared, client, self._registering(replace), grace=grace)

    def _registering(self, replace: bool) -> Callable[[bool], HandlerRegistration]:
        """A registration, by whether some process of the service polls."""
        self.registration()  # raises if there are no handlers
        return lambda is_live: self.registration(is_live=is_live, replace=replace)
