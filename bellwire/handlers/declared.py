"""Handler: one function of a service with everything that its declaration says."""

import functools
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from bellwire.contract import HandlerDeclaration
from bellwire.errors import SubscriptionInvalid
from bellwire.events import Event
from bellwire.formats.durations import format_duration
from bellwire.handlers.outcomes import Duration, seconds_of
from bellwire.subscriptions import Subscription
from bellwire.targets import HandlerTarget

#: The longest timeout of a handler. What takes longer belongs into a workflow that the handler starts.
MAX_TIMEOUT = 3600.0
#: The longest `since` that is a delay, in seconds: ten years.
MAX_SINCE = 3650 * 86_400.0

HandlerFunction = Callable[[Event], Awaitable[object] | object]


@dataclass(frozen=True, kw_only=True)
class Handler:
    """One declared handler."""

    function: HandlerFunction
    subscription: Subscription
    #: Seconds.
    timeout: float
    #: Maximum calls at a time, in one process.
    concurrency: int
    #: A delay before now, or a time; None: no past.
    since: timedelta | datetime | None

    @property
    def name(self) -> str:
        assert isinstance(self.subscription.target, HandlerTarget)
        return self.subscription.target.name

    @property
    def is_async(self) -> bool:
        function: Any = self.function
        while isinstance(function, functools.partial):
            function = function.func
        call = getattr(function, "__call__", None)  # noqa: B004 - of an object that is callable
        return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)

    def declaration(self, now: datetime) -> HandlerDeclaration:
        filters = [each.model_dump(mode="json", by_alias=True) for each in self.subscription.filters]
        return HandlerDeclaration(
            name=self.name,
            types=self.subscription.types,
            filters=tuple(filters),
            retry_schedule=self.subscription.retry_schedule,
            rate_limit=self.subscription.rate_limit,
            since=now - self.since if isinstance(self.since, timedelta) else self.since,
        )


def argument(name: str, value: Duration) -> float:
    try:
        return seconds_of(value, name)
    except ValueError as error:
        raise SubscriptionInvalid(str(error)) from error


def checked_timeout(value: Duration) -> float:
    seconds = argument("timeout", value)
    if not 0 < seconds <= MAX_TIMEOUT:
        raise SubscriptionInvalid(
            f"timeout: must be more than 0 and at most {format_duration(MAX_TIMEOUT)}; start a workflow for what takes longer"
        )
    return seconds


def checked_concurrency(value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1_000:
        raise SubscriptionInvalid("concurrency: must be 1 to 1,000")
    return value


def checked_since(value: Duration | datetime | None) -> timedelta | datetime | None:
    if value is None:
        return None
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise SubscriptionInvalid("since: has no time zone; give one, such as datetime.now(UTC)")
        return value
    seconds = argument("since", value)
    if not 0 <= seconds <= MAX_SINCE:
        raise SubscriptionInvalid("since: must be 0 to 3,650 days; give a delay before now such as 1h, or a time")
    return timedelta(seconds=seconds)
