"""Documentation: the catalog as one HTML page, which needs no other file."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bellwire.catalog.event_types import EventType
from bellwire.formats.durations import format_duration

#: Fields of one type that the page lists, and levels of nesting. The schema itself is shown whole.
MAX_FIELDS, MAX_LEVELS = 500, 8

_TEMPLATES = Path(__file__).parent / "templates"


class Field(NamedTuple):
    """A field of the data, as a line of a table."""

    #: Such as data.items[].price.
    name: str
    type: str
    required: bool
    description: str


def page(types: Sequence[EventType], *, title: str) -> str:
    """The page. Texts of the catalog are escaped; it runs no script of theirs and loads nothing."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["pretty"] = lambda value: json.dumps(value, indent=2, ensure_ascii=False)
    environment.filters["duration"] = format_duration
    entries = [{"type": each, "fields": list(fields_of(each.latest.schema_ or {}))} for each in types]
    return environment.get_template("catalog.html").render(title=title, entries=entries)


def fields_of(schema: dict[str, Any]) -> Iterator[Field]:
    """The fields that a schema describes, in its order; recursive ones down to where they repeat."""
    left = MAX_FIELDS

    def walk(found: Any, place: str, within: tuple[int, ...]) -> Iterator[Field]:
        nonlocal left
        found = _resolved(schema, found)
        if not isinstance(found, dict) or id(found) in within or len(within) > MAX_LEVELS:
            return
        within = (*within, id(found))
        required = found.get("required", ())
        for name, value in _properties(found):
            if left <= 0:
                return
            left -= 1
            field = _resolved(schema, value)
            field = field if isinstance(field, dict) else {}
            yield Field(f"{place}.{name}", _type_of(field), name in required, str(field.get("description", "")))
            yield from walk(field, f"{place}.{name}", within)
        if "items" in found:
            yield from walk(found["items"], f"{place}[]", within)

    yield from walk(schema, "data", ())


def _properties(schema: dict[str, Any]) -> list[tuple[str, Any]]:
    found = schema.get("properties")
    return list(found.items()) if isinstance(found, dict) else []


def _resolved(root: dict[str, Any], schema: Any) -> Any:
    """What a schema that only refers to a definition stands for."""
    for _ in range(MAX_LEVELS):
        reference = schema.get("$ref") if isinstance(schema, dict) else None
        if not isinstance(reference, str) or not reference.startswith("#/$defs/"):
            return schema
        schema = root.get("$defs", {}).get(reference.removeprefix("#/$defs/"))
    return schema


def _type_of(schema: dict[str, Any]) -> str:
    if "const" in schema:
        return json.dumps(schema["const"], ensure_ascii=False)
    if isinstance(schema.get("enum"), list):
        return " | ".join(json.dumps(value, ensure_ascii=False) for value in schema["enum"][:20])
    kind = schema.get("type", "any")
    text = " | ".join(kind) if isinstance(kind, list) else str(kind)
    return f"{text} ({schema['format']})" if isinstance(schema.get("format"), str) else text
