"""Handlers: what the platform and services agree on. The platform keeps the deliveries, a service only calls its functions.

A delivery goes three steps: `open_calls` reads the registry, `call_handlers` runs in the service, which has no registry, and
`record_calls` writes what it came to.
"""

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic import Field, JsonValue, ValidationError

from bellwire.contract.payloads import ChunkResult, Group
from bellwire.deliveries import OutcomeKind
from bellwire.events import Checked
from bellwire.models import Payload
from bellwire.tenants import DEFAULT_TENANT

#: Why a delivery to a handler waits without an attempt.
NO_PROCESS, UNKNOWN_HANDLER = "no process of the service is running", "the running process does not have the handler"


def handler_subscription_id(service: str, name: str) -> str:
    """The id of a handler's subscription: the same on every registration. It stays when filters or types change."""
    digest = hashlib.sha256(f"{service}\n{name}".encode()).hexdigest()[:26]
    return f"hdl_{digest}"


class HandlerCall(Payload):
    """One attempt at a delivery to a handler."""

    event_key: str
    subscription_id: str
    #: The handler's name within the service.
    handler: str
    #: The number of the attempt, from 1.
    attempt: int


class HandlerCalls(Payload):
    """Calls that are due in one service."""

    service: str
    #: By key.
    events: dict[str, Checked]
    calls: tuple[HandlerCall, ...]


class CallOutcome(Payload):
    """What a call came to."""

    event_key: str
    subscription_id: str
    kind: OutcomeKind
    reason: str
    #: Seconds until the next attempt, if the handler asked for a delay.
    retry_after: float | None = None
    started_at: datetime
    #: Seconds.
    duration: float


class BegunCall(Payload):
    """A call that had begun when a process sent its last heartbeat."""

    event_key: str
    subscription_id: str
    started_at: datetime


class CallOutcomes(Payload):
    """The outcomes of the calls that a service has made; those that it did not get to are left out."""

    outcomes: tuple[CallOutcome, ...] = ()
    #: Names of called handlers that the process does not have. Another process of the service may have them.
    unknown: tuple[str, ...] = ()
    #: In heartbeats: the call that runs, if calls are made one by one. Older services never say it.
    calling: BegunCall | None = None


def heartbeat_in(details: Sequence[Any]) -> CallOutcomes:
    """What a process sent in its last heartbeat."""
    try:
        return CallOutcomes.model_validate(details[0]) if details else CallOutcomes()
    except ValidationError:
        return CallOutcomes()


class OpenedCalls(ChunkResult):
    #: One for each service.
    batches: tuple[HandlerCalls, ...] = ()
    #: Deliveries whose events do not fit into one payload beside the others; they are opened next.
    remaining: tuple[Group, ...] = ()


class CallRecords(Payload):
    """Outcomes to record."""

    #: The deliveries that have outcomes.
    groups: tuple[Group, ...]
    outcomes: tuple[CallOutcome, ...]
    #: Delays in seconds, for subscriptions without a schedule.
    schedule: tuple[float, ...]
    published_at: datetime | None = None


class HandlerDeclaration(Payload):
    """One handler, as it is declared in code."""

    name: str
    types: tuple[str, ...]
    #: Filters as JSON.
    filters: tuple[JsonValue, ...] = ()
    retry_schedule: tuple[float, ...] | None = None
    rate_limit: float | None = None
    #: Events since then are delivered to a new subscription; None: only those that are published from now on.
    since: datetime | None = None


class HandlerRegistration(Payload):
    """All handlers of one service, registered when a process of it starts."""

    service: str
    #: What the service's code is: its package. Two applications must not share one service.
    application: str
    tenant: str = DEFAULT_TENANT
    handlers: tuple[HandlerDeclaration, ...]
    #: Whether some process polled the service's task queue in the last minutes.
    is_live: bool = False
    #: Take the service over from another application.
    replace: bool = False


class HandlerRegistrationResult(Payload):
    #: Why nothing was stored; None: it was.
    refused: str | None = None
    #: Whether another application has the service.
    conflict: bool = False
    #: Subscription ids by handler.
    subscriptions: dict[str, str] = Field(default_factory=dict)
    #: Names of the handlers whose subscriptions are new, and of those that were changed.
    created: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
