"""Prices: the operator's table of SMS prices by number prefix, for estimates of costs."""

import csv
import io
import json
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, TypeAdapter

from activities.providers.config_files import read_config
from bellwire.models import StrictInput

_COLUMNS = ["prefix", "price", "currency"]


class Price(StrictInput):
    """A row of the table."""

    #: + and the first digits of a number. + alone applies to all numbers without a longer prefix.
    prefix: Annotated[str, Field(pattern=r"^\+[0-9]{0,15}$")]
    #: The price of one segment.
    price: Annotated[Decimal, Field(ge=0, allow_inf_nan=False)]
    #: ISO 4217: EUR.
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")]


_ROWS = TypeAdapter(list[Price])


class Prices:
    """Finds prices by the longest prefix of a number."""

    def __init__(self, rows: Iterable[Price] = ()) -> None:
        self._by_prefix: dict[str, Price] = {}
        for row in rows:
            if self._by_prefix.setdefault(row.prefix, row) is not row:
                raise ValueError(f"prefix {row.prefix} is given twice; remove one")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a CSV file with the columns prefix, price and currency, or a JSON list of objects with these keys.

        Raises ValueError, which names the row, counted from 0, and the field.
        """
        rows = json.loads if path.suffix.lower() == ".json" else _parse_csv
        return read_config("BELLWIRE_SMS_PRICES", path, lambda text: cls(_ROWS.validate_python(rows(text))))

    def of(self, number: str) -> Price | None:
        """The price of a segment to this number; None if the table has no prefix of it."""
        prefixes = (number[:length] for length in range(len(number), 0, -1))
        return next((self._by_prefix[prefix] for prefix in prefixes if prefix in self._by_prefix), None)


def _parse_csv(text: str) -> list[dict[str, Any]]:
    reader = csv.DictReader(io.StringIO(text), restkey="more", skipinitialspace=True)
    if reader.fieldnames != _COLUMNS:
        raise ValueError(f"the first line must name the columns: {','.join(_COLUMNS)}")
    return list(reader)
