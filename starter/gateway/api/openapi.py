"""The OpenAPI document: what the framework knows of the resources, and publishing, which is a route without the framework."""

from typing import Any

from fastapi import FastAPI

from bellwire import contract
from starter.gateway.api.problems import MEDIA_TYPE, STATUSES, ProblemType
from starter.gateway.api.publishing import PUBLISH
from starter.gateway.api.resources import request_schemas
from starter.gateway.api.webhooks import described

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
_DURATION = r"^\s*([0-9]+(\.[0-9]+)?\s*[dhms]\s*)+$"
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
        "deprecated": {
            "type": "string",
            "description": "Why its type is deprecated, and what to use instead; absent if it is not.",
        },
        "deliver_at": {
            "type": "string",
            "format": "date-time",
            "description": "When it is delivered; absent if it is delivered at once, or was published before.",
        },
        "settled": {"type": "boolean", "description": "With `Prefer: wait=N`, if its deliveries have settled."},
        "counts": {"$ref": "#/components/schemas/CountsView"},
    },
}

#: Bodies that operations take as they are.
_BODIES = {
    ("/v1/events/precheck", "post"): "EventDraft",
    ("/v1/subscriptions", "post"): "NewSubscription",
    ("/v1/subscriptions/simulate", "post"): "SubscriptionSimulation",
    ("/v1/subscriptions/{subscription_id}", "patch"): "SubscriptionPatch",
}


def describe(app: FastAPI) -> None:
    """Let the application serve the whole document."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generate()
            new_subscription, parts = request_schemas.subscription()
            document["components"]["schemas"] |= {
                **parts,
                "Problem": _PROBLEM,
                "Receipt": _RECEIPT,
                "CloudEvent": request_schemas.cloud_event(),
                "EventDraft": request_schemas.draft_event(),
                "NewSubscription": new_subscription,
                "SubscriptionPatch": request_schemas.subscription_patch(),
                "SubscriptionSimulation": request_schemas.subscription_simulation(),
                **described.schemas(),
            }
            document["webhooks"] = described.webhooks()
            for (path, method), name in _BODIES.items():
                content = document["paths"][path][method]["requestBody"]["content"]
                content["application/json"]["schema"] = {"$ref": f"#/components/schemas/{name}"}
            _draft_of_a_test(document["components"]["schemas"])
            # The framework's own description of a refused request, which no route responds with.
            for name in ("HTTPValidationError", "ValidationError"):
                document["components"]["schemas"].pop(name, None)
            document["paths"].setdefault(PUBLISH, {})["post"] = _publish()
            for path in document["paths"].values():
                for operation in path.values():
                    operation["responses"].pop("422", None)
                    operation["responses"] |= {str(status): _problem(title) for status, title in _refusals().items()}
            for schema in request_schemas.of_requests(document):
                # No text of a request may have NUL.
                if schema.get("type") == "string" and not schema.keys() & {"pattern", "format", "enum", "const"}:
                    schema["pattern"] = request_schemas.TEXT
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's documented way to extend the document


def _draft_of_a_test(schemas: dict[str, Any]) -> None:
    schemas["TestInput"]["properties"]["event"]["anyOf"][0] = {"$ref": "#/components/schemas/EventDraft"}


def _refusals() -> dict[int, str]:
    return dict(reversed(list(STATUSES.values())))


def _problem(title: str) -> dict[str, Any]:
    return {"description": title, "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}}


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
        "description": f"Publish an event, or a batch of up to {contract.MAX_EVENTS:,}, by the "
        "CloudEvents HTTP binding: structured, batch or binary mode. "
        "Once it is acknowledged, it is durable.",
        "security": [{"ApiKey": []}],
        "parameters": [
            {
                "name": "Prefer",
                "in": "header",
                "required": False,
                "schema": _STRING,
                "description": "`wait=N`: respond with 200 once the deliveries have settled, within N seconds, at most 60.",
            },
            {
                "name": "delay",
                "in": "query",
                "required": False,
                "schema": {"type": "string", "pattern": _DURATION},
                "description": "Deliver the events so much later, such as 90s, 2h or 3d; at most 365d. "
                "Subscriptions are matched then.",
            },
            {
                "name": "deliver_at",
                "in": "query",
                "required": False,
                "schema": {"type": "string", "format": "date-time"},
                "description": "Deliver the events at this time (RFC 3339), instead of `delay`. A + is written as %2B.",
            },
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/cloudevents+json": {"schema": event},
                "application/cloudevents-batch+json": {
                    # A bad item is not a bad batch.
                    "schema": {"type": "array", "minItems": 1, "items": {"anyOf": [event, {}]}}
                },
            },
        },
        "responses": {
            "202": {"description": "Published. A batch has one result per item, in order.", "content": content},
            "200": {"description": "Published, and its deliveries have settled.", "content": content},
        },
    }
