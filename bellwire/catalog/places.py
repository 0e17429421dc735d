"""Places: positions in data and in schemas as text, such as `data.items[3].price`."""

import json
import re
from collections.abc import Iterable

#: Characters of a name that a place shows.
MAX_NAME = 80

_PLAIN = re.compile(r"[A-Za-z_$][A-Za-z0-9_$-]*")


def in_data(path: Iterable[str | int], *, root: str = "data") -> str:
    """The position of a value: `data.items[3].price`, `data["odd name"]`."""
    return root + "".join(_part(part) for part in path)


def in_schema(place: str, keyword: str, key: str | int | None) -> str:
    """The position of a subschema of the schema at `place`."""
    return in_data((keyword,) if key is None else (keyword, key), root=place)


def _part(part: str | int) -> str:
    if isinstance(part, int):
        return f"[{part}]"
    name = part[:MAX_NAME]
    return f".{name}" if _PLAIN.fullmatch(name) else f"[{json.dumps(name, ensure_ascii=False)}]"
