"""JSON Schemas of request bodies that the framework cannot derive: events, and subscriptions with their merge patches.

Validation has checks that a model's own schema does not show; here they are patterns, so that the document tells what is taken.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bellwire.events import Event
from bellwire.subscriptions import Subscription
from bellwire.targets import SPECS, WORKER_CHANNELS
from starter.operations.delivery.simulating import DEFAULT_LAST, MAX_LAST

Schema = dict[str, Any]

#: Text without control characters and noncharacters, which CloudEvents does not allow.
PRINTABLE = r"^[^\u0000-\u001f\u007f-\u009f\ufdd0-\ufdef\ufffe\uffff]*$"
#: Any text that can be stored.
TEXT = r"^[^\u0000]*$"
TENANT = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"
SUBSCRIPTION_ID = "^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$"
LOCALE = "^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$"
#: How long ago, or an RFC 3339 time. That it is no later than now, a pattern cannot say.
PAST = (
    r"^(([0-9]+(\.[0-9]+)? *[dhms] *)+"
    r"|[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[Tt]([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)(\.[0-9]+)?"
    r"([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9]))$"
)
SCOPE = "^(admin|publish|tenant:[A-Za-z0-9][A-Za-z0-9_.-]{0,62})$"
_ADDRESSED = r"^(\*|[A-Za-z0-9][A-Za-z0-9_.-]{0,62})$"
_URI_REFERENCE = (
    r"^([A-Za-z][A-Za-z0-9+.-]*:|(?![^/?#]*:))"
    r"(//([A-Za-z0-9\-._~:@!$&'()*+,;=]|%[0-9A-Fa-f]{2})*(\[[0-9A-Fa-f:.]+\](:[0-9]*)?)?)?"
    r"([A-Za-z0-9\-._~:/?@!$&'()*+,;=]|%[0-9A-Fa-f]{2})*(#([A-Za-z0-9\-._~:/?@!$&'()*+,;=]|%[0-9A-Fa-f]{2})*)?$"
)
_TYPE_PATTERN = r"^(\*|[^\s*\u0000-\u001f\u007f-\u009f]+|[^\s*\u0000-\u001f\u007f-\u009f]*[^\s.*]\.\*)$"
_TEMPLATE = r"^[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*$"
_NUMBER = r"^\+[1-9][0-9]{6,14}$"
_WEB_URL = r"^https?://[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z][a-z0-9-]*[a-z0-9])+(/[A-Za-z0-9._~/-]*)?$"
_NULL: Schema = {"type": "null"}
#: A pattern of the filter dialect `data`, and one alternative of a field in it.
_DATA_PATTERN: Schema = {
    "type": "object",
    "description": "Fields of the event's data, each with its alternatives, or with an object of further fields.",
    "minProperties": 1,
    "additionalProperties": {
        "anyOf": [
            {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/DataAlternative"}},
            {"$ref": "#/components/schemas/DataPattern"},
        ]
    },
}
_DATA_ALTERNATIVE: Schema = {
    "description": 'A value, a condition such as `{"prefix": "a"}`, or, in the list of `$or`, a pattern.',
    "type": ["string", "number", "boolean", "null", "object"],
}
_EXTENSION: Schema = {
    "anyOf": [
        {"type": "string", "pattern": PRINTABLE},
        {"type": "boolean"},
        {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1},
        _NULL,
    ]
}


def cloud_event(required: Iterable[str] = ("specversion", "id", "source", "type")) -> Schema:
    """An event in the CloudEvents JSON format."""
    schema = Event.model_json_schema()
    schema.pop("$defs")
    properties = schema["properties"]
    for name, attribute in properties.items():
        attribute.pop("default", None)
        attribute.pop("title", None)
        for text in (attribute, *attribute.get("anyOf", ())):
            if text.get("type") == "string" and "const" not in text:
                text["pattern"] = PRINTABLE
        if name not in required and "anyOf" not in attribute:
            properties[name] = {"anyOf": [attribute, _NULL]}
    properties["source"] |= {"pattern": _URI_REFERENCE}
    properties["tenant"]["anyOf"][0]["pattern"] = _ADDRESSED
    properties["time"] = {"anyOf": [{"type": "string", "format": "date-time"}, _NULL]}
    properties["data"] = {"description": "Any JSON value."}
    properties["data_base64"] = {
        "type": "null",
        "description": "Binary data is not supported. Base64 of JSON or text is taken, if datacontenttype names that.",
    }
    return {
        **schema,
        "description": "An event in the CloudEvents JSON format. Further properties are extension attributes.",
        "required": list(required),
        "propertyNames": {"pattern": "^([a-z0-9]{1,64}|data_base64)$"},
        "additionalProperties": _EXTENSION,
    }


def draft_event() -> Schema:
    """An event that is not published: what does not decide who gets it may be left out."""
    schema = cloud_event(("type",))
    schema["properties"]["source"] = {"anyOf": [cloud_event()["properties"]["source"], _NULL]}
    return schema


def subscription() -> tuple[Schema, Mapping[str, Schema]]:
    """A new subscription, and the schemas that it refers to, by name."""
    schema = Subscription.model_json_schema(ref_template="#/components/schemas/{model}")
    parts: dict[str, Schema] = schema.pop("$defs")
    properties = schema["properties"]
    for name in ("state", "state_reason", "version", "updated_at"):
        properties.pop(name)
    properties["id"] |= {
        "pattern": SUBSCRIPTION_ID,
        "description": "Unique across all tenants; generated by default. Only with an `admin` key.",
    }
    properties["tenant"] |= {"pattern": TENANT}
    properties["types"]["items"] |= {"pattern": _TYPE_PATTERN}
    properties["template"]["anyOf"][0] |= {"pattern": _TEMPLATE}
    properties["locale"] |= {"pattern": LOCALE}
    properties["secret"] = {
        "anyOf": [{"type": "string", "pattern": "^(whsec|whsk)_"}, _NULL],
        "description": "The signing secret of a webhook; null: one is generated.",
    }
    properties["since"] = {
        "anyOf": [
            {"type": "string", "pattern": PAST},
            _NULL,
        ],
        "description": "Deliver also what happened since then: how long ago, such as `1h`, or an RFC 3339 time in the past.",
    }
    properties["asymmetric"] = {
        "anyOf": [{"type": "boolean"}, _NULL],
        "description": "Generate a key pair instead; the public key is shown.",
    }
    parts["Data"]["properties"]["data"] = {"$ref": "#/components/schemas/DataPattern"}
    parts |= {"DataPattern": _DATA_PATTERN, "DataAlternative": _DATA_ALTERNATIVE}
    # Services register their handlers themselves.
    target, of_handlers = properties["target"], parts.pop("HandlerTarget")["properties"]["channel"]["const"]
    reference = target["discriminator"]["mapping"].pop(of_handlers)
    target["oneOf"] = [each for each in target["oneOf"] if each != {"$ref": reference}]
    for spec in map(SPECS.__getitem__, WORKER_CHANNELS):
        target = parts[spec.target.__name__]
        target["required"] = ["channel", *target.get("required", ())]
    parts["WebhookTarget"]["properties"]["url"] |= {"pattern": _WEB_URL}
    parts["SmsTarget"]["properties"]["to"] |= {"pattern": _NUMBER}
    for to in parts["EmailTarget"]["properties"]["to"]["oneOf"]:
        to.get("items", to).update(format="email")
    return {**schema, "description": "A new subscription.", "required": ["types", "target"]}, parts


def subscription_patch() -> Schema:
    """A JSON merge patch (RFC 7396) of a subscription."""
    schema, _ = subscription()
    fixed = {"id", "tenant", "secret", "asymmetric", "since"}
    properties = {name: value for name, value in schema["properties"].items() if name not in fixed}
    for name, value in properties.items():
        value.pop("default", None)
        if name not in {"types", "target"} and "anyOf" not in value:
            properties[name] = {"anyOf": [value, _NULL]}
    # Of the target too, only what changes need be given.
    properties["target"] = {"type": "object", "description": "The fields of the target that change."}
    return {
        "type": "object",
        "description": "Fields that are left out stay, null clears one.",
        "properties": properties,
        "additionalProperties": False,
    }


def subscription_simulation() -> Schema:
    """What a subscription wants, to be tried on stored events."""
    schema, _ = subscription()
    properties = {name: schema["properties"][name] for name in ("tenant", "types", "filters")}
    properties["types"] = {**properties["types"], "default": ["*"]}
    properties["last"] = {
        "type": "integer",
        "minimum": 1,
        "maximum": MAX_LAST,
        "default": DEFAULT_LAST,
        "description": "How many of the last events it is tried on.",
    }
    return {
        "type": "object",
        "description": "Type patterns and filters to try.",
        "properties": properties,
        "additionalProperties": False,
    }


def of_requests(document: Mapping[str, Any]) -> Iterator[Schema]:
    """Every schema of what requests have in path, query and body, those that others hold or refer to included."""
    waiting: list[Schema] = []
    for path in document["paths"].values():
        for operation in path.values():
            waiting += [each["schema"] for each in operation.get("parameters", ()) if each["in"] in {"path", "query"}]
            waiting += [each["schema"] for each in operation.get("requestBody", {}).get("content", {}).values()]
    seen = set[int]()
    while waiting:
        schema = waiting.pop()
        if not isinstance(schema, dict) or id(schema) in seen:
            continue
        seen.add(id(schema))
        yield schema
        if "$ref" in schema:
            waiting.append(document["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
        waiting += [each for keyword in ("anyOf", "oneOf", "allOf", "prefixItems") for each in schema.get(keyword, ())]
        waiting += [schema[keyword] for keyword in ("items", "additionalProperties") if keyword in schema]
        waiting += schema.get("properties", {}).values()
