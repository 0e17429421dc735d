"""Importing, linting and documenting event types."""

import json
from html.parser import HTMLParser
from typing import Any

import pytest

from bellwire.catalog import EventType, NewEventType
from starter.operations.catalog.documentation import fields_of, page
from starter.operations.catalog.importing import import_event_types
from starter.operations.catalog.linting import lint, lint_items
from starter.operations.documents import Item
from starter.operations.problems import InputInvalid

OPENAPI = """
openapi: 3.1.0
info: {title: Shop, version: "1"}
webhooks:
  order.paid:
    post:
      summary: An order was paid.
      requestBody: {$ref: "#/components/requestBodies/Order"}
  order.lost:
    post:
      deprecated: true
      requestBody:
        content:
          application/json:
            schema: {type: object, properties: {order: {$ref: "#/components/schemas/Number"}}}
            examples:
              first: {value: {order: "42"}}
              second: {$ref: "#/components/examples/Second"}
components:
  examples: {Second: {value: {order: "43"}}}
  requestBodies:
    Order:
      content:
        application/json; charset=utf-8:
          schema: {$ref: "#/components/schemas/Order"}
          example: {order: "42", parts: [{order: "43"}]}
  schemas:
    Number: {type: string, const: "$ref"}
    Order:
      type: object
      properties:
        order: {type: string}
        parts: {type: array, items: {$ref: "#/components/schemas/Order"}}
"""

ASYNCAPI_3 = {
    "asyncapi": "3.0.0",
    "info": {"title": "Shop", "version": "1"},
    "channels": {
        "orders": {
            "messages": {
                "paid": {"$ref": "#/components/messages/OrderPaid"},
                "lost": {"name": "order.lost", "payload": {"schemaFormat": "application/schema+json", "schema": {}}},
            }
        },
        "copies": {"messages": {"again": {"$ref": "#/components/messages/OrderPaid"}}},
    },
    "components": {
        "messages": {
            "OrderPaid": {
                "name": "order.paid",
                "summary": "An order was paid.",
                "payload": {"type": "object", "properties": {"at": {"$ref": "#/components/schemas/Time"}}},
                "examples": [{"name": "one", "payload": {"at": "now"}}],
            }
        },
        "schemas": {"Time": {"type": "string"}},
    },
}

ASYNCAPI_2 = {
    "asyncapi": "2.6.0",
    "channels": {
        "orders": {
            "subscribe": {
                "message": {
                    "oneOf": [
                        {"$ref": "#/components/messages/order.paid"},
                        {"$ref": "#/components/messages/order.lost"},
                    ]
                }
            }
        }
    },
    "components": {"messages": {"order.paid": {"payload": {"type": "object"}}, "order.lost": {"description": "Lost."}}},
}


def imported(document: Any) -> dict[str, NewEventType]:
    text = document if isinstance(document, str) else json.dumps(document)
    return {each.type: each for each in import_event_types(text, "file")}


def test_webhooks_of_openapi_become_types_with_schemas_of_their_own() -> None:
    found = imported(OPENAPI.replace(', const: "$ref"', ""))
    paid, lost = found["order.paid"], found["order.lost"]
    assert paid.description == "An order was paid."
    assert paid.examples == ({"order": "42", "parts": [{"order": "43"}]},)
    assert paid.schema_ is not None
    assert paid.schema_["properties"]["parts"]["items"] == {"$ref": "#/$defs/Order"}
    assert paid.schema_["$defs"]["Order"]["properties"]["parts"]["items"] == {"$ref": "#/$defs/Order"}
    assert lost.schema_ == {
        "type": "object",
        "properties": {"order": {"$ref": "#/$defs/Number"}},
        "$defs": {"Number": {"type": "string"}},
    }
    assert (lost.examples, lost.deprecated) == (({"order": "42"}, {"order": "43"}), "deprecated by its owner")


def test_messages_of_asyncapi_3_become_types_once() -> None:
    found = imported(ASYNCAPI_3)
    assert sorted(found) == ["order.lost", "order.paid"]
    paid = found["order.paid"]
    assert (paid.description, paid.examples) == ("An order was paid.", ({"at": "now"},))
    assert paid.schema_ == {
        "type": "object",
        "properties": {"at": {"$ref": "#/$defs/Time"}},
        "$defs": {"Time": {"type": "string"}},
    }
    assert found["order.lost"].schema_ == {}


def test_messages_of_asyncapi_2_are_named_by_their_references() -> None:
    found = imported(ASYNCAPI_2)
    assert found["order.paid"].schema_ == {"type": "object"}
    assert (found["order.lost"].schema_, found["order.lost"].description) == (None, "Lost.")


def test_of_a_whole_cloud_event_the_schema_of_data_is_taken() -> None:
    properties = {
        "specversion": {"const": "1.0"},
        "type": {"const": "order.paid"},
        "data": {"type": "object", "properties": {"order": {"type": "string"}}},
    }
    media = {"schema": {"type": "object", "properties": properties}, "example": {"data": {"order": "42"}}}
    operation = {"requestBody": {"content": {"application/cloudevents+json": media}}}
    found = imported({"openapi": "3.1.0", "webhooks": {"paid": {"post": operation}}})
    assert found["order.paid"].schema_ == properties["data"]
    assert found["order.paid"].examples == ({"order": "42"},)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{}", "file: is neither an AsyncAPI nor an OpenAPI 3.1 document"),
        ("a: [", "file: is not valid JSON or YAML"),
        ("[1]", "file: is not an object"),
        ({"openapi": "3.1.0", "paths": {}}, "file: has no messages or webhooks"),
        ({"openapi": "3.1.0", "webhooks": {"a b": {"post": {}}}}, "webhooks.a b: type: must be dotted words"),
        (
            {"asyncapi": "3.0.0", "components": {"messages": {"a": {"payload": {"$ref": "other.yaml#/x"}}}}},
            "'other.yaml#/x' is outside the document; bundle the document first",
        ),
        (
            {"asyncapi": "3.0.0", "components": {"messages": {"a": {"payload": {"$ref": "#/nothing"}}}}},
            "'#/nothing' does not exist in the document",
        ),
        (
            {"asyncapi": "3.0.0", "components": {"messages": {"a": {"$ref": "#/components/messages/a"}}}},
            "refers to itself without end",
        ),
        (
            {
                "asyncapi": "2.6.0",
                "components": {"messages": {"a": {"payload": {}, "schemaFormat": "application/vnd.apache.avro+json"}}},
            },
            "has a payload in application/vnd.apache.avro+json; use JSON Schema",
        ),
        ("a: &a [1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n" * 1, "is neither"),
    ],
)
def test_what_cannot_be_imported_is_refused(document: Any, message: str) -> None:
    with pytest.raises(InputInvalid) as refused:
        imported(document)
    assert message in str(refused.value)


def test_aliases_that_make_a_short_document_endless_are_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    with pytest.raises(InputInvalid, match="more than 1,000,000 values"):
        imported("\n".join(["asyncapi: 3.0.0", *lines]))


def test_lint_finds_errors_and_gives_advice() -> None:
    good = NewEventType.model_validate(
        {
            "type": "order.paid",
            "description": "An order was paid.",
            "owner": "shop",
            "schema": {"type": "object", "properties": {"order": {"type": "string", "description": "Its number"}}},
            "examples": [{"order": "42"}],
        }
    )
    assert list(lint(good)) == []
    poor = [
        (one.field, one.is_error)
        for one in lint(NewEventType.model_validate({"type": "Order", "schema": {"type": "string"}}))
    ]
    assert poor == [
        ("type", False),
        ("description", False),
        ("owner", False),
        ("examples", False),
        ("schema.type", False),
    ]
    bad = {"type": "order.paid", "schema": {"type": "object", "$ref": "https://x.example/"}, "examples": [1]}
    errors = [one for one in lint_items([Item("line 1", bad), Item("line 2", {"typ": "x"})]) if one.is_error]
    assert [(one.type, one.field) for one in errors] == [
        ("order.paid", "schema.$ref"),
        ("line 2", "type"),
        ("line 2", "typ"),
    ]


class Text(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_has_every_type_escaped_and_loads_nothing() -> None:
    hostile = "<script>alert(1)</script>"
    at = "2026-11-23T08:00:00Z"
    schema = {
        "type": "object",
        "required": ["order"],
        "properties": {"order": {"type": "string", "description": hostile}},
    }
    types = [
        EventType.model_validate(
            {
                "type": name,
                "description": hostile,
                "owner": "shop",
                "deprecated": "use order.settled",
                "retry_schedule": [5, 300],
                "versions": [
                    {"version": 1, "schema": None, "created_at": at},
                    {"version": 2, "schema": schema, "examples": [{"order": "</pre>"}], "created_at": at},
                ],
                "created_at": at,
                "updated_at": at,
            }
        )
        for name in ("order.paid", "order.lost")
    ]
    source = page(types, title="Events of <Shop>")
    found = Text(source)
    assert hostile not in source
    assert [attributes["id"] for tag, attributes in found.tags if tag == "section"] == ["order.paid", "order.lost"]
    assert [tag for tag, _ in found.tags].count("script") == 1
    loaded = [value for _, attributes in found.tags for name, value in attributes.items() if name in {"src", "href"}]
    assert all(value and value.startswith("#") for value in loaded)
    for text in ("Events of <Shop>", "data.order", "required", "Version 2", "5s, 5m", "use order.settled", "</pre>"):
        assert text in found.text
    assert "The catalog has no event types." in page([], title="Events")


def test_fields_of_recursive_schemas_end() -> None:
    schema = {
        "$ref": "#/$defs/node",
        "$defs": {"node": {"properties": {"name": {"enum": ["a", 1]}, "next": {"items": {"$ref": "#/$defs/node"}}}}},
    }
    assert [(field.name, field.type) for field in fields_of(schema)] == [
        ("data.name", '"a" | 1'),
        ("data.next", "any"),
    ]
