"""Auditing: an entry point says who acts, an operation says what it changes, and the transaction that changes it stores both."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
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


class Change(NamedTuple):
    """What an operation does, without who and when."""

    action: str
    resource: str
    tenant: str | None = None


_actor: ContextVar[Actor | None] = ContextVar("actor", default=None)
#: The entries that the next transaction stores. A list, so that the first transaction can empty it for its caller too.
_pending: ContextVar[list[AuditEntry]] = ContextVar("pending_audit_entries")


@contextmanager
def acting(actor: Actor) -> Iterator[None]:
    """Name who acts during the body."""
    token = _actor.set(actor)
    try:
        yield
    finally:
        _actor.reset(token)


@contextmanager
def changes(made: Iterable[Change]) -> Iterator[None]:
    """Name what the first transaction of the body changes.

    Nothing is stored if that fails or returns False, since nothing was changed then, or without an actor, as in a worker.
    """
    actor = _actor.get()
    if actor is None:
        yield
        return
    now = datetime.now(UTC)
    token = _pending.set(
        [
            AuditEntry(str(uuid7()), now, actor.name, actor.origin, each.action, each.resource, each.tenant)
            for each in made
        ]
    )
    try:
        yield
    finally:
        _pending.reset(token)


def change(action: str, resource: str, *, tenant: str | None = None) -> AbstractContextManager[None]:
    """`changes` for a single one."""
    return changes([Change(action, resource, tenant)])


def take() -> list[AuditEntry]:
    """The entries to store, once."""
    pending = _pending.get([])
    taken = pending[:]
    pending.clear()
    return taken


async def add(connection: AsyncConnection, entries: Sequence[AuditEntry]) -> None:
    for entry in entries:
        values: dict[str, Any] = entry._asdict()
        await connection.execute(audit_log.insert(), values)
