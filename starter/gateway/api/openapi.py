"""The OpenAPI document: what the framework knows of the resources, and publishing, which is a route without the framework."""

from typing import Any

from fastapi import FastAPI

from bellwire import contract
from bellwire.events import Event
from starter.gateway.api.problems import MEDIA_TYPE, STATUSES, ProblemType
from starter.gateway.api.publishing import PUBLISH

_STRING = {"type": "string"}
#: The problem of every refused request (RFC 9457).
_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "request_id"],
    "properties": {
        "type": {"type": "string", "enum": [f"/v1/problems/{kind}" for kind in ProblemType]},
        "title": _STRING,
        "status": {"type": "integer"},
        "detail": _STRING,
        "request_id": _STRING,
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "message"],
                "properties": {"field": _STRING, "message": _STRING, "remedy": _STRING},
            },
        },
    },
}
_RECEIPT = {
    "type": "object",
    "required": ["source", "id", "workflow_id", "duplicate"],
    "properties": {
        "source": _STRING,
        "id": _STRING,
        "workflow_id": {"type": "string", "description": "The workflow that delivers it."},
        "duplicate": {
            "type": ["boolean", "null"],
            "description": "Whether it was published before, with the same content; null: not known.",
        },
        "settled": {"type": "boolean", "description": "With `Prefer: wait=N`, if its deliveries have settled."},
        "counts": {"$ref": "#/components/schemas/CountsView"},
    },
}


def describe(app: FastAPI) -> None:
    """Let the application serve the whole document."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generate()
            document["components"]["schemas"] |= {
                "Problem": _PROBLEM,
                "Receipt": _RECEIPT,
                "CloudEvent": _cloud_event(),
            }
            # The framework's own description of a refused request, which no route responds with.
            for name in ("HTTPValidationError", "ValidationError"):
                document["components"]["schemas"].pop(name, None)
            document["paths"].setdefault(PUBLISH, {})["post"] = _publish()
            for path in document["paths"].values():
                for operation in path.values():
                    operation["responses"].pop("422", None)
                    operation["responses"] |= {str(status): _problem(title) for status, title in _refusals().items()}
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's documented way to extend the document


def _refusals() -> dict[int, str]:
    return dict(reversed(list(STATUSES.values())))


def _problem(title: str) -> dict[str, Any]:
    return {"description": title, "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}}


def _cloud_event() -> dict[str, Any]:
    """An event in the CloudEvents JSON format."""
    schema = Event.model_json_schema()
    schema.pop("$defs", None)
    schema["required"] = ["specversion", "id", "source", "type"]
    for name in schema["properties"]:
        schema["properties"][name].pop("default", None)
    schema["properties"]["data"] = {"description": "Any JSON value."}
    return schema


def _publish() -> dict[str, Any]:
    receipt, event = {"$ref": "#/components/schemas/Receipt"}, {"$ref": "#/components/schemas/CloudEvent"}
    failed = {
        "type": "object",
        "required": ["problem"],
        "properties": {"problem": {"type": "object", "description": "As a response of its own, without `request_id`."}},
    }
    result = {"oneOf": [receipt, {"type": "array", "items": {"anyOf": [receipt, failed]}}]}
    content = {"application/json": {"schema": result}}
    return {
        "tags": ["Events"],
        "operationId": "publish",
        "summary": "Publish",
        "description": "Publish an event, or a batch, by the CloudEvents HTTP binding: structured, batch or binary mode. "
        "Once it is acknowledged, it is durable.",
        "security": [{"ApiKey": []}],
        "parameters": [
            {
                "name": "Prefer",
                "in": "header",
                "required": False,
                "schema": _STRING,
                "description": "`wait=N`: respond with 200 once the deliveries have settled, within N seconds, at most 60.",
            }
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/cloudevents+json": {"schema": event},
                "application/cloudevents-batch+json": {
                    "schema": {"type": "array", "minItems": 1, "maxItems": contract.MAX_EVENTS, "items": event}
                },
            },
        },
        "responses": {
            "202": {"description": "Published. A batch has one result per item, in order.", "content": content},
            "200": {"description": "Published, and its deliveries have settled.", "content": content},
        },
    }
