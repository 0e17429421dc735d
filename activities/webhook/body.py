"""Webhook bodies: the event in the format that its subscription asks for.

CloudEvents 1.0 HTTP binding §3.1 (binary) and §3.2 (structured); Standard Webhooks 1.0.0, "Payload structure".
"""

import codecs
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from activities.rendering.renderer import Renderer
from bellwire.formats.media_types import charset, essence, is_header_value
from bellwire.sends import SendRequest
from bellwire.targets import WebhookFormat, WebhookTarget

STRUCTURED = "application/cloudevents+json; charset=utf-8"
JSON = "application/json; charset=utf-8"

#: Bytes of the content type and all ce-* headers together; many servers accept at most 8 KiB of headers.
MAX_HEADER_BYTES = 6 * 1024

#: Text encodings of Python's that are no charset of a media type.
_NOT_CHARSETS = frozenset({"idna", "punycode", "raw-unicode-escape", "unicode-escape", "undefined", "mbcs", "oem"})

#: HTTP binding §3.1.3.2: the double quote, the percent sign and everything but visible ASCII is percent-encoded.
_ENCODED = re.compile(rb'[^\x21-\x7e]|["%]')


@dataclass(frozen=True, slots=True)
class Body:
    """A request body and its headers."""

    content: bytes
    #: The content type and the ce-* headers, names in lower case.
    headers: Mapping[str, str] = field(default_factory=dict)


async def body_of(request: SendRequest, target: WebhookTarget, renderer: Renderer) -> Body:
    """The body for this delivery. Raises TemplateInvalid if its format is a template that fails."""
    match target.format:
        case WebhookFormat.CLOUDEVENTS:
            return _structured(request)
        case WebhookFormat.CLOUDEVENTS_BINARY:
            return _binary(request) or _structured(request)
        case WebhookFormat.STANDARD:
            return Body(_standard(request), {"content-type": JSON})
        case WebhookFormat.TEMPLATE:
            return Body((await renderer.text(request, "webhook.json")).encode(), {"content-type": JSON})


def _structured(request: SendRequest) -> Body:
    return Body(request.events_json[0].encode(), {"content-type": STRUCTURED})


def _binary(request: SendRequest) -> Body | None:
    """Binary mode; None if the event does not fit it: an invalid media type, too many bytes of headers, or a charset that is
    unknown or lacks a character of the data.

    The event is then sent in structured mode, which receivers recognise by the content type (HTTP binding §3).
    """
    attributes = request.event.structured()
    data = attributes.pop("data", None)
    media_type = attributes.pop("datacontenttype", None)
    if media_type is not None and not is_header_value(media_type):
        return None
    headers = {f"ce-{name}": _header_value(value) for name, value in attributes.items()}
    if media_type is not None or data is not None:
        headers = {"content-type": media_type or "application/json", **headers}
    if sum(len(name) + len(value) for name, value in headers.items()) > MAX_HEADER_BYTES:
        return None
    try:
        return Body(_binary_data(data, media_type), headers)
    except (LookupError, ValueError):
        return None


def _binary_data(data: Any, media_type: str | None) -> bytes:
    """The data as bytes. Text of a media type other than JSON is the body itself (JSON format §3.1.1), in its charset.

    Raises LookupError or ValueError if the charset is unknown or lacks a character.
    """
    if data is None:
        return b""
    encoding = _encoding(media_type)
    if isinstance(data, str) and not _is_json(media_type):
        return data.encode(encoding)
    if encoding == "utf-8":
        return _json(data)
    # JSON is UTF-8 (RFC 8259 §8.1), but receivers may go by the charset: ASCII is the same in both.
    text = json.dumps(data, separators=(",", ":"))
    content = text.encode()
    if content != text.encode(encoding):
        raise ValueError(encoding)
    return content


def _encoding(media_type: str | None) -> str:
    # str.encode raises LookupError for codecs of Python's that are no charset, such as base64 and rot13.
    name = codecs.lookup(charset(media_type) or "utf-8").name
    if name in _NOT_CHARSETS:
        raise LookupError(name)
    return name


def _is_json(media_type: str | None) -> bool:
    return (essence(media_type or "application/json") or "").endswith(("/json", "+json"))


def _header_value(value: str | int | bool) -> str:
    """An attribute as a header value: its canonical string form, percent-encoded."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return _ENCODED.sub(lambda found: b"%%%02X" % found[0][0], text.encode()).decode()


def _standard(request: SendRequest) -> bytes:
    event = request.event.structured()
    return _json({"type": event["type"], "timestamp": event["time"], "data": event.get("data", {})})


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
