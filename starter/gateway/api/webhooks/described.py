"""The `webhooks` of the OpenAPI document: the requests that endpoints get, by format and by operational event.

OpenAPI 3.1.1 §4.8.1 ("Webhooks"); signatures follow Standard Webhooks 1.0.0.
"""

from collections.abc import Mapping
from typing import Any

from bellwire.registry.operational_events import OperationalEvent
from bellwire.targets import WebhookFormat
from starter.gateway.api.resources import request_schemas
from starter.gateway.api.webhooks.operational import DATA, WHEN

Schema = dict[str, Any]

_STRUCTURED, _JSON = "application/cloudevents+json", "application/json"
#: What endpoints respond, and what follows: a status of OpenAPI, the kind of the outcome, and how the delivery goes on.
RESPONSES: Mapping[str, tuple[str, str]] = {
    "2XX": ("delivered", "The delivery is delivered, once status line and headers have arrived."),
    "410": ("rejected", "The delivery is rejected, and the subscription is disabled."),
    "429": ("deferred", "The delivery is attempted again, and the subscription is throttled: for Retry-After, or 5 s."),
    "502": ("deferred", "As 429."),
    "503": ("deferred", "The delivery is attempted again; with Retry-After, the subscription is throttled."),
    "504": ("deferred", "As 429."),
    "default": ("deferred", "The delivery is attempted again by its retry schedule. Redirects are not followed."),
}
_RESPONSE_HEADERS = {
    "Retry-After": {
        "description": "Seconds or an HTTP date before which no attempt follows, up to 1 day; ignored with 2xx.",
        "schema": {"type": "string"},
    },
    "WebHook-Delivery": {
        "description": "`abort` or `abort-message`, with a status that is not 2xx: no further attempt. `disable`: the "
        "subscription is disabled.",
        "schema": {"type": "string", "enum": ["abort", "abort-message", "disable"]},
    },
}
_SIGNED = {
    "webhook-id": (
        "The id of the delivery, the same on each attempt: deduplicate on it.",
        {"type": "string", "pattern": "^[!-\\-/-~]+$"},
    ),
    "webhook-timestamp": ("The time of the attempt in Unix seconds.", {"type": "string", "pattern": "^[0-9]{1,12}$"}),
    "webhook-signature": (
        (
            "Signatures over `webhook-id`, a dot, `webhook-timestamp`, a dot, and the raw body, separated by spaces; one that "
            "matches is enough. `v1,` and the base64 of HMAC-SHA256 with the secret `whsec_…`, or `v1a,` and that of ed25519 "
            "with the public key `whpk_…`."
        ),
        {"type": "string", "pattern": "^v1a?,[A-Za-z0-9+/]+=*( v1a?,[A-Za-z0-9+/]+=*)*$"},
    ),
    "user-agent": ("`Bellwire/` and its version.", {"type": "string", "pattern": "^Bellwire/"}),
}
_REQUEST_ORIGIN = (
    "webhook-request-origin",
    "The domain name of the sender; only for subscriptions with `handshake`.",
    {"type": "string"},
)
_NOTE = " The headers of the subscription's target are added."


def webhooks() -> dict[str, Any]:
    """Path items by name."""
    return {
        **{f"event.{form}": {"post": _delivery(form)} for form in WebhookFormat},
        "consent": {"options": _consent()},
        **{kind: {"post": _operational(kind)} for kind in OperationalEvent},
    }


def schemas() -> dict[str, Schema]:
    """The schemas that they refer to."""
    return {"DeliveredEvent": delivered_event(), "StandardPayload": _standard()}


def delivered_event() -> Schema:
    """An event as it is sent: with each attribute that has a value, and with no other."""
    schema = request_schemas.cloud_event()
    schema["required"] = [*schema["required"], "time", "tenant"]
    schema["properties"].pop("data_base64")
    schema["properties"] = {name: _not_null(value) for name, value in schema["properties"].items()}
    schema["additionalProperties"] = _not_null(schema["additionalProperties"])
    schema["propertyNames"] = {"pattern": "^[a-z0-9]{1,64}$"}
    schema["description"] = "An event in the CloudEvents JSON format. Further properties are extension attributes."
    return schema


def _not_null(schema: Schema) -> Schema:
    kinds = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    if not kinds:
        return schema
    rest = {name: value for name, value in schema.items() if name != "anyOf"}
    return {**rest, **kinds[0]} if len(kinds) == 1 else {**rest, "anyOf": kinds}


def _standard() -> Schema:
    return {
        "type": "object",
        "description": "The payload that Standard Webhooks recommends.",
        "required": ["type", "timestamp", "data"],
        "additionalProperties": False,
        "properties": {
            "type": {"type": "string", "description": "The type of the event."},
            "timestamp": {"type": "string", "format": "date-time", "description": "When it happened."},
            "data": {"description": "The data of the event; an empty object if it has none."},
        },
    }


def _delivery(form: WebhookFormat) -> dict[str, Any]:
    event, anything = {"$ref": "#/components/schemas/DeliveredEvent"}, {"description": "Any JSON value."}
    parameters: list[dict[str, Any]] = []
    match form:
        case WebhookFormat.CLOUDEVENTS:
            text, content = "The whole event as one JSON object.", {_STRUCTURED: event}
        case WebhookFormat.CLOUDEVENTS_BINARY:
            text = (
                "The data as the body, and the attributes as percent-encoded `ce-` headers; extension attributes too. The body "
                "is empty without data. An event that does not fit into headers comes as `event.cloudevents`, with the "
                "content type of that."
            )
            content = {"*/*": {"description": "The data, in the media type of the event."}, _STRUCTURED: event}
            parameters = [_header(f"ce-{name}", text, schema, required=False) for name, text, schema in _ATTRIBUTES]
        case WebhookFormat.STANDARD:
            text, content = "Type, time and data.", {_JSON: {"$ref": "#/components/schemas/StandardPayload"}}
        case WebhookFormat.TEMPLATE:
            text, content = (
                "JSON from the template `webhook.json` of the subscription or event type.",
                {_JSON: anything},
            )
    return _request(
        summary=f"An event in the format {form}",
        description=f"{text} For subscriptions with the format `{form}`.{_NOTE}",
        content=content,
        parameters=parameters,
        required=form is not WebhookFormat.CLOUDEVENTS_BINARY,
    )


_ATTRIBUTES = (
    ("specversion", "Always `1.0`.", {"const": "1.0"}),
    ("id", "Unique within the source.", {"type": "string"}),
    ("source", "The publisher.", {"type": "string"}),
    ("type", "What happened.", {"type": "string"}),
    ("time", "When it happened.", {"type": "string"}),
    ("tenant", "The tenant that it is for.", {"type": "string"}),
    ("subject", "What it happened to, if it says so.", {"type": "string"}),
    ("dataschema", "The schema of the data, if it says so.", {"type": "string"}),
)


def _operational(kind: OperationalEvent) -> dict[str, Any]:
    event = {
        "allOf": [
            {"$ref": "#/components/schemas/DeliveredEvent"},
            {
                "required": ["subject", "data"],
                "properties": {"source": {"const": "bellwire"}, "type": {"const": str(kind)}, "data": DATA[kind]},
            },
        ]
    }
    return _request(
        summary=str(kind),
        description=f"{WHEN[kind]} Shown in the default format; others carry the same event.{_NOTE}",
        content={_STRUCTURED: event},
    ) | {"x-event-type": str(kind)}


def _request(
    *,
    summary: str,
    description: str,
    content: Mapping[str, Schema],
    parameters: list[dict[str, Any]] | None = None,
    required: bool = True,
) -> dict[str, Any]:
    signed = [
        {"name": name, "in": "header", "required": True, "description": text, "schema": schema}
        for name, (text, schema) in _SIGNED.items()
    ]
    return {
        "tags": ["Webhooks"],
        "summary": summary,
        "description": description,
        # By its signature, not by a key of the API.
        "security": [],
        "parameters": [*signed, _header(*_REQUEST_ORIGIN, required=False), *(parameters or ())],
        "requestBody": {
            "required": required,
            "content": {media: {"schema": schema} for media, schema in content.items()},
        },
        "responses": {
            status: {"description": text, "headers": _RESPONSE_HEADERS, "x-outcome": outcome}
            for status, (outcome, text) in RESPONSES.items()
        },
    }


def _consent() -> dict[str, Any]:
    return {
        "tags": ["Webhooks"],
        "summary": "Asks an endpoint for its consent",
        "description": "For subscriptions with `handshake`: before the first delivery, and again after 24 hours (CloudEvents "
        'web hooks, "Abuse protection"). It is not signed. Without consent nothing is sent, and it is asked again.',
        "security": [],
        "parameters": [
            _header(*_REQUEST_ORIGIN, required=True),
            _header(
                "webhook-request-rate",
                "Deliveries a minute, if the subscription has a limit.",
                {"type": "string", "pattern": "^[1-9][0-9]*$"},
                required=False,
            ),
            _header("user-agent", *_SIGNED["user-agent"], required=True),
        ],
        "responses": {
            "default": {
                "description": "Consent, whatever the status, if WebHook-Allowed-Origin names the sender.",
                "headers": {
                    "WebHook-Allowed-Origin": {
                        "description": "The name of the sender, or `*`; without it there is no consent.",
                        "schema": {"type": "string"},
                    },
                    "WebHook-Allowed-Rate": {
                        "description": "Deliveries a minute that the endpoint accepts; `*`, or without it: any number.",
                        "schema": {"type": "string", "pattern": "^([*]|[1-9][0-9]*)$"},
                    },
                },
            }
        },
    }


def _header(name: str, text: str, schema: Schema, *, required: bool) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": required, "description": text, "schema": schema}
