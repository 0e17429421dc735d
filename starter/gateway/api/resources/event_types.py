"""Event types over HTTP: the catalog. Every key reads it; `admin` changes it."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from bellwire.catalog.event_types import EventType, NewEventType, NewVersion, TypeDetails, TypeVersion
from starter.gateway.api.access import AdminAccess, AnyAccess
from starter.gateway.api.paging import DEFAULT_LIMIT, Cursor, Limit, Page, page_of, read_cursor
from starter.gateway.api.problems import ApiProblem, ProblemType
from starter.operations.catalog import event_types as operations

router = APIRouter(prefix="/v1/event-types", tags=["Event types"])

Name = Annotated[str, Path(alias="type", examples=["order.paid"], description="An event type.")]
Number = Annotated[int, Path(ge=1, le=999_999, description="A version, from 1.")]
#: Whether a version is added although it breaks publishers or subscribers of the one before.
Force = Annotated[bool, Field(description="Add it although it breaks publishers or subscribers of the version before.")]


class TypeVersionView(BaseModel):
    """A version of the schema of a type's data. It never changes."""

    model_config = ConfigDict(populate_by_name=True)

    version: int
    schema_: dict[str, Any] | None = Field(alias="schema", description="JSON Schema 2020-12; null: any data.")
    examples: list[Any] = Field(description="Valid data.")
    created_at: datetime

    @classmethod
    def of(cls, version: TypeVersion) -> "TypeVersionView":
        return cls.model_validate(version.model_dump(by_alias=True))


class EventTypeView(BaseModel):
    """A type of events."""

    type: str
    description: str
    owner: str = Field(description="Who answers for it.")
    deprecated: str | None = Field(
        description="Why not to use it, and what to use instead; null: it is not deprecated."
    )
    retry_schedule: list[float] | None = Field(
        description="Seconds before each further attempt, for subscriptions without their own; null: the channel's."
    )
    versions: list[TypeVersionView] = Field(description="Oldest first.")
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, event_type: EventType) -> "EventTypeView":
        return cls.model_validate(event_type.model_dump(by_alias=True))


class NewEventTypeInput(NewEventType):
    force: Force = False


class NewVersionInput(NewVersion):
    force: Force = False


@router.get("")
async def list_(
    access: AnyAccess, request: Request, response: Response, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = ""
) -> Page[EventTypeView]:
    """List the types by name."""
    found = await access.registry.event_types.list(after=read_cursor(cursor), limit=limit)
    views = [EventTypeView.of(each) for each in found]
    return page_of(request, response, views, last_key=views[-1].type if views else "", limit=limit)


@router.post("", status_code=201, responses={200: {"model": EventTypeView, "description": "It has no new version."}})
async def put(access: AdminAccess, response: Response, new: NewEventTypeInput) -> EventTypeView:
    """Add a type, or a new version of it. What is left out stays as it is."""
    return await _put(access, response, new, force=new.force)


@router.get("/{type}")
async def get(access: AnyAccess, name: Name) -> EventTypeView:
    """One type with its versions."""
    return EventTypeView.of(await access.registry.event_types.get(name))


@router.patch("/{type}")
async def change(access: AdminAccess, name: Name, details: TypeDetails) -> EventTypeView:
    """Change description, owner, deprecation or retry schedule. What is left out stays as it is."""
    return EventTypeView.of(await operations.change_event_type(access.registry, name, details))


@router.delete("/{type}", status_code=204)
async def delete(access: AdminAccess, name: Name) -> None:
    """Remove a type with its versions. Events and subscriptions stay."""
    await operations.remove_event_type(access.registry, name)


@router.post(
    "/{type}/versions",
    status_code=201,
    responses={200: {"model": EventTypeView, "description": "The schema is that of the latest version."}},
)
async def add_version(access: AdminAccess, response: Response, name: Name, new: NewVersionInput) -> EventTypeView:
    """Add a version with another schema. It must suit publishers and subscribers of the one before, unless forced."""
    await access.registry.event_types.get(name)
    given = new.model_dump(by_alias=True, exclude_unset=True, exclude={"force"})
    return await _put(access, response, operations.read_event_type({"type": name, **given}), force=new.force)


@router.get("/{type}/versions/{version}")
async def get_version(access: AnyAccess, name: Name, version: Number) -> TypeVersionView:
    """One version."""
    return TypeVersionView.of(await _version(access, name, version))


@router.get("/{type}/versions/{version}/schema")
async def get_schema(access: AnyAccess, name: Name, version: Number) -> dict[str, Any]:
    """The JSON Schema of one version, as it was stored; empty if it takes any data."""
    return (await _version(access, name, version)).schema_ or {}


async def _version(access: AnyAccess, name: str, number: int) -> TypeVersion:
    found = await access.registry.event_types.get(name)
    version = found.version(number)
    if version is None:
        detail = f"{name[:80]} has no version {number}; the latest is {found.latest.version}"
        raise ApiProblem(ProblemType.NOT_FOUND, detail)
    return version


async def _put(access: AdminAccess, response: Response, new: NewEventType, *, force: bool) -> EventTypeView:
    stored = await operations.put_event_type(access.registry, new, force=force)
    if not stored.new_version:
        response.status_code = 200
    return EventTypeView.of(stored.event_type)
