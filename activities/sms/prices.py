"""Prices: what one segment of an SMS costs, by the first digits of the number; the operator's table, for estimates."""

import csv
import io
import json
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, TypeAdapter, ValidationError

from bellwire.errors import fields_in_error
from bellwire.models import StrictInput

_COLUMNS = ["prefix", "price", "currency"]


class Price(StrictInput):
    """A row of the table."""

    #: + and the first digits; + alone is for all numbers that no other is for.
    prefix: Annotated[str, Field(pattern=r"^\+[0-9]{0,15}$")]
    #: Of one segment.
    price: Annotated[Decimal, Field(ge=0, allow_inf_nan=False)]
    #: ISO 4217: EUR.
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")]


_ROWS = TypeAdapter(list[Price])


class Prices:
    """The table; of several prefixes the longest wins."""

    def __init__(self, rows: Iterable[Price] = ()) -> None:
        self._by_prefix: dict[str, Price] = {}
        for row in rows:
            if self._by_prefix.setdefault(row.prefix, row) is not row:
                raise ValueError(f"prefix {row.prefix} is there twice; leave one")

    @classmethod
    def read(cls, path: Path) -> Self:
        """From CSV with the columns prefix, price and currency, or JSON: a list of objects with these keys.

        Raises ValueError, which names the row, from 0, and the field.
        """
        named = f"BELLWIRE_SMS_PRICES: {path}"
        try:
            text = path.read_text(encoding="utf-8-sig")
            return cls(_ROWS.validate_python(json.loads(text) if path.suffix.lower() == ".json" else _table(text)))
        except OSError as error:
            raise ValueError(f"{named}: cannot be read: {error.strerror or error}") from error
        except ValidationError as error:
            raise ValueError(f"{named}: {fields_in_error(error)}") from error
        except ValueError as error:
            raise ValueError(f"{named}: {error}") from error

    def of(self, number: str) -> Price | None:
        """What a segment to this number costs; None if no prefix of it is in the table."""
        prefixes = (number[:length] for length in range(len(number), 0, -1))
        return next((self._by_prefix[prefix] for prefix in prefixes if prefix in self._by_prefix), None)


def _table(text: str) -> list[dict[str, Any]]:
    reader = csv.DictReader(io.StringIO(text), restkey="more", skipinitialspace=True)
    if reader.fieldnames != _COLUMNS:
        raise ValueError(f"the first line must name the columns: {','.join(_COLUMNS)}")
    return list(reader)
