"""Event types: rows, and the resource `registry.event_types`, the catalog."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import bindparam, delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.catalog.compatibility import incompatibilities
from bellwire.catalog.event_types import EventType, NewEventType, TypeDetails, TypeVersion
from bellwire.errors import EventTypeNotFound, SchemaIncompatible
from bellwire.registry.db.engine import Database, insert_missing
from bellwire.registry.db.tables import event_type_versions, event_types

_SCHEDULES = select(event_types.c.type, event_types.c.retry_schedule).where(
    event_types.c.type.in_(bindparam("types", expanding=True)), event_types.c.retry_schedule.is_not(None)
)


class StoredType(NamedTuple):
    """A type as it is stored now, and what storing it did."""

    event_type: EventType
    #: Whether the catalog did not have the type before.
    created: bool
    #: Whether it has a new version; the first one included.
    new_version: bool


async def put(connection: AsyncConnection, new: NewEventType, *, force: bool) -> StoredType:
    now = datetime.now(UTC)
    row = {"type": new.type, **_details(new, TypeDetails.model_fields), "created_at": now, "updated_at": now}
    created = (await connection.execute(insert_missing(connection, event_types), row)).rowcount > 0
    # The row is locked, so that two new versions do not get one number.
    given = _details(new, new.model_fields_set)
    await connection.execute(update(event_types).where(event_types.c.type == new.type).values(**given, updated_at=now))
    versions = await _versions(connection, [new.type])
    latest = versions[new.type][-1] if versions.get(new.type) else None
    if latest is not None and ("schema_" not in new.model_fields_set or latest.schema_ == new.schema_):
        if "examples" in new.model_fields_set:
            await connection.execute(
                update(event_type_versions)
                .where(event_type_versions.c.type == new.type, event_type_versions.c.version == latest.version)
                .values(examples=_json(new.examples))
            )
        return StoredType(await get(connection, new.type), created, new_version=False)
    if latest is not None and not force and (problems := list(incompatibilities(latest.schema_, new.schema_))):
        raise SchemaIncompatible.of(problems)
    version = {
        "type": new.type,
        "version": 1 if latest is None else latest.version + 1,
        "schema": None if new.schema_ is None else _json(new.schema_),
        "examples": _json(new.examples),
        "created_at": now,
    }
    await connection.execute(event_type_versions.insert(), version)
    return StoredType(await get(connection, new.type), created, new_version=True)


async def change(connection: AsyncConnection, name: str, details: TypeDetails) -> EventType:
    given = _details(details, details.model_fields_set)
    statement = update(event_types).where(event_types.c.type == name)
    await connection.execute(statement.values(**given, updated_at=datetime.now(UTC)))
    return await get(connection, name)


async def remove(connection: AsyncConnection, name: str) -> None:
    await get(connection, name)
    await connection.execute(delete(event_types).where(event_types.c.type == name))


async def get(connection: AsyncConnection, name: str) -> EventType:
    found = await _with_versions(connection, [name])
    if not found:
        raise EventTypeNotFound.of(name)
    return found[0]


async def find(connection: AsyncConnection, name: str) -> EventType | None:
    return next(iter(await _with_versions(connection, [name])), None)


async def list_(connection: AsyncConnection, *, after: str, limit: int) -> list[EventType]:
    query = select(event_types.c.type).where(event_types.c.type > after).order_by(event_types.c.type).limit(limit)
    return await _with_versions(connection, list((await connection.execute(query)).scalars()))


async def schedules(connection: AsyncConnection, types: Iterable[str]) -> dict[str, tuple[float, ...]]:
    rows = await connection.execute(_SCHEDULES, {"types": sorted(set(types))})
    return {row.type: tuple(json.loads(row.retry_schedule)) for row in rows}


async def _with_versions(connection: AsyncConnection, names: Sequence[str]) -> list[EventType]:
    if not names:
        return []
    query = select(event_types).where(event_types.c.type.in_(names)).order_by(event_types.c.type)
    rows = list((await connection.execute(query)).mappings())
    versions = await _versions(connection, names)
    return [
        EventType.model_validate(
            {**row, "retry_schedule": _parsed(row["retry_schedule"]), "versions": versions[row["type"]]}
        )
        for row in rows
    ]


async def _versions(connection: AsyncConnection, names: Sequence[str]) -> Mapping[str, list[TypeVersion]]:
    """The versions of each type, oldest first."""
    columns = event_type_versions.c
    query = select(event_type_versions).where(columns.type.in_(names)).order_by(columns.type, columns.version)
    found: dict[str, list[TypeVersion]] = {}
    for row in (await connection.execute(query)).mappings():
        version = TypeVersion.model_validate(
            {**row, "schema": _parsed(row["schema"]), "examples": _parsed(row["examples"])}
        )
        found.setdefault(row["type"], []).append(version)
    return found


def _details(details: TypeDetails, names: Iterable[str]) -> dict[str, Any]:
    """The columns of these fields."""
    schedule = details.retry_schedule
    columns = {
        "description": details.description,
        "owner": details.owner,
        "deprecated": details.deprecated,
        "retry_schedule": None if schedule is None else _json(schedule),
    }
    return {name: value for name, value in columns.items() if name in names}


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _parsed(text: str | None) -> Any:
    return None if text is None else json.loads(text)


class EventTypes:
    """The resource `registry.event_types`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, new: NewEventType, *, force: bool = False) -> StoredType:
        """Store a type, or a new version of one whose schema has changed. What `new` leaves out stays as it is.

        Raises SchemaIncompatible if the new schema is not compatible with the latest one, unless with `force`.
        """
        return await self._database.write(put, new, force=force)

    async def change(self, name: str, details: TypeDetails) -> EventType:
        """Replace those details that are given. Raises EventTypeNotFound."""
        return await self._database.write(change, name, details)

    async def remove(self, name: str) -> None:
        """Remove a type with its versions. Events and subscriptions stay. Raises EventTypeNotFound."""
        await self._database.write(remove, name)

    async def get(self, name: str) -> EventType:
        """Raises EventTypeNotFound."""
        return await self._database.read(get, name)

    async def find(self, name: str) -> EventType | None:
        """The type; None if the catalog does not have it."""
        return await self._database.read(find, name)

    async def list(self, *, after: str = "", limit: int = 100) -> list[EventType]:
        """Types by name, after this one."""
        return await self._database.read(list_, after=after, limit=limit)
