"""Schema checks: a schema that is stored is JSON Schema 2020-12, refers to nothing outside itself, and is cheap to apply.

A schema may be far more work than its size suggests: definitions that refer to the next one twice double the work with each, and
a recursive one does so with each level of the data. So the work is calculated before the schema is ever applied.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote

from bellwire.catalog.places import in_schema

DIALECT = "https://json-schema.org/draft/2020-12/schema"
#: Bytes of a schema as JSON.
MAX_SCHEMA_BYTES = 64 * 1024
#: Levels of objects and lists in a schema.
MAX_DEPTH = 100
#: Subschemas that are applied along any one path into the data.
MAX_WORK = 1_000
#: Levels of data for which the work is calculated. Data nests no deeper than 100.
_LEVELS = 64

#: Keywords with subschemas, by what they hold: one schema, a list, or schemas by name.
_ONE = {
    *("not", "if", "then", "else", "items", "contains", "unevaluatedItems"),
    *("additionalProperties", "unevaluatedProperties", "propertyNames", "contentSchema"),
}
_LISTS = {"allOf", "anyOf", "oneOf", "prefixItems"}
NAMED = {"properties", "patternProperties", "dependentSchemas", "$defs", "definitions"}
#: Of these, what applies to the same value as the schema that holds it.
_SAME_VALUE = {"allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas"}
_NOT_SUPPORTED = {"$dynamicRef", "$recursiveRef", "$dynamicAnchor", "$recursiveAnchor", "$vocabulary"}


class Subschema(NamedTuple):
    keyword: str
    #: The name or number within the keyword; None if it holds one schema.
    key: str | int | None
    schema: Any


def subschemas(schema: Mapping[str, Any]) -> Iterator[Subschema]:
    """The schemas that a schema holds directly."""
    for keyword, value in schema.items():
        if keyword in _ONE:
            yield Subschema(keyword, None, value)
        elif keyword in _LISTS and isinstance(value, list):
            yield from (Subschema(keyword, number, each) for number, each in enumerate(value))
        elif keyword in NAMED and isinstance(value, dict):
            yield from (Subschema(keyword, name, each) for name, each in value.items())


class SchemaCheck(NamedTuple):
    """What is known of a schema before it is applied."""

    #: Why it is refused, as places and messages, apart from what the meta-schema says.
    problems: tuple[tuple[str, str], ...]
    #: Subschemas that it applies along any one path into the data, at most.
    work: int = 0


def check_schema(schema: Mapping[str, Any]) -> SchemaCheck:
    """Whether a schema is refused, and how much work it is."""
    if not _fits(schema, MAX_DEPTH):
        return _refused(f"nests deeper than {MAX_DEPTH} levels; move parts into $defs")
    try:
        size = len(json.dumps(schema, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode())
    except (TypeError, ValueError):
        return _refused("has values that JSON does not have")
    if size > MAX_SCHEMA_BYTES:
        return _refused(f"has {size:,} bytes of JSON, the limit is {MAX_SCHEMA_BYTES:,}")
    survey = _Survey(schema)
    if problems := tuple(survey.problems()):
        return SchemaCheck(problems)
    try:
        work = survey.work()
    except _EndlessReference as error:
        message = "refers to itself without end; only a property or an item may have the schema that holds it"
        return SchemaCheck(((str(error), message),))
    except RecursionError:
        return _refused("has too long a chain of references; make it simpler")
    if work > MAX_WORK:
        return _refused(f"applies more than {MAX_WORK:,} subschemas to one value; make it simpler")
    return SchemaCheck((), work)


def _refused(message: str) -> SchemaCheck:
    return SchemaCheck((("schema", message),))


def _fits(value: object, levels: int) -> bool:
    """Whether a value nests no deeper than this."""
    layer: list[object] = [value]
    for _ in range(levels + 1):
        layer = [
            item
            for each in layer
            if isinstance(each, dict | list)
            for item in (each.values() if isinstance(each, dict) else each)
        ]
        if not layer:
            return True
    return False


class _Work(NamedTuple):
    """How many subschemas apply to a value itself, and to one item or property of it and what that holds."""

    own: int
    items: int
    properties: int

    @property
    def total(self) -> int:
        return min(self.own + max(self.items, self.properties), MAX_WORK + 1)


class _Parts(NamedTuple):
    """The subschemas of a schema, by what they apply to."""

    #: To the same value.
    same: Sequence[Any]
    #: To an item or a property: of the first, one applies at most; of the second, all do.
    items: tuple[Sequence[int], Sequence[int]]
    properties: tuple[Sequence[int], Sequence[int]]


class _EndlessReference(Exception):
    """A schema applies itself to the same value."""


class _Survey:
    """All subschemas of a schema, those that only references reach included."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._places: dict[int, tuple[str, Mapping[str, Any]]] = {}
        self._anchors: dict[str, Mapping[str, Any]] = {}
        waiting: list[tuple[str, Any]] = [("schema", root)]
        while waiting:
            place, schema = waiting.pop()
            if not isinstance(schema, dict) or id(schema) in self._places:
                continue
            self._places[id(schema)] = place, schema
            if isinstance(anchor := schema.get("$anchor"), str):
                self._anchors[anchor] = schema
            waiting += [(in_schema(place, each.keyword, each.key), each.schema) for each in subschemas(schema)]
            target = self._pointed(schema.get("$ref"))
            waiting.append((f"schema at {str(schema.get('$ref'))[:80]}", target))

    def problems(self) -> Iterator[tuple[str, str]]:
        for place, schema in self._places.values():
            nested = schema is not self._root
            reference = schema.get("$ref")
            if isinstance(reference, str) and not reference.startswith("#"):
                yield f"{place}.$ref", f"refers to {reference[:80]!r}, outside the schema; copy it into $defs"
            for keyword in sorted(_NOT_SUPPORTED & schema.keys()):
                yield f"{place}.{keyword}", "is not supported; use $ref to $defs"
            if nested and "$id" in schema:
                yield f"{place}.$id", "is supported at the top only; refer to #/$defs/… instead"
            if "$schema" in schema and (nested or str(schema["$schema"]).rstrip("#") != DIALECT):
                yield f"{place}.$schema", f"must be {DIALECT}, at the top, or be left out"

    def work(self) -> int:
        """How many subschemas apply along any one path into the data. Raises _EndlessReference, RecursionError."""
        totals: dict[int, int] = {}
        # Once, since the work is calculated for each level of the data.
        self._parts = {key: self._parts_of(schema) for key, (_, schema) in self._places.items()}
        for _ in range(_LEVELS):
            found: dict[int, _Work] = {}
            for _place, schema in self._places.values():
                self._work(schema, totals, found, set())
            now = {key: work.total for key, work in found.items()}
            if now == totals or now[id(self._root)] > MAX_WORK:
                return now[id(self._root)]
            totals = now
        return totals[id(self._root)]

    def _work(self, schema: Any, below: Mapping[int, int], found: dict[int, _Work], within: set[int]) -> _Work:
        if not isinstance(schema, dict):
            return _Work(1, 0, 0)
        if (known := found.get(id(schema))) is not None:
            return known
        if id(schema) in within:
            raise _EndlessReference(self._places[id(schema)][0])
        within.add(id(schema))
        parts = self._parts[id(schema)]
        works = [self._work(each, below, found, within) for each in parts.same]
        own, items, properties = (sum(numbers) for numbers in zip(*works, strict=True)) if works else (0, 0, 0)
        within.discard(id(schema))
        items += _at_most(parts.items, below)
        properties += _at_most(parts.properties, below)
        limit = MAX_WORK + 1
        work = _Work(min(own + 1, limit), min(items, limit), min(properties, limit))
        found[id(schema)] = work
        return work

    def _parts_of(self, schema: Mapping[str, Any]) -> _Parts:
        held = list(subschemas(schema))

        def of(*keywords: str) -> list[int]:
            return [id(each.schema) for each in held if each.keyword in keywords]

        same = [each.schema for each in held if each.keyword in _SAME_VALUE]
        if isinstance(reference := schema.get("$ref"), str):
            same.append(self._target(reference))
        return _Parts(
            same,
            (of("items", "prefixItems"), of("contains", "unevaluatedItems")),
            (
                of("properties", "additionalProperties"),
                of("patternProperties", "unevaluatedProperties", "propertyNames"),
            ),
        )

    def _target(self, reference: str) -> Any:
        found = self._pointed(reference)
        return self._anchors.get(reference[1:]) if found is None else found

    def _pointed(self, reference: object) -> Any:
        """What a JSON pointer within the schema names; None if nothing."""
        if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
            return None
        found: Any = self._root
        for part in unquote(reference[1:]).split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            if isinstance(found, dict):
                found = found.get(name)
            elif isinstance(found, list) and name.isascii() and name.isdigit() and int(name[:9]) < len(found):
                found = found[int(name[:9])]
            else:
                return None
        return found


def _at_most(parts: tuple[Sequence[int], Sequence[int]], below: Mapping[int, int]) -> int:
    """The work that an item or property is, at most."""
    one, all_ = parts
    return max([below.get(key, 1) for key in one], default=0) + sum(below.get(key, 1) for key in all_)
