"""Reads events from HTTP requests, as the CloudEvents HTTP protocol binding 1.0.2 defines: binary, structured and batch mode."""

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any
from urllib.parse import unquote_to_bytes

from pydantic import ValidationError
from starlette.datastructures import Headers

from bellwire.errors import EventInvalid, field_errors
from bellwire.events import Event
from bellwire.formats import media_types, strict_json
from starter.gateway.api.problems import ApiProblem, ProblemType, named, refused
from starter.operations.problems import Problem

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
_PREFIX = "ce-"
#: Attributes that the producer must set (§ "Required attributes"); Bellwire invents none of them for other programs.
REQUIRED = ("specversion", "id", "source", "type")
_JSON = re.compile(r"application/json|text/json|[a-z0-9][a-z0-9!#$&^_.+-]*/[a-z0-9!#$&^_.-]+\+json")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
#: Characters that may stand in a header value unencoded (§3.1.3.2), and the space, which many producers leave as it is.
_VALUE = re.compile(r"[\x20-\x7e]*")


class Mode(StrEnum):
    """How a request carries events."""

    BINARY = "binary"
    STRUCTURED = "structured"
    BATCH = "batch"


def mode_of(headers: Headers) -> Mode:
    """Raises ApiProblem for content that cannot be an event."""
    content_type = headers.get("content-type")
    match media_types.essence(content_type):
        case "application/cloudevents+json":
            return Mode.STRUCTURED
        case "application/cloudevents-batch+json":
            return Mode.BATCH
        case essence if essence and essence.startswith("application/cloudevents"):
            raise _unsupported(
                f"{essence[:100]} is not supported", f"send {STRUCTURED}, {BATCH}, or binary mode with ce- headers"
            )
    if any(name.startswith(_PREFIX) for name in headers):
        return Mode.BINARY
    raise _unsupported("is not that of a CloudEvent", f"send {STRUCTURED} or {BATCH}, or binary mode with ce- headers")


def read_event(headers: Headers, mode: Mode, body: bytes) -> Event:
    """The event of a request in binary or structured mode. Raises ApiProblem."""
    if mode is Mode.STRUCTURED:
        return event_of(_json(_text(body, headers), "body"))
    attributes = _attributes(headers)
    _require(attributes)
    if "datacontenttype" in attributes:
        raise _invalid("datacontenttype", "is the Content-Type header in binary mode; omit ce-datacontenttype")
    if content_type := headers.get("content-type"):
        attributes["datacontenttype"] = content_type
    if body:
        attributes["data"] = _data(body, headers)
    return event_of(attributes)


def read_batch(headers: Headers, body: bytes) -> list[Any]:
    """The items of a batch, each to be read by `event_of`. Raises ApiProblem."""
    items = _json(_text(body, headers), "body")
    if not isinstance(items, list):
        raise _invalid("body", "must be a JSON array of events")
    return items


def draft_of(value: Mapping[str, Any]) -> Event:
    """An event that is not to be published: attributes that do not decide who gets it may be missing. Raises ApiProblem."""
    given = {name: item for name, item in value.items() if item is not None}
    return _parsed({"specversion": "1.0", "source": "/draft", **given})


def event_of(value: Any) -> Event:
    """An event in the CloudEvents JSON format. Raises ApiProblem, which names each bad field."""
    if not isinstance(value, Mapping):
        raise _invalid("body", "must be a JSON object, the event")
    _require(value)
    return _parsed(value)


def _parsed(value: Mapping[str, Any]) -> Event:
    try:
        return Event.model_validate(dict(value))
    except ValidationError as error:
        raise _refused(Problem(message=message, field=field) for field, message in field_errors(error)) from error
    except EventInvalid as error:
        raise ApiProblem(ProblemType.INVALID, str(error)) from error


def _require(attributes: Mapping[str, Any]) -> None:
    missing = [name for name in REQUIRED if attributes.get(name) is None]
    if missing:
        raise _refused(Problem(message="is required", field=name, remedy="set it") for name in missing)


def _attributes(headers: Headers) -> dict[str, Any]:
    attributes: dict[str, Any] = {}
    for raw_name, raw_value in headers.raw:
        name = raw_name.decode("latin-1")
        if not name.startswith(_PREFIX):
            continue
        attribute = name.removeprefix(_PREFIX)
        if attribute in attributes:
            raise _invalid(attribute, f"is given twice, as the header {name}")
        attributes[attribute] = _decoded(attribute, raw_value)
    return attributes


def _decoded(attribute: str, raw: bytes) -> str:
    """Undo a quoted string first, then one round of percent-encoding; the result must be UTF-8 (§3.1.3.2)."""
    value = raw.decode("latin-1").strip(" \t")
    if not _VALUE.fullmatch(value):
        # Some producers send UTF-8 as it is. It is not ambiguous, so it is taken; other bytes are refused below.
        encoded = raw.strip(b" \t")
    else:
        if quoted := _QUOTED.fullmatch(value):
            value = re.sub(r"\\(.)", r"\1", quoted[1])
        encoded = unquote_to_bytes(value)
    try:
        return encoded.decode()
    except UnicodeDecodeError as error:
        raise _invalid(attribute, "is not UTF-8, percent-encoded") from error


def _data(body: bytes, headers: Headers) -> Any:
    """The data of binary mode: JSON by its media type, otherwise text."""
    essence = media_types.essence(headers.get("content-type")) or "application/json"
    if _JSON.fullmatch(essence):
        return _json(_text(body, headers), "data")
    if essence.startswith("text/") or essence == "application/xml" or essence.endswith("+xml"):
        return _text(body, headers)
    raise _unsupported(f"data of {essence[:100]} is not supported", "send JSON or text, or a reference to it")


def _text(body: bytes, headers: Headers) -> str:
    charset = media_types.charset(headers.get("content-type")) or "utf-8"
    try:
        return body.decode(charset)
    except LookupError as error:
        raise _unsupported(f"the charset {charset[:40]} is not known", "use utf-8") from error
    except (UnicodeDecodeError, ValueError) as error:
        raise _invalid("body", f"is not {charset[:40]}") from error


def _json(text: str, field: str) -> Any:
    try:
        return strict_json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _invalid(field, f"is not valid JSON: {str(error)[:200]}") from error


def _unsupported(message: str, remedy: str) -> ApiProblem:
    return refused("Content-Type", message, remedy=remedy, kind=ProblemType.UNSUPPORTED_MEDIA_TYPE)


def _invalid(field: str, message: str) -> ApiProblem:
    return _refused([Problem(message=message, field=field)])


def _refused(problems: Iterable[Problem]) -> ApiProblem:
    found = list(map(named, problems))
    return ApiProblem(ProblemType.INVALID, "\n".join(map(str, found)), errors=found)
