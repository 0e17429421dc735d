"""The page of the HTTP API, from its OpenAPI document."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from bellwire.client import Client
from bellwire.registry import Registry
from bellwire.registry.db.engine import Database
from bellwire.service.settings import Settings
from docs.generator import meanings
from docs.generator.markdown import code, document, prose, table
from starter.gateway.api.application import api
from starter.gateway.api.problems import STATUSES

_NONE = ""


def page() -> str:
    """The text of docs/reference/http-api.md."""
    spec = openapi()
    return document(
        "HTTP API",
        "The gateway (`python -m starter gateway`) serves this API and, at `/v1/openapi.json`, its OpenAPI 3.1 document. Each"
        " request has an API key: `Authorization: Bearer bw_…`. [Use the HTTP API](../how-to/use-the-http-api.md) begins with"
        " the first key.",
        *(part for tag, group in _by_tag(spec["paths"]).items() for part in (f"## {tag}", *_operations(spec, group))),
        *_webhooks(spec),
        "## Problems",
        "A refused or failed request gets a problem document (RFC 9457): `type`, `title`, `status`, `detail`, `request_id`, and"
        " `errors` with `field`, `message` and `remedy` for each bad field. The types stay the same:",
        table(("type", "status", "meaning"), _problems()),
    )


def openapi() -> dict[str, Any]:
    """The document that the gateway serves."""
    registry = Registry(Database.at("sqlite:///unused.db", pool=1))
    return api(Settings(), registry, cast(Client, None)).openapi()


def _by_tag(paths: Mapping[str, Any]) -> dict[str, list[tuple[str, str, Mapping[str, Any]]]]:
    """Operations by their first tag, in the order of the document."""
    groups: dict[str, list[tuple[str, str, Mapping[str, Any]]]] = {}
    for path, methods in paths.items():
        for method, operation in methods.items():
            groups.setdefault(operation["tags"][0], []).append((method.upper(), path, operation))
    return groups


def _operations(spec: Mapping[str, Any], group: list[tuple[str, str, Mapping[str, Any]]]) -> Iterator[str]:
    for method, path, operation in group:
        yield f"### {code(f'{method} {path}')}"
        yield operation.get("description", operation["summary"])
        if parameters := operation.get("parameters"):
            rows = [
                (
                    code(each["name"]),
                    each["in"],
                    prose(each.get("description") or each["schema"].get("description", "")) or _NONE,
                )
                for each in parameters
            ]
            yield table(("parameter", "in", "meaning"), rows)
        if fields := list(_fields(spec, operation.get("requestBody"))):
            yield "Body:"
            yield table(("field", "type", "meaning"), fields)
        if fields := list(_fields(spec, _success(operation))):
            yield f"Response {_status(operation)}:"
            yield table(("field", "type", "meaning"), fields)


def _webhooks(spec: Mapping[str, Any]) -> Iterator[str]:
    """What endpoints get, from the `webhooks` of the document."""
    yield "## Webhooks"
    yield (
        "What Bellwire sends to the endpoints of subscriptions, as `webhooks` of the OpenAPI document."
        " [Receive webhooks](../receivers/index.md) is the guide for their authors. Each request has these headers, but that for"
        " consent, which is not signed:"
    )
    deliveries = [operation for path in spec["webhooks"].values() for operation in path.values()]
    shared = [each for each in deliveries[0]["parameters"] if each["required"]]
    yield table(("header", "meaning"), _headers(shared))
    yield "What follows from the response to a delivery:"
    responses = deliveries[0]["responses"]
    yield table(
        ("status", "meaning"), ((code(status), prose(each["description"])) for status, each in responses.items())
    )
    yield table(
        ("header", "meaning"), _headers([{"name": name, **each} for name, each in responses["2XX"]["headers"].items()])
    )
    for name, path in spec["webhooks"].items():
        ((method, operation),) = path.items()
        yield f"### {code(name)}"
        yield (
            f"{operation['description']}" if method == "post" else f"{code(method.upper())}. {operation['description']}"
        )
        if own := [each for each in operation["parameters"] if each not in shared]:
            yield table(("header", "meaning"), _headers(own))
        if fields := list(_fields(spec, operation.get("requestBody"))):
            yield "Body:"
            yield table(("field", "type", "meaning"), fields)
        if (data := _data_of(operation)) is not None:
            yield "`data`:"
            yield table(("field", "type", "meaning"), _properties(spec, data, ""))


def _headers(parameters: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    return ((code(each["name"]), prose(each["description"])) for each in parameters)


def _data_of(operation: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The schema of an operational event's data."""
    if "x-event-type" not in operation:
        return None
    (media,) = operation["requestBody"]["content"].values()
    return cast(Mapping[str, Any], media["schema"]["allOf"][1]["properties"]["data"])


def _status(operation: Mapping[str, Any]) -> str:
    return min(str(status) for status in operation["responses"] if status.startswith("2"))


def _success(operation: Mapping[str, Any]) -> Mapping[str, Any]:
    return cast(Mapping[str, Any], operation["responses"][_status(operation)])


def _fields(spec: Mapping[str, Any], content: Mapping[str, Any] | None) -> Iterator[tuple[str, str, str]]:
    """The fields of the first content that is an object, or of the items of a page."""
    for media in (content or {}).get("content", {}).values():
        schema = _resolved(spec, media.get("schema", {}))
        if "items" in schema.get("properties", {}) and "next" in schema["properties"]:
            yield from _properties(spec, schema, "")
            yield from _properties(spec, _resolved(spec, schema["properties"]["items"]["items"]), "items[].")
        else:
            yield from _properties(spec, schema, "")
        return


def _properties(spec: Mapping[str, Any], schema: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str, str]]:
    for name, value in schema.get("properties", {}).items():
        yield code(f"{prefix}{name}"), _type(spec, value), prose(value.get("description", "")) or _NONE


def _resolved(spec: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema itself: a reference followed, and of several the first."""
    while True:
        if "$ref" in schema:
            schema = spec["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        elif choices := schema.get("anyOf") or schema.get("oneOf"):
            schema = choices[0]
        else:
            return schema


def _type(spec: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        return _type(spec, _resolved(spec, schema))
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(dict.fromkeys(_type(spec, choice) for choice in choices))
    if "enum" in schema:
        return " or ".join(code(each) for each in schema["enum"])
    kinds = schema.get("type", "any")
    kind = " or ".join(kinds) if isinstance(kinds, list) else str(kinds)
    if kind == "array":
        return f"list of {_type(spec, schema.get('items', {}))}"
    return {"date-time": "time", "uri": "URL"}.get(schema.get("format", ""), kind)


def _problems() -> Iterator[tuple[str, str, str]]:
    remedies = meanings.of("problems", [str(kind) for kind in STATUSES])
    for kind, (status, title) in STATUSES.items():
        yield code(f"/v1/problems/{kind}"), str(status), f"{title}. {remedies[kind]}"
