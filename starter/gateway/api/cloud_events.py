"""Reads events from HTTP requests, as the CloudEvents HTTP protocol binding 1.0.2 defines: binary, structured and batch mode."""

import base64
import codecs
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
_QUOTED = re.compile(rb'"((?:[^"\\]|\\.)*)"', re.DOTALL)
#: Text encodings of Python's that are no charset of a media type.
_NOT_CHARSETS = {"idna", "punycode", "raw-unicode-escape", "unicode-escape", "undefined", "mbcs", "oem"}
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)


class Mode(StrEnum):
    """How a request carries events."""

    BINARY = "binary"
    STRUCTURED = "structured"
    BATCH = "batch"


def mode_of(headers: Headers) -> Mode:
    """Raises ApiProblem for content that cannot be an event."""
    if len(headers.getlist("content-type")) > 1:
        raise refused("Content-Type", "is given twice", remedy="send one")
    if (encoding := headers.get("content-encoding", "identity").strip().lower()) != "identity":
        message = f"{encoding[:40]} is not supported"
        raise refused("Content-Encoding", message, remedy="omit it", kind=ProblemType.UNSUPPORTED_MEDIA_TYPE)
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
    if "data" in attributes:
        raise _invalid("data", "is the body in binary mode; omit ce-data")
    if content_type := headers.get("content-type"):
        if media_types.essence(content_type) is None:
            raise _invalid("Content-Type", "is not a media type")
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
    return _parsed(_with_text(value))


def _with_text(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """The event with the data of `data_base64` (JSON format §3.1.1), which is JSON or text by its media type."""
    encoded = value.get("data_base64")
    if encoded is None:
        return value
    if value.get("data") is not None:
        raise _invalid("data_base64", "cannot be given together with data")
    media_type = value.get("datacontenttype")
    if (
        not isinstance(media_type, str)
        or not media_types.is_header_value(media_type)
        or not _is_readable(media_types.essence(media_type) or "")
    ):
        raise _invalid("data_base64", "is supported for JSON and text, which datacontenttype must name")
    if not isinstance(encoded, str):
        raise _invalid("data_base64", "must be a string")
    try:
        raw = base64.b64decode(encoded, validate=True)
    except ValueError as error:
        raise _invalid("data_base64", "is not base64") from error
    rest = {name: item for name, item in value.items() if name != "data_base64"}
    return {**rest, "data": _data(raw, Headers({"content-type": media_type}))} if raw else rest


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
    value = raw.strip(b" \t")
    if quoted := _QUOTED.fullmatch(value):
        value = _ESCAPED.sub(rb"\1", quoted[1])
    try:
        # Some producers send UTF-8 as it is. It is not ambiguous, so it is taken.
        return unquote_to_bytes(value).decode()
    except UnicodeDecodeError as error:
        raise _invalid(attribute, "is not UTF-8, percent-encoded") from error


def _data(body: bytes, headers: Headers) -> Any:
    """The data of binary mode: JSON by its media type, otherwise text."""
    essence = media_types.essence(headers.get("content-type")) or "application/json"
    if _JSON.fullmatch(essence):
        return _json(_text(body, headers), "data")
    if _is_readable(essence):
        return _text(body, headers)
    raise _unsupported(f"data of {essence[:100]} is not supported", "send JSON or text, or a reference to it")


def _is_readable(essence: str) -> bool:
    """Whether data of a media type is JSON or text."""
    is_xml = essence == "application/xml" or essence.endswith("+xml")
    return is_xml or essence.startswith("text/") or _JSON.fullmatch(essence) is not None


def _text(body: bytes, headers: Headers) -> str:
    charset = media_types.charset(headers.get("content-type")) or "utf-8"
    try:
        return body.decode(_codec(charset))
    except LookupError as error:
        raise _unsupported(f"the charset {charset[:40]} is not known", "use utf-8") from error
    except (UnicodeDecodeError, ValueError) as error:
        raise _invalid("body", f"is not {charset[:40]}") from error


def _codec(charset: str) -> str:
    """Python's name of a charset. Raises LookupError for one that is unknown, and for text encodings that are none."""
    name = codecs.lookup(charset).name
    if name in _NOT_CHARSETS:
        raise LookupError(charset)
    return name


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
