"""Bulk statements: type conversion, constants, and encryption with the keys of their registry."""

from collections.abc import Mapping, Sequence
from datetime import timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import Boolean, Column, Integer, MetaData, Table, Text, bindparam, case, delete, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire import KeyRing
from bellwire.keys.keyring import new_entry
from bellwire.registry.db.bulk import execute_many
from bellwire.registry.db.engine import Database, insert_missing
from bellwire.registry.db.sealed import Sealed
from bellwire.registry.db.tables import Timestamp
from tests.factories import NOW
from tests.registry.conftest import execute_sql

notes = Table(
    "notes",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("text", Sealed("notes.text")),
    Column("at", Timestamp),
    Column("loud", Boolean),
    Column("mood", Text),
)
CREATE = "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT, at {}, loud BOOLEAN, mood TEXT)"
#: An offset of half an hour, so that a timestamp that is not converted differs.
OTHER_ZONE = timezone(timedelta(minutes=30))
CHANGE = (
    update(notes)
    .where(notes.c.id == bindparam("number"), notes.c.mood != "gone")
    .values(
        text=case((bindparam("is_secret", type_=Boolean), "***"), else_=notes.c.text),
        mood=bindparam("word"),
        at=bindparam("time"),
        loud=False,
    )
)


async def opened(url: str, keys: str | None = None) -> Database:
    database = Database.at(url, pool=1, ring=KeyRing.parse(keys) if keys else None)
    timestamp = "DATETIME" if url.startswith("sqlite") else "TIMESTAMP WITH TIME ZONE"
    await execute_sql(database, CREATE.format(timestamp))
    return database


async def inserted(connection: AsyncConnection, rows: Sequence[Mapping[str, object]]) -> None:
    await execute_many(connection, insert_missing(connection, notes), rows)


async def everything(connection: AsyncConnection) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in await connection.execute(select(notes).order_by(notes.c.id))]


async def test_values_are_converted_as_their_columns_require(url: str) -> None:
    database = await opened(url)
    rows: list[dict[str, object]] = [
        {"id": number, "text": value, "at": NOW.astimezone(OTHER_ZONE), "loud": value is None, "mood": "good"}
        for number, value in enumerate(("a", None, "b"))
    ]
    await database.write(inserted, rows)
    expected = [(0, "a", NOW, False, "good"), (1, None, NOW, True, "good"), (2, "b", NOW, False, "good")]
    assert await database.read(everything) == expected

    await database.write(inserted, [{**rows[0], "text": "other"}, {**rows[0], "id": 3, "text": "new"}])
    assert await database.read(everything) == [*expected, (3, "new", NOW, False, "good")], "existing rows are unchanged"
    await database.close()


async def test_rows_may_omit_columns_and_list_them_in_any_order(url: str) -> None:
    database = await opened(url)
    await database.write(inserted, [{"mood": "good", "id": 1}])
    await database.write(inserted, [{"id": 2, "mood": "bad"}])
    await database.write(inserted, [{"id": 3}])
    await database.write(inserted, [])
    assert await database.read(everything) == [
        (1, None, None, None, "good"),
        (2, None, None, None, "bad"),
        (3, None, None, None, None),
    ]
    await database.close()


async def test_rows_with_other_keys_than_the_first_are_an_error(url: str) -> None:
    database = await opened(url)
    with pytest.raises(KeyError, match="mood"):
        await database.write(inserted, [{"id": 1, "mood": "good"}, {"id": 2}])
    assert await database.read(everything) == []
    await database.close()


async def test_constants_of_a_statement_apply_to_every_row(url: str) -> None:
    database = await opened(url)
    moods = ("well", "gone", "bad")
    await database.write(inserted, [{"id": n, "text": "a", "loud": True, "mood": mood} for n, mood in enumerate(moods)])
    changes = [{"number": n, "word": "new", "is_secret": n == 2, "time": NOW} for n in range(3)]
    await database.write(execute_many, CHANGE, changes)
    assert await database.read(everything) == [
        (0, "a", NOW, False, "new"),
        (1, "a", None, True, "gone"),
        (2, "***", NOW, False, "new"),
    ]
    await database.write(execute_many, delete(notes).where(notes.c.id == bindparam("number")), [{"number": 0}])
    assert len(await database.read(everything)) == 2
    await database.close()


async def test_each_registry_encrypts_with_its_own_keys(tmp_path: Any) -> None:
    """The statement is compiled once for each of them."""
    keys = (None, new_entry("first"), new_entry("second"))
    databases = [await opened(f"sqlite:///{tmp_path}/{number}.db", key) for number, key in enumerate(keys)]

    async def raw(connection: AsyncConnection) -> str:
        return str((await connection.execute(text("SELECT text FROM notes"))).scalar_one())

    for database in databases:
        await database.write(inserted, [{"id": 1, "text": "private"}])
    stored = [await database.read(raw) for database in databases]
    assert stored[0] == "private"
    assert stored[1].startswith("sealed:first:")
    assert stored[2].startswith("sealed:second:")
    assert [(await database.read(everything))[0][1] for database in databases] == ["private"] * 3
    for database in databases:
        await database.close()
