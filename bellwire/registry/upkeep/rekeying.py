"""Rekeying: bringing what was sealed with older keys, or not at all, under the first key, while workers go on.

A column is gone through by its table's primary key, a window of rows at a time. Nothing is kept between two windows, so
that it can be broken off and begun anew at any time; what has been done is skipped. A value that somebody else has
changed since it was read is left to them.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Column, ColumnElement, Text, and_, bindparam, delete, func, select, tuple_, type_coerce, update
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.errors import KeysInvalid
from bellwire.keys.keyring import KeyRing
from bellwire.registry.db.engine import Database
from bellwire.registry.db.sealed import (
    Sealed,
    key_of,
    mark_of,
    ring_of,
    seal,
    unseal,
)
from bellwire.registry.db.tables import metadata, suppressions
from bellwire.registry.suppressions import address_keys
from bellwire.targets import Channel

#: Rows of a window, and the most of them that are brought under the first key: an event's body may have a megabyte.
WINDOW, MAX_ASTRAY = 500, 50

_ADDRESS_KEY = suppressions.c.address_key
_COLUMNS: dict[str, Column[Any]] = {
    str(column): column for table in metadata.sorted_tables for column in table.c if isinstance(column.type, Sealed)
}
_COLUMNS[str(_ADDRESS_KEY)] = _ADDRESS_KEY
#: What there is to be gone through, as "table.column".
COLUMNS = tuple(_COLUMNS)

#: The values of a table's primary key.
Row = tuple[Any, ...]


class Astray(NamedTuple):
    """A value that is not under the first key."""

    row: Row
    #: As stored.
    value: str
    #: The key that it is under; None if it is in the clear.
    key_id: str | None


class Window(NamedTuple):
    """Some consecutive rows of a table."""

    #: The last of them, behind which the next window begins; None if there are no more.
    reached: Row | None
    rows: int
    astray: Sequence[Astray]


async def look(connection: AsyncConnection, name: str, *, after: Row | None) -> Window:
    """What is not under the first key in the window behind the row `after` (None: the first window)."""
    column, ring = _COLUMNS[name], _ring(connection)
    keys = list(column.table.primary_key)
    behind = tuple_(*keys) > after if after else None
    rows = (await connection.execute(_where(select(*keys), behind).order_by(*keys).limit(WINDOW))).all()
    if not rows:
        return Window(None, 0, ())
    raw = type_coerce(column, Text)
    mark = _mark(column, ring)
    query = _where(select(*keys, raw.label("value")), behind).where(
        tuple_(*keys) <= tuple(rows[-1]), raw.is_not(None), func.substr(raw, 1, len(mark)) != mark
    )
    found = [
        Astray(tuple(row[:-1]), row[-1], _key_id(column, row[-1]))
        for row in await connection.execute(query.order_by(*keys).limit(MAX_ASTRAY))
    ]
    if len(found) == MAX_ASTRAY:
        reached = found[-1].row
        return Window(reached, sum(tuple(row) <= reached for row in rows), found)
    return Window(tuple(rows[-1]) if len(rows) == WINDOW else None, len(rows), found)


async def move(connection: AsyncConnection, name: str, astray: Sequence[Astray]) -> None:
    """Bring these values under the first key. Raises NotReadable if one cannot be read, which changes none."""
    column, ring = _COLUMNS[name], _ring(connection)
    if not isinstance(column.type, Sealed):
        await _move_address_keys(connection, ring, [item.row for item in astray])
        return
    purpose, raw = column.type.name, type_coerce(column, Text)
    keys = {key.name: key == bindparam(f"key_{key.name}") for key in column.table.primary_key}
    moved = (
        update(column.table)
        .where(*keys.values(), raw == bindparam("before", type_=Text))
        .values({column: type_coerce(bindparam("after", type_=Text), Text)})
    )
    given = [
        {
            **{f"key_{key}": value for key, value in zip(keys, item.row, strict=True)},
            "before": item.value,
            "after": seal(ring, unseal(ring, item.value, column=purpose), column=purpose),
        }
        for item in astray
    ]
    if given:
        await connection.execute(moved, given)


async def _move_address_keys(connection: AsyncConnection, ring: KeyRing, rows: Sequence[Row]) -> None:
    """Look each address up by the first key. One that is on the list under that as well is kept once."""
    column, keys = suppressions.c, list(suppressions.primary_key)
    listed = (column.channel, column.address_key, column.subscription_id, column.address)
    found = await connection.execute(select(*listed).where(tuple_(*keys).in_(rows)).order_by(*keys))
    for channel, address_key, subscription_id, address in found.all():
        row = (channel, address_key, subscription_id)
        this = and_(*(key == value for key, value in zip(keys, row, strict=True)))
        first = address_keys(ring, Channel(channel), address)[0]
        there = select(_ADDRESS_KEY).where(
            column.channel == channel, column.address_key == first, column.subscription_id == subscription_id
        )
        if (await connection.execute(there)).first():
            await connection.execute(delete(suppressions).where(this))
        else:
            await connection.execute(update(suppressions).where(this).values(address_key=first))


def _where(query: Any, condition: ColumnElement[bool] | None) -> Any:
    return query if condition is None else query.where(condition)


def _ring(connection: AsyncConnection) -> KeyRing:
    ring = ring_of(connection.dialect)
    if ring is None:
        raise KeysInvalid("BELLWIRE_ENCRYPTION_KEYS: is not set, so there is no key to encrypt with")
    return ring


def _mark(column: Column[Any], ring: KeyRing) -> str:
    """How a value of the column begins that is under the first key."""
    return f"{ring.first}:" if column is _ADDRESS_KEY else mark_of(ring.first)


def _key_id(column: Column[Any], value: str) -> str | None:
    if column is not _ADDRESS_KEY:
        return key_of(value)
    return value.partition(":")[0] if ":" in value else None


class Rekeying:
    """"""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def look(self, column: str, *, after: Row | None) -> Window:
        """What is not under the first key in the next rows of a column (of COLUMNS). Raises KeysInvalid."""
        return await self._database.read(look, column, after=after)

    async def move(self, column: str, astray: Sequence[Astray]) -> None:
        """Bring what `look` found under the first key. Raises NotReadable, which names a key that is missing."""
        await self._database.write(move, column, astray)
