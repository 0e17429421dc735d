"""The audit log: the resource `registry.audit_log`. `bellwire.registry.db.auditing` writes it."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.registry.db.auditing import AuditEntry, change
from bellwire.registry.db.engine import Database
from bellwire.registry.db.tables import audit_log


async def list_(
    connection: AsyncConnection, *, tenant: str | None, resource: str | None, before: str, limit: int
) -> list[AuditEntry]:
    query = select(audit_log).order_by(audit_log.c.id.desc()).limit(limit)
    if before:
        query = query.where(audit_log.c.id < before)
    if tenant is not None:
        query = query.where(audit_log.c.tenant == tenant)
    if resource is not None:
        query = query.where(audit_log.c.resource == resource)
    return [AuditEntry(**row) for row in (await connection.execute(query)).mappings()]


async def _nothing(_: AsyncConnection) -> None:
    """The transaction that stores entries only."""


class AuditLog:
    """The resource `registry.audit_log`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(self, action: str, resource: str, *, tenant: str | None = None) -> None:
        """Add an entry for a change that is made elsewhere, such as in Temporal. Nothing is stored without an actor."""
        with change(action, resource, tenant=tenant):
            await self._database.write(_nothing)

    async def list(
        self, *, tenant: str | None = None, resource: str | None = None, before: str = "", limit: int = 100
    ) -> Sequence[AuditEntry]:
        """Entries, newest first, before the id `before`."""
        return await self._database.read(list_, tenant=tenant, resource=resource, before=before, limit=limit)
