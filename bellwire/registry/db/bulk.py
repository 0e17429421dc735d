"""Many rows by one statement. SQLAlchemy's own work for each row costs several times what the database does, so it is done
once for each column.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import Delete, Dialect, Insert, Update
from sqlalchemy.ext.asyncio import AsyncConnection

#: Statements that are remembered as written out; there are fewer.
_REMEMBERED = 64


class _Place(NamedTuple):
    """A placeholder of a statement."""

    name: str
    #: Makes of a value what the driver takes; None: it takes it as it is.
    convert: Callable[[Any], Any] | None
    #: What stands there in every row that does not name it: constants of the statement.
    constant: Any


async def execute_many(
    connection: AsyncConnection, statement: Insert | Update | Delete, rows: Sequence[Mapping[str, object]]
) -> None:
    """Execute the statement for each row, in their order; all of them name the same values.

    The statement is one that is made once and kept, since it is remembered by its identity.
    """
    if rows:
        written, places = _written_out(statement, connection.dialect, tuple(rows[0]))
        columns = [_values(place, rows) for place in places]
        await connection.exec_driver_sql(written, list(zip(*columns, strict=True)))


def _values(place: _Place, rows: Sequence[Mapping[str, object]]) -> Sequence[object]:
    """What goes there, row by row."""
    name, convert, constant = place
    if name not in rows[0]:
        return [constant] * len(rows)
    if convert is None:
        return [row[name] for row in rows]
    return [convert(row[name]) for row in rows]


@lru_cache(_REMEMBERED)
def _written_out(
    statement: Insert | Update | Delete, dialect: Dialect, names: tuple[str, ...]
) -> tuple[str, tuple[_Place, ...]]:
    """The statement in the words of this database, and its placeholders in order."""
    inserted = list(names) if isinstance(statement, Insert) else None
    compiled = statement.compile(dialect=dialect, column_keys=inserted)
    places = []
    for name in compiled.positiontup or ():
        bound = compiled.binds[name]
        convert = bound.type.dialect_impl(dialect).bind_processor(dialect)
        constant = None if name in names else bound.effective_value
        places.append(_Place(name, convert, convert(constant) if convert else constant))
    return str(compiled), tuple(places)
