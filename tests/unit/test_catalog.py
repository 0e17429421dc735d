"""The catalog: which schemas it takes, what it says of data, and which new versions are compatible."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellwire import Event
from bellwire.catalog import Catalog, EventType, NewEventType
from bellwire.catalog.catalog import CheckedType
from bellwire.catalog.compatibility import incompatibilities
from bellwire.catalog.event_types import version_in
from bellwire.catalog.schema_checks import MAX_SCHEMA_BYTES, MAX_WORK
from bellwire.catalog.validating import SchemaValidator
from bellwire.errors import EventInvalid, SchemaInvalid, SubscriptionInvalid

ITEM = {"type": "object", "properties": {"price": {"type": "number"}, "none": {"additionalProperties": False}}}
ORDER: dict[str, Any] = {
    "type": "object",
    "required": ["order", "items"],
    "properties": {
        "order": {"type": "string", "pattern": "^[0-9]+$"},
        "items": {"type": "array", "items": ITEM},
        "state": {"enum": ["open", "paid"]},
    },
    "additionalProperties": False,
}


def event_type(*schemas: dict[str, Any] | None, **fields: Any) -> EventType:
    at = "2026-11-23T08:00:00Z"
    versions = [{"version": n, "schema": schema, "created_at": at} for n, schema in enumerate(schemas, 1)]
    values = {"type": "order.paid", "versions": versions, "created_at": at, "updated_at": at, **fields}
    return EventType.model_validate(values)


def order(data: Any, **fields: Any) -> Event:
    return Event(source="/shop", type="order.paid", data=data, **fields)


@pytest.mark.parametrize(
    ("data", "problems"),
    [
        (
            {"order": "1", "items": [{}, {}, {}, {"price": "9.50"}]},
            ['data.items[3].price: is not of type "number"'],
        ),
        ({"items": []}, ["data.order: is missing"]),
        ({"order": "1", "items": [], "odd name": 1}, ['data["odd name"]: is not a known property; leave it out']),
        ({"order": "x", "items": {}}, ["data.order: does not match", "data.items: is not of type"]),
        (
            {"order": "1", "items": [{"price": 1, "none": {"x": 1}}]},
            ["data.items[0].none: has properties that are not known"],
        ),
        ([], ['data: is not of type "object"']),
        (None, ['data: is not of type "object"']),
    ],
)
def test_problems_point_into_the_data(data: Any, problems: list[str]) -> None:
    with pytest.raises(EventInvalid) as refused:
        Catalog([event_type(ORDER)]).check(order(data))
    found = sorted(str(refused.value).split("; data"))
    assert len(found) == len(problems)
    for problem in problems:
        assert problem in str(refused.value)


def test_valid_data_passes_and_a_type_without_a_schema_takes_any() -> None:
    Catalog([event_type(ORDER)]).check(order({"order": "42", "items": [{"price": 9.5}]}))
    Catalog([event_type(None)]).check(order(["anything"]))


def test_problems_show_no_values() -> None:
    schema = {"properties": {name: {name: limit} for name, limit in (("minimum", 5), ("maxLength", 1), ("const", 3))}}
    with pytest.raises(EventInvalid) as refused:
        Catalog([event_type(schema)]).check(order({"minimum": -987, "maxLength": "secret", "const": "private"}))
    text = str(refused.value)
    assert "-987" not in text
    assert "secret" not in text
    assert "private" not in text


def test_unknown_types_are_allowed_or_refused() -> None:
    Catalog([]).check(order({}))
    with pytest.raises(EventInvalid, match=r"^type: order.paid is not in the catalog"):
        Catalog([], unknown_types="refuse").check(order({}))


def test_dataschema_names_the_version_to_check_against() -> None:
    catalog = Catalog([event_type(ORDER, {"type": "object", "required": ["total"]})])
    old = {"order": "42", "items": []}
    catalog.check(order(old, dataschema="https://events.example/v1/event-types/order.paid/versions/1"))
    with pytest.raises(EventInvalid, match=r"data\.total: is missing"):
        catalog.check(order(old))
    with pytest.raises(EventInvalid, match=r"dataschema: order\.paid has no version 7; the latest is 2"):
        catalog.check(order(old, dataschema="/v1/event-types/order.paid/versions/7"))
    assert version_in("https://schemas.example/order.json", "order.paid") is None
    assert version_in("/v1/event-types/other/versions/1", "order.paid") is None


def test_a_catalog_is_read_from_what_the_commands_and_the_api_write(tmp_path: Path) -> None:
    types = [event_type(ORDER).model_dump(mode="json", by_alias=True)]
    file = tmp_path / "types.json"
    for document in (types, {"items": types, "next": None}):
        file.write_text(json.dumps(document))
        with pytest.raises(EventInvalid, match=r"data\.order: is missing"):
            Catalog.read(file).check(order({"items": []}))
    with pytest.raises(SchemaInvalid, match="type: is missing"):
        Catalog.of([{}])


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (
            {"$ref": "https://example.com/schema.json"},
            "schema.$ref: refers to 'https://example.com/schema.json', outside",
        ),
        (
            {"properties": {"a": {"$ref": "file:///etc/passwd"}}},
            "schema.properties.a.$ref: refers to 'file:///etc/passwd'",
        ),
        ({"items": {"$ref": "other.json#/x"}}, "schema.items.$ref: refers to 'other.json#/x'"),
        ({"$ref": "#/hidden", "hidden": {"$ref": "https://example.com/"}}, "outside the schema"),
        ({"$ref": "#/hidden"}, "'/hidden' does not exist"),
        (
            {"$schema": "http://json-schema.org/draft-07/schema#"},
            "schema.$schema: must be https://json-schema.org/draft/2020",
        ),
        (
            {"properties": {"a": {"$id": "https://example.com/"}}},
            "schema.properties.a.$id: is supported at the top only",
        ),
        ({"$dynamicRef": "#x"}, "schema.$dynamicRef: is not supported"),
        ({"type": "strin"}, "schema.type: "),
        ({"properties": {"a": {"required": "b"}}}, "schema.properties.a.required: "),
        ({"pattern": "(?=a)b"}, "schema.pattern: is not a pattern that can be matched in linear time"),
        ({"pattern": "(a{1000}){1000}"}, "schema.pattern: "),
        ({"title": "a" * MAX_SCHEMA_BYTES}, "the limit is 65,536"),
        ({"$ref": "#"}, "refers to itself without end"),
        ({"a": float("nan")}, "has values that JSON does not have"),
    ],
)
def test_what_is_no_schema_of_its_own_is_refused(schema: dict[str, Any], message: str) -> None:
    with pytest.raises(SchemaInvalid) as refused:
        SchemaValidator(schema)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"$ref": {"type": "string"}}},
        {"const": {"$ref": "https://example.com/"}},
        {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "https://example.com/order"},
        {"$defs": {"n": {"$anchor": "n", "type": "string"}}, "$ref": "#n"},
        {
            "$defs": {"n": {"properties": {"left": {"$ref": "#/$defs/n"}, "right": {"$ref": "#/$defs/n"}}}},
            "$ref": "#/$defs/n",
        },
        {
            "$defs": {
                "any": {
                    "anyOf": [
                        {"type": "string"},
                        {"type": "array", "items": {"$ref": "#/$defs/any"}},
                        {"type": "object", "additionalProperties": {"$ref": "#/$defs/any"}},
                    ]
                }
            },
            "$ref": "#/$defs/any",
        },
    ],
)
def test_usual_schemas_are_taken(schema: dict[str, Any]) -> None:
    assert SchemaValidator(schema)


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"properties": {"a": schema}}
    return schema


def doubling(levels: int) -> dict[str, Any]:
    """Definitions that refer to the next one twice: 2 to the power of `levels` subschemas."""
    definitions = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(levels)}
    return {"$defs": {**definitions, f"d{levels}": {"type": "string"}}, "$ref": "#/$defs/d0"}


def doubling_with_the_data() -> dict[str, Any]:
    """A recursive schema that applies itself twice to each item."""
    again = {"items": {"$ref": "#/$defs/d"}}
    return {"$defs": {"d": {"allOf": [again, dict(again)]}}, "$ref": "#/$defs/d"}


@pytest.mark.parametrize("schema", [nested(200), nested(5_000), doubling(20), doubling(400), doubling_with_the_data()])
def test_schemas_that_are_endless_work_are_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(SchemaInvalid, match=r"nests deeper|subschemas to one value|chain of references"):
        SchemaValidator(schema)


def test_a_schema_below_the_limits_is_taken() -> None:
    assert MAX_WORK == 1_000
    assert not SchemaValidator(nested(45)).problems({})
    assert not SchemaValidator(doubling(6)).problems("text")


def test_a_pattern_that_backtracks_elsewhere_is_matched_in_linear_time() -> None:
    validator = SchemaValidator({"pattern": "^(a+)+$"})
    assert validator.problems("a" * 200_000 + "b")
    assert not validator.problems("a" * 200_000)


def test_data_that_is_too_much_work_for_its_schema_is_refused() -> None:
    validator = SchemaValidator({"items": {"allOf": [{"contains": {"const": number}} for number in range(300)]}})
    (problem,) = validator.problems([list(range(300))] * 200)
    assert str(problem).startswith("data: has more than 4,983 values, too many for its schema")
    assert not validator.problems([list(range(300))] * 10)
    # A usual schema takes every event.
    assert SchemaValidator({"items": {"type": "integer"}}).problems([1] * 200_000) == ()


def test_a_type_knows_which_validators_it_has_made() -> None:
    checked = CheckedType(event_type(None, ORDER))
    first, latest = order(1, dataschema="/event-types/order.paid/versions/1"), order(1)
    assert not checked.is_prepared(latest)
    assert checked.problems(latest)
    assert (checked.is_prepared(latest), checked.is_prepared(first)) == (True, False)
    assert checked.is_prepared(order(1, dataschema="/event-types/order.paid/versions/9"))


def test_of_large_data_only_the_first_problem_is_collected() -> None:
    validator = SchemaValidator({"items": {"allOf": [{"type": "string"}] * 10}})
    assert [str(problem) for problem in validator.problems([1] * 100_000)] == ['data[0]: is not of type "string"']
    assert len(validator.problems([1] * 5)) == 20
    several = SchemaValidator({"properties": {"known": {}}, "additionalProperties": False})
    assert len(several.problems({f"p{n}": n for n in range(500)})) == 20


def changed(**keywords: Any) -> dict[str, Any]:
    return {**ORDER, **keywords}


def with_property(name: str, schema: Any) -> dict[str, Any]:
    return changed(properties={**ORDER["properties"], name: schema})


@pytest.mark.parametrize(
    "new",
    [
        ORDER,
        with_property("note", {"type": "string"}),
        with_property("order", {"type": "string", "pattern": "^[0-9]+$", "title": "The order's number"}),
        changed(description="An order was paid.", examples=[{}], **{"$defs": {"unused": {}}}),
        {name: value for name, value in ORDER.items() if name != "additionalProperties"},
        dict(reversed(ORDER.items())),
    ],
)
def test_optional_properties_and_descriptions_are_compatible(new: dict[str, Any]) -> None:
    assert list(incompatibilities(ORDER, new)) == []


@pytest.mark.parametrize(
    ("new", "place"),
    [
        (changed(required=["order", "items", "state"]), "schema.properties.state"),
        (changed(required=["order"]), "schema.properties.items"),
        (changed(properties={"order": ORDER["properties"]["order"], "items": {}}), "schema.properties.state"),
        (with_property("order", {"type": "integer"}), "schema.properties.order.type"),
        (with_property("order", {"type": ["string", "null"], "pattern": "^[0-9]+$"}), "schema.properties.order.type"),
        (with_property("order", {"type": "string", "pattern": "^[0-9]{3}$"}), "schema.properties.order.pattern"),
        (with_property("state", {"enum": ["paid"]}), "schema.properties.state.enum"),
        (with_property("state", {"enum": ["open", "paid", "lost"]}), "schema.properties.state.enum"),
        (with_property("state", {}), "schema.properties.state.enum"),
        (changed(minProperties=3), "schema.minProperties"),
        (changed(anyOf=[{"required": ["state"]}]), "schema.anyOf"),
        (with_property("items", {"type": "array", "items": {"type": "string"}}), "schema.properties.items.items.type"),
        (None, "schema.type"),
    ],
)
def test_what_breaks_publishers_or_subscribers_is_named(new: dict[str, Any] | None, place: str) -> None:
    assert place in [where for where, _ in incompatibilities(ORDER, new)]


def test_closing_a_schema_is_incompatible_and_names_are_not_mistaken_for_descriptions() -> None:
    assert [place for place, _ in incompatibilities({}, {"additionalProperties": False})] == [
        "schema.additionalProperties"
    ]
    old = {"anyOf": [{"properties": {"title": {"type": "string"}}}]}
    assert list(incompatibilities(old, {"anyOf": [{"properties": {}}]}))
    assert not list(incompatibilities(old, {"anyOf": [{"title": "T", "properties": {"title": {"type": "string"}}}]}))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
schema_like = st.recursive(
    st.sampled_from([{}, True, False, {"type": "string"}, {"$ref": "#"}, {"$ref": "#/$defs/a"}, {"enum": [1]}]),
    lambda inner: st.dictionaries(
        st.sampled_from(["properties", "$defs", "items", "allOf", "not", "if", "required", "$ref", "type", "enum"]),
        inner | st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
        max_size=3,
    ),
    max_leaves=12,
)


@given(schema=st.dictionaries(st.text(max_size=5), json_values, max_size=3) | schema_like, data=json_values)
def test_any_json_is_either_a_schema_or_refused(schema: Any, data: Any) -> None:
    if not isinstance(schema, dict):
        return
    try:
        validator = SchemaValidator(schema)
    except SchemaInvalid:
        return
    for problem in validator.problems(data):
        assert problem.field.startswith("data")
    assert list(incompatibilities(schema, json.loads(json.dumps(schema)))) == []


@pytest.mark.parametrize("name", ["order.paid", "com.example.Order_Paid-2", "a", "x" * 256])
def test_names_of_types(name: str) -> None:
    assert NewEventType(type=name).type == name


@pytest.mark.parametrize("name", ["", ".a", "a.", "a..b", "a/b", "a b", "order.*", "x" * 257, "ä"])
def test_what_is_no_name_of_a_type(name: str) -> None:
    with pytest.raises(SubscriptionInvalid, match="type: must be dotted words"):
        NewEventType(type=name)
