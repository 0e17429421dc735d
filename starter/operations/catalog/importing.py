"""Importing: event types from an AsyncAPI document, or from the webhooks of an OpenAPI 3.1 document."""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from bellwire.catalog.event_types import NewEventType
from bellwire.formats.json_values import json_value
from starter.operations.catalog.event_types import read_event_types
from starter.operations.catalog.references import Bundler, resolved
from starter.operations.documents import Item, parse_json
from starter.operations.problems import InputInvalid

#: Bytes of a document.
MAX_DOCUMENT = 10 * 1024 * 1024

_METHODS = ("post", "put", "patch", "get", "delete")


def import_event_types(text: str, name: str) -> list[NewEventType]:
    """The event types of a document, JSON or YAML. `name` is the document's, for messages.

    Raises InputInvalid with the problems of every message or webhook that is no event type.
    """
    document = _parsed(text, name)
    if "asyncapi" in document:
        found = list(_of_asyncapi(document))
    elif str(document.get("openapi", "")).startswith("3."):
        found = list(_of_openapi(document))
    else:
        raise InputInvalid(
            "is neither an AsyncAPI nor an OpenAPI 3.1 document",
            field=name,
            remedy="give a document with `asyncapi` or `openapi` at its top",
        )
    if not found:
        raise InputInvalid("has no messages or webhooks", field=name)
    distinct: dict[str, Item] = {}
    for item in found:
        # A message that several channels carry is one type.
        if distinct.setdefault(_key(item), item).value != item.value:
            raise InputInvalid(f"{_key(item)[:80]} is defined twice, and not alike", field=item.place)
    return read_event_types(distinct.values())


def _key(item: Item) -> str:
    return str(item.value["type"]) if isinstance(item.value, dict) else item.place


def _parsed(text: str, name: str) -> dict[str, Any]:
    if len(text) > MAX_DOCUMENT:
        raise InputInvalid(f"has {len(text):,} characters, the limit is {MAX_DOCUMENT:,}", field=name)
    try:
        document = parse_json(text) if text.lstrip().startswith("{") else yaml.safe_load(text)
        # Aliases can make a short document endless; this counts values.
        document = json_value(document)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        reason = str(error).splitlines()[0] if str(error) else "nests too deep"
        raise InputInvalid(f"is not valid JSON or YAML: {reason}", field=name) from error
    if not isinstance(document, dict):
        raise InputInvalid("is not an object", field=name)
    return document


def _of_openapi(document: dict[str, Any]) -> Iterator[Item]:
    for name, value in _mapping(document.get("webhooks")).items():
        path = _mapping(resolved(document, value))
        operation = _mapping(next((path[method] for method in _METHODS if method in path), None))
        content = _mapping(_mapping(resolved(document, operation.get("requestBody"))).get("content"))
        media = _mapping(next((each for kind, each in content.items() if "json" in kind), None))
        examples = [media["example"]] if "example" in media else []
        examples += [
            example["value"]
            for each in _mapping(media.get("examples")).values()
            if "value" in (example := _mapping(resolved(document, each)))
        ]
        yield _item(
            document,
            f"webhooks.{name}",
            operation.get("x-event-type") or name,
            media.get("schema"),
            examples,
            description=operation.get("description") or operation.get("summary"),
            deprecated=operation.get("deprecated"),
        )


def _of_asyncapi(document: dict[str, Any]) -> Iterator[Item]:
    for place, key, value in _messages(document):
        message = _mapping(resolved(document, value))
        payload, form = message.get("payload"), str(message.get("schemaFormat", ""))
        if "schemaFormat" in (typed := _mapping(payload)):  # AsyncAPI 3
            payload, form = typed.get("schema"), str(typed["schemaFormat"])
        if form and "asyncapi" not in form and "schema+json" not in form and "schema+yaml" not in form:
            raise InputInvalid(f"has a payload in {form[:80]}", field=place, remedy="use JSON Schema")
        examples = [each["payload"] for each in message.get("examples") or () if "payload" in _mapping(each)]
        yield _item(
            document,
            place,
            message.get("x-event-type") or message.get("name") or key,
            payload,
            examples,
            description=message.get("description") or message.get("summary"),
            deprecated=message.get("deprecated") or message.get("x-deprecated"),
        )


def _messages(document: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """The messages of the channels of AsyncAPI 2 and 3, or else those of the components, with their places and keys."""
    found = False
    for name, value in _mapping(document.get("channels")).items():
        channel = _mapping(resolved(document, value))
        for key, message in _mapping(channel.get("messages")).items():
            found = True
            yield f"channels.{name}.messages.{key}", key, message
        for verb in ("publish", "subscribe"):
            message = _mapping(channel.get(verb)).get("message")
            for number, each in enumerate(_mapping(message).get("oneOf") or ([message] if message else [])):
                found = True
                yield f"channels.{name}.{verb}.message[{number}]", _last(each) or name, each
    if not found:
        for key, message in _mapping(_mapping(document.get("components")).get("messages")).items():
            yield f"components.messages.{key}", key, message


def _item(
    document: dict[str, Any],
    place: str,
    name: object,
    schema: Any,
    examples: list[Any],
    *,
    description: object,
    deprecated: object,
) -> Item:
    fields: dict[str, Any] = {"type": name}
    if schema is not None:
        bundled = Bundler(document).bundled(schema)
        if (envelope := _data_of_cloud_event(bundled)) is not None:
            named = _mapping(bundled["properties"]["type"])
            fields["type"] = named.get("const") or next(iter(named.get("enum") or ()), name)
            bundled = envelope
            examples = [each["data"] for each in examples if "data" in _mapping(each)]
        fields |= {"schema": bundled, "examples": examples}
    if description:
        fields["description"] = description
    if deprecated:
        fields["deprecated"] = deprecated if isinstance(deprecated, str) else "deprecated by its owner"
    return Item(place, fields)


def _data_of_cloud_event(schema: Any) -> dict[str, Any] | None:
    """The schema of `data`, if a schema describes a whole CloudEvent; otherwise None."""
    properties = _mapping(_mapping(schema).get("properties"))
    if not {"specversion", "type", "data"} <= properties.keys() or not isinstance(properties["data"], dict):
        return None
    definitions = {"$defs": schema["$defs"]} if "$defs" in schema else {}
    return {**properties["data"], **definitions}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _last(value: Any) -> str:
    """The last name of a reference."""
    return str(_mapping(value).get("$ref", "")).rpartition("/")[2]
