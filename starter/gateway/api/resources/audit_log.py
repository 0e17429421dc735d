"""The audit log over HTTP. For `admin` only."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from starter.gateway.api.access import AdminAccess
from starter.gateway.api.paging import DEFAULT_LIMIT, Cursor, Limit, Page, page_of, read_cursor

router = APIRouter(prefix="/v1/audit-log", tags=["Audit log"])


class AuditEntryView(BaseModel):
    """A change: who made it, when and from where."""

    id: str
    at: datetime
    #: The id of an API key, or the user of the command line.
    actor: str
    #: The address of the client, or the host of the command line.
    origin: str
    #: What was done, such as `subscription.paused`.
    action: str
    #: The id of what was changed.
    resource: str
    tenant: str | None


@router.get("")
async def list_(
    access: AdminAccess,
    request: Request,
    response: Response,
    tenant: Annotated[str | None, Query(max_length=63)] = None,
    resource: Annotated[str | None, Query(max_length=200, description="The id of what was changed.")] = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = "",
) -> Page[AuditEntryView]:
    """List changes, newest first."""
    found = await access.registry.audit_log.list(
        tenant=tenant, resource=resource, before=read_cursor(cursor), limit=limit
    )
    views = [AuditEntryView(**entry._asdict()) for entry in found]
    return page_of(request, response, views, last_key=views[-1].id if views else "", limit=limit)
