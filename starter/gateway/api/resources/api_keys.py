"""API keys over HTTP: create, list, revoke and rotate them. For `admin` only."""

from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from bellwire.models import StrictInput, json_number
from bellwire.registry.api.api_keys import OVERLAP, ApiKey
from starter.gateway.api.access import AdminAccess
from starter.gateway.api.idempotency import SECRET
from starter.gateway.api.paging import DEFAULT_LIMIT, Cursor, Limit, Page, page_of, read_cursor
from starter.gateway.api.resources.request_schemas import SCOPE
from starter.operations.platform import api_keys as operations

router = APIRouter(prefix="/v1/api-keys", tags=["API keys"])


class ApiKeyView(BaseModel):
    """A key, without its text."""

    id: str
    #: `admin`, `publish`, or `tenant:<tenant>`.
    scope: str
    description: str
    #: The first characters of the key.
    hint: str
    created_at: datetime
    #: When it stops working; null: never.
    expires_at: datetime | None
    #: Null until it is used; up to a minute in the past.
    last_used_at: datetime | None
    revoked_at: datetime | None

    @classmethod
    def of(cls, key: ApiKey) -> "ApiKeyView":
        return cls(**{**key._asdict(), "scope": str(key.scope)})


class NewApiKeyView(BaseModel):
    """A new key. Its text is shown this once."""

    id: str
    key: str


class NewApiKeyInput(StrictInput):
    scope: str = Field(
        examples=["tenant:acme"],
        description="`admin`, `publish`, or `tenant:<tenant>`.",
        json_schema_extra={"pattern": SCOPE},
    )
    description: str = Field(default="", max_length=operations.MAX_DESCRIPTION)
    expires_in: Annotated[int, Field(ge=1, le=10 * 366 * 86_400), json_number] | None = Field(
        default=None, description="Seconds until it stops working; null: never."
    )


class RotationInput(StrictInput):
    overlap: Annotated[int, Field(ge=0, le=90 * 86_400), json_number] = Field(
        default=int(OVERLAP.total_seconds()),
        description="Seconds that the old key still works.",
    )


@router.post("", status_code=201)
async def create(access: AdminAccess, request: Request, new: NewApiKeyInput) -> NewApiKeyView:
    """Create a key."""
    request.scope[SECRET] = True
    created = await operations.create_api_key(
        access.registry,
        operations.parse_scope(new.scope),
        description=new.description,
        expires_in=None if new.expires_in is None else timedelta(seconds=new.expires_in),
    )
    return NewApiKeyView(id=created.api_key.id, key=created.key)


@router.get("")
async def list_(
    access: AdminAccess, request: Request, response: Response, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = ""
) -> Page[ApiKeyView]:
    """List keys in order of creation, those that no longer work included."""
    found = await operations.list_api_keys(access.registry, after=read_cursor(cursor), limit=limit)
    views = [ApiKeyView.of(key) for key in found]
    return page_of(request, response, views, last_key=views[-1].id if views else "", limit=limit)


@router.get("/{key_id}")
async def get(access: AdminAccess, key_id: str) -> ApiKeyView:
    """One key."""
    return ApiKeyView.of(await access.registry.api_keys.get(key_id))


@router.post("/{key_id}/revoke")
async def revoke(access: AdminAccess, key_id: str) -> ApiKeyView:
    """Let a key work no more. Every gateway refuses it within five seconds."""
    return ApiKeyView.of(await operations.revoke_api_key(access.registry, key_id))


@router.post("/{key_id}/rotate", status_code=201)
async def rotate(
    access: AdminAccess, request: Request, key_id: str, rotation: RotationInput | None = None
) -> NewApiKeyView:
    """Create a successor with the same scope; the old key works on during the overlap."""
    request.scope[SECRET] = True
    overlap = timedelta(seconds=(rotation or RotationInput()).overlap)
    new = await operations.rotate_api_key(access.registry, key_id, overlap=overlap)
    return NewApiKeyView(id=new.api_key.id, key=new.key)
