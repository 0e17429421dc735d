"""Rekeying: encrypts values that are sealed with older keys, or not at all, with the first key, while workers run.

A column is scanned by its table's primary key, one window of rows at a time. No progress is stored, so rekeying can be
interrupted and repeated at any time; values that are done are skipped. A value that changed since it was read is skipped too.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Column, ColumnElement, Text, and_, bindparam, delete, func, select, tuple_, type_coerce, update
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.errors import KeysInvalid
from bellwire.keys.keyring import KeyRing
from bellwire.registry.db.engine import Database
from bellwire.registry.db.sealed import Sealed, key_of, mark_of, ring_of, seal, unseal
from bellwire.registry.db.tables import metadata, suppressions
from bellwire.registry.suppressions import address_keys
from bellwire.targets import Channel

#: Rows of a window, and the maximum of them that are rekeyed in one transaction: an event's body may have a megabyte.
WINDOW, MAX_REKEYED = 500, 50

_ADDRESS_KEY = suppressions.c.address_key
_COLUMNS: dict[str, Column[Any]] = {
    str(column): column for table in metadata.sorted_tables for column in table.c if isinstance(column.type, Sealed)
}
_COLUMNS[str(_ADDRESS_KEY)] = _ADDRESS_KEY
#: The columns to rekey, as "table.column".
COLUMNS = tuple(_COLUMNS)

#: The values of a table's primary key.
Row = tuple[Any, ...]


class StaleValue(NamedTuple):
    """A value that is not sealed with the first key."""

    row: Row
    #: As stored.
    value: str
    #: The key that it is sealed with; None if it is plain text.
    key_id: str | None


class Window(NamedTuple):
    """Consecutive rows of a table."""

    #: The last row, after which the next window begins; None at the end.
    reached: Row | None
    rows: int
    stale: Sequence[StaleValue]


async def scan(connection: AsyncConnection, name: str, *, after: Row | None) -> Window:
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
    stale = [
        StaleValue(tuple(row[:-1]), row[-1], _key_id(column, row[-1]))
        for row in await connection.execute(query.order_by(*keys).limit(MAX_REKEYED))
    ]
    if len(stale) == MAX_REKEYED:
        reached = stale[-1].row
        return Window(reached, sum(tuple(row) <= reached for row in rows), stale)
    return Window(tuple(rows[-1]) if len(rows) == WINDOW else None, len(rows), stale)


async def rekey(connection: AsyncConnection, name: str, stale: Sequence[StaleValue]) -> None:
    column, ring = _COLUMNS[name], _ring(connection)
    if not isinstance(column.type, Sealed):
        await _rekey_addresses(connection, ring, [value.row for value in stale])
        return
    purpose, raw = column.type.name, type_coerce(column, Text)
    keys = {key.name: key == bindparam(f"key_{key.name}") for key in column.table.primary_key}
    statement = (
        update(column.table)
        .where(*keys.values(), raw == bindparam("before", type_=Text))
        .values({column: type_coerce(bindparam("after", type_=Text), Text)})
    )
    changes = [
        {
            **{f"key_{key}": value for key, value in zip(keys, item.row, strict=True)},
            "before": item.value,
            "after": seal(ring, unseal(ring, item.value, column=purpose), column=purpose),
        }
        for item in stale
    ]
    if changes:
        await connection.execute(statement, changes)


async def _rekey_addresses(connection: AsyncConnection, ring: KeyRing, rows: Sequence[Row]) -> None:
    """Store these suppressions under the first key's hash of the address. Duplicates of ones stored there are deleted."""
    column, keys = suppressions.c, list(suppressions.primary_key)
    columns = (column.channel, column.address_key, column.subscription_id, column.address)
    found = await connection.execute(select(*columns).where(tuple_(*keys).in_(rows)).order_by(*keys))
    for channel, address_key, subscription_id, address in found.all():
        row = (channel, address_key, subscription_id)
        this = and_(*(key == value for key, value in zip(keys, row, strict=True)))
        first = address_keys(ring, Channel(channel), address)[0]
        stored = select(_ADDRESS_KEY).where(
            column.channel == channel, column.address_key == first, column.subscription_id == subscription_id
        )
        if (await connection.execute(stored)).first():
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
    """The prefix of values of the column under the first key."""
    return f"{ring.first}:" if column is _ADDRESS_KEY else mark_of(ring.first)


def _key_id(column: Column[Any], value: str) -> str | None:
    if column is not _ADDRESS_KEY:
        return key_of(value)
    return value.partition(":")[0] if ":" in value else None


class Rekeying:
    """The resource `registry.rekeying`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def scan(self, column: str, *, after: Row | None) -> Window:
        """Return the values that are not under the first key in the window after the row `after`; None: the first window.

        `column` is one of COLUMNS. Raises KeysInvalid without a key.
        """
        return await self._database.read(scan, column, after=after)

    async def rekey(self, column: str, stale: Sequence[StaleValue]) -> None:
        """Seal these values with the first key. Raises NotReadable, which names a missing key; then none is changed."""
        await self._database.write(rekey, column, stale)
