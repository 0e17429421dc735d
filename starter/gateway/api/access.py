"""Access: the caller of a request together with what it may use. Every route of a resource takes one of these."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from bellwire.client import Client
from bellwire.registry import Registry
from bellwire.registry.db.auditing import acting
from bellwire.service.settings import Settings
from starter.gateway.api.callers import Caller, authenticated
from starter.gateway.api.problems import ApiProblem, ProblemType


@dataclass(frozen=True)
class Access:
    """What an authenticated request works with."""

    caller: Caller
    registry: Registry
    client: Client
    settings: Settings

    @property
    def tenant(self) -> str | None:
        """The only tenant whose resources the caller may see; None: all."""
        return self.caller.scope.tenant

    def allows(self, tenant: str | None) -> bool:
        """Whether the caller may see what belongs to this tenant. What it may not see does not exist for it: 404, never 403."""
        return self.tenant is None or tenant == self.tenant


async def any_access(request: Request, caller: Annotated[Caller, Depends(authenticated)]) -> AsyncIterator[Access]:
    """Any key. Changes during the request are logged as the caller's."""
    state = request.app.state
    state.limits.take_request(caller, request.scope)
    with acting(caller.actor):
        yield Access(caller, state.registry, state.client, state.settings)


async def admin_access(access: Annotated[Access, Depends(any_access)]) -> Access:
    """A key with the scope `admin`."""
    return _require(access, access.caller.scope.is_admin, "admin")


async def tenant_access(access: Annotated[Access, Depends(any_access)]) -> Access:
    """A key with the scope `admin`, or that of a tenant, which sees its own resources only."""
    scope = access.caller.scope
    return _require(access, scope.is_admin or scope.tenant is not None, "admin or tenant:<tenant>")


async def publish_access(access: Annotated[Access, Depends(any_access)]) -> Access:
    """A key with the scope `admin` or `publish`."""
    return _require(access, access.caller.scope.can_publish, "admin or publish")


def _require(access: Access, allowed: bool, needed: str) -> Access:
    if not allowed:
        detail = f"needs a key with the scope {needed}; this one has {access.caller.scope}"
        raise ApiProblem(ProblemType.FORBIDDEN, detail)
    return access


AnyAccess = Annotated[Access, Depends(any_access)]
AdminAccess = Annotated[Access, Depends(admin_access)]
TenantAccess = Annotated[Access, Depends(tenant_access)]
PublishAccess = Annotated[Access, Depends(publish_access)]
