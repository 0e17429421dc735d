"""Auditing: an entry point says who acts, an operation says what it changes, and the transaction that changes it stores both."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.events import uuid7
from bellwire.registry.db.tables import audit_log


class Actor(NamedTuple):
    """Who acts: an API key by its id, or a user of the command line; and from which address or host."""

    name: str
    origin: str


class AuditEntry(NamedTuple):
    """A line of the audit log."""

    id: str
    at: datetime
    actor: str
    origin: str
    #: What was done, such as subscription.paused.
    action: str
    #: The id of what was changed.
    resource: str
    tenant: str | None


_actor: ContextVar[Actor | None] = ContextVar("actor", default=None)
#: The entry that the next transaction stores. A list, so that the first transaction can take it out of its caller's context.
_pending: ContextVar[list[AuditEntry]] = ContextVar("pending_audit_entry")


@contextmanager
def acting(actor: Actor) -> Iterator[None]:
    """Name who acts during the body."""
    token = _actor.set(actor)
    try:
        yield
    finally:
        _actor.reset(token)


@contextmanager
def change(action: str, resource: str, *, tenant: str | None = None) -> Iterator[None]:
    """Name what the first transaction of the body changes. Without an actor, as in a worker, nothing is stored."""
    actor = _actor.get()
    if actor is None:
        yield
        return
    entry = AuditEntry(
        id=str(uuid7()),
        at=datetime.now(UTC),
        actor=actor.name,
        origin=actor.origin,
        action=action,
        resource=resource,
        tenant=tenant,
    )
    token = _pending.set([entry])
    try:
        yield
    finally:
        _pending.reset(token)


def take() -> AuditEntry | None:
    """The entry to store, once."""
    pending = _pending.get(None)
    return pending.pop() if pending else None


async def add(connection: AsyncConnection, entry: AuditEntry) -> None:
    values: dict[str, Any] = entry._asdict()
    await connection.execute(audit_log.insert(), values)
