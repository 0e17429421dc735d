"""Compatibility: whether a version of a schema suits those who publish and subscribe by the version before.

What was valid stays valid, or publishers would be refused. What was promised stays promised, or subscribers would fail. So a new
version may add optional properties and definitions, and change descriptions; subscribers ignore properties that they do not know.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bellwire.catalog.places import in_schema
from bellwire.catalog.schema_checks import NAMED

#: Keywords that say nothing about what is valid.
_ANNOTATIONS = {
    *("$schema", "$id", "$comment", "title", "description", "default", "examples", "example", "deprecated"),
    *("readOnly", "writeOnly", "format", "contentEncoding", "contentMediaType", "contentSchema"),
}
#: Keywords whose subschemas are compared by these rules; all others must stay as they are.
_COMPARED_ONE = {"items", "additionalProperties"}
_COMPARED_LISTS = {"prefixItems", "allOf"}
_COMPARED_NAMED = {"properties", "patternProperties", "$defs", "definitions"}
_SETS = {"required", "type", "enum"}
#: Where `false` forbids properties that the schema does not name.
_OPENNESS = {"additionalProperties", "unevaluatedProperties"}


def incompatibilities(old: Any, new: Any, place: str = "schema") -> Iterator[tuple[str, str]]:
    """What a new schema breaks, as places and messages. None stands for no schema, by which anything is valid."""
    old, new = _object(old), _object(new)
    if old is None or new is None:
        if old != new:
            yield place, "allows or forbids all values, unlike the version before"
        return
    yield from _sets(old, new, place)
    for keyword in sorted((old.keys() | new.keys()) - _ANNOTATIONS - _SETS):
        yield from _keyword(keyword, old.get(keyword), new.get(keyword), in_schema(place, keyword, None))


def _object(schema: Any) -> dict[str, Any] | None:
    """A schema as an object; None for `false`, which is like nothing else."""
    return {} if schema is True or schema is None else schema if isinstance(schema, dict) else None


def _sets(old: Mapping[str, Any], new: Mapping[str, Any], place: str) -> Iterator[tuple[str, str]]:
    required = set(old.get("required", ())), set(new.get("required", ()))
    for name in sorted(required[1] - required[0]):
        yield in_schema(place, "properties", name), "is required, which it was not: events without it would be refused"
    for name in sorted(required[0] - required[1]):
        yield in_schema(place, "properties", name), "is no longer required: subscribers rely on it"
    if _types(old) != _types(new):
        yield f"{place}.type", f"is {_named(_types(new))}, and was {_named(_types(old))}"
    if ("enum" in old) != ("enum" in new):
        yield f"{place}.enum", "is new" if "enum" in new else "is gone: subscribers know only the values it had"
    elif isinstance(old.get("enum"), list) and isinstance(new.get("enum"), list):
        was, now = _values(old["enum"]), _values(new["enum"])
        for value in (value for value in was if value not in now):
            yield f"{place}.enum", f"no longer has {value[:40]}: events with it would be refused"
        for value in (value for value in now if value not in was):
            yield f"{place}.enum", f"also has {value[:40]}, which subscribers do not know"


def _values(values: Iterable[Any]) -> dict[str, None]:
    """Values as JSON, in order, to be compared."""
    return dict.fromkeys(json.dumps(value, sort_keys=True, ensure_ascii=False) for value in values)


def _types(schema: Mapping[str, Any]) -> set[str]:
    found = schema.get("type", ())
    return {found} if isinstance(found, str) else set(found)


def _named(types: set[str]) -> str:
    return " or ".join(sorted(types)) or "any"


def _keyword(keyword: str, old: Any, new: Any, place: str) -> Iterator[tuple[str, str]]:
    if keyword in _COMPARED_NAMED:
        yield from _named_schemas(keyword, old or {}, new or {}, place)
    elif keyword in _OPENNESS and old is False:
        return
    elif keyword in _COMPARED_ONE and old is not None and new is not None:
        yield from incompatibilities(old, new, place)
    elif keyword in _COMPARED_LISTS and old and new and len(old) == len(new):
        for number, (was, now) in enumerate(zip(old, new, strict=True)):
            yield from incompatibilities(was, now, f"{place}[{number}]")
    elif _essence(keyword, old) != _essence(keyword, new):
        yield place, "is new" if old is None else "is gone" if new is None else "has changed"


def _named_schemas(
    keyword: str, old: Mapping[str, Any], new: Mapping[str, Any], place: str
) -> Iterator[tuple[str, str]]:
    for name, schema in old.items():
        if name in new:
            yield from incompatibilities(schema, new[name], in_schema(place, name, None))
        elif keyword in {"properties", "patternProperties"}:
            yield in_schema(place, name, None), "is gone: subscribers rely on it"
    if keyword == "patternProperties":
        yield from ((in_schema(place, name, None), "is new") for name in new.keys() - old.keys())


def _essence(keyword: str, value: Any) -> Any:
    """The value of a keyword without annotations, to be compared."""
    if keyword in {"const", "enum"}:
        return _values([value])
    if isinstance(value, dict):
        named = keyword in NAMED
        return {
            name: _essence("" if named else name, each)
            for name, each in value.items()
            if named or name not in _ANNOTATIONS
        }
    return [_essence("", each) for each in value] if isinstance(value, list) else value
