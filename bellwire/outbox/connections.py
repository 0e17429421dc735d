"""Connections of services: SQLAlchemy, asyncpg, and any DB-API, told apart by their types, without importing their libraries."""

import inspect
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

#: The values of a row by name.
Row = Mapping[str, str | None]

_REMEDY = "give a connection or session of SQLAlchemy, asyncpg, psycopg or sqlite3"
#: Placeholders of DB-API's parameter styles, by the position of the parameter, from 1, and its name.
_STYLES = {
    "qmark": "?",
    "format": "%s",
    "pyformat": "%s",
    "numeric": ":{position}",
    "numeric_dollar": "${position}",
    "named": ":{name}",
}


def execute(connection: Any, statement: str, rows: Sequence[Row] = ()) -> None:
    """Execute a statement, once or for each row, in the transaction of a synchronous connection. :name is a parameter.

    Raises TypeError for what is no such connection, and the driver's own errors.
    """
    library = _library(connection)
    if _is_async(connection, library):
        raise TypeError(f"connection: {_named(connection)} is asynchronous; write `await …_async(connection, …)`")
    if library == "sqlalchemy":
        from sqlalchemy import text

        connection.execute(text(statement), *_parameters(rows))
        return
    style = _style(connection, library)
    cursor = connection.cursor()
    try:
        if rows:
            cursor.executemany(with_style(statement, style), [_values(row, statement, style) for row in rows])
        else:
            cursor.execute(statement)
    finally:
        cursor.close()


async def execute_async(connection: Any, statement: str, rows: Sequence[Row] = ()) -> None:
    """The same for an asynchronous connection."""
    library = _library(connection)
    if not _is_async(connection, library):
        raise TypeError(f"connection: {_named(connection)} is not asynchronous; use the function without _async")
    if library == "sqlalchemy":
        from sqlalchemy import text

        await connection.execute(text(statement), *_parameters(rows))
    elif library == "asyncpg":
        if rows:
            style = "numeric_dollar"
            await connection.executemany(with_style(statement, style), [_values(row, statement, style) for row in rows])
        else:
            await connection.execute(statement)
    else:
        style = _style(connection, library)
        cursor = connection.cursor()
        cursor = await cursor if inspect.isawaitable(cursor) else cursor
        try:
            if rows:
                await cursor.executemany(with_style(statement, style), [_values(row, statement, style) for row in rows])
            else:
                await cursor.execute(statement)
        finally:
            await cursor.close()


def is_sqlite(connection: Any) -> bool:
    """Whether the database of a synchronous connection is SQLite; otherwise it is taken for PostgreSQL."""
    library = _library(connection)
    if library == "sqlalchemy" and not _is_async(connection, library):
        bound = connection.connection() if callable(getattr(connection, "connection", None)) else connection
        return bool(bound.dialect.name == "sqlite")
    return "sqlite" in library


async def is_sqlite_async(connection: Any) -> bool:
    """The same for an asynchronous connection."""
    library = _library(connection)
    if library == "sqlalchemy" and _is_async(connection, library):
        has_connection = inspect.iscoroutinefunction(getattr(type(connection), "connection", None))
        bound = await connection.connection() if has_connection else connection
        return bool(bound.dialect.name == "sqlite")
    return "sqlite" in library


def with_style(statement: str, style: str) -> str:
    """The statement with the placeholders of a parameter style instead of :name."""
    names = _names(statement)
    placeholder = _STYLES[style]
    return _PARAMETER.sub(
        lambda found: placeholder.format(name=found[1], position=names.index(found[1]) + 1), statement
    )


#: A parameter, but not a cast (::text).
_PARAMETER = re.compile(r"(?<!:):([a-z_]+)\b")


def _names(statement: str) -> list[str]:
    return _PARAMETER.findall(statement)


def _values(row: Row, statement: str, style: str) -> Any:
    return dict(row) if style == "named" else [row[name] for name in _names(statement)]


def _parameters(rows: Sequence[Row]) -> tuple[Any, ...]:
    """The arguments of SQLAlchemy's `execute` after the statement."""
    return ([dict(row) for row in rows],) if rows else ()


def _library(connection: Any) -> str:
    """The library that the connection is of. Raises TypeError for anything else."""
    roots = [kind.__module__.partition(".")[0] for kind in type(connection).__mro__]
    for root in roots:
        if root in {"sqlalchemy", "asyncpg"} and hasattr(connection, "execute"):
            return root
        if hasattr(sys.modules.get(root), "paramstyle") and hasattr(connection, "cursor"):
            return root
    raise TypeError(f"connection: {_named(connection)} cannot be used; {_REMEDY}")


def _style(connection: Any, library: str) -> str:
    style: str = sys.modules[library].paramstyle
    if style not in _STYLES:
        raise TypeError(f"connection: {_named(connection)} has the unknown parameter style {style}; {_REMEDY}")
    return style


def _is_async(connection: Any, library: str) -> bool:
    if library == "asyncpg":
        return True
    return inspect.iscoroutinefunction(inspect.unwrap(getattr(type(connection), "execute", execute))) or any(
        kind.__module__.startswith("sqlalchemy.ext.asyncio") for kind in type(connection).__mro__
    )


def _named(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
