"""Bulk statements: execute one statement for many rows, with value conversion per column.

SQLAlchemy's own work for each row costs several times what the database does.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import Delete, Dialect, Insert, Update
from sqlalchemy.ext.asyncio import AsyncConnection

#: Compiled statements that are cached; there are fewer.
_CACHED = 64


class _Placeholder(NamedTuple):
    """A placeholder of a statement."""

    name: str
    #: Converts a value for the driver; None: the driver takes it as it is.
    convert: Callable[[Any], Any] | None
    #: The value for rows that do not name it: a constant of the statement.
    constant: Any


async def execute_many(
    connection: AsyncConnection, statement: Insert | Update | Delete, rows: Sequence[Mapping[str, object]]
) -> None:
    """Execute the statement for each row, in order. All rows must have the same keys.

    Build the statement once and reuse it: its compiled form is cached by its identity.
    """
    if rows:
        sql, placeholders = _compiled(statement, connection.dialect, tuple(rows[0]))
        columns = [_values(placeholder, rows) for placeholder in placeholders]
        await connection.exec_driver_sql(sql, list(zip(*columns, strict=True)))


def _values(placeholder: _Placeholder, rows: Sequence[Mapping[str, object]]) -> Sequence[object]:
    """The values of a placeholder, one per row."""
    name, convert, constant = placeholder
    if name not in rows[0]:
        return [constant] * len(rows)
    if convert is None:
        return [row[name] for row in rows]
    return [convert(row[name]) for row in rows]


@lru_cache(_CACHED)
def _compiled(
    statement: Insert | Update | Delete, dialect: Dialect, names: tuple[str, ...]
) -> tuple[str, tuple[_Placeholder, ...]]:
    """Return the SQL of the statement in this dialect, and its placeholders in order."""
    inserted = list(names) if isinstance(statement, Insert) else None
    compiled = statement.compile(dialect=dialect, column_keys=inserted)
    placeholders = []
    for name in compiled.positiontup or ():
        bound = compiled.binds[name]
        convert = bound.type.dialect_impl(dialect).bind_processor(dialect)
        constant = None if name in names else bound.effective_value
        placeholders.append(_Placeholder(name, convert, convert(constant) if convert else constant))
    return str(compiled), tuple(placeholders)
