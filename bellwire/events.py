"""Event: something that happened, published once, as a CloudEvents 1.0 event.

Rules: CloudEvents 1.0.2, "Context Attributes" and "Type System"; RFC 3986 for `source`; RFC 3339 for `time`.
"""

import base64
import difflib
import hashlib
import json
import re
import secrets
import time as clock
import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from bellwire.errors import EventInvalid, fields_in_error
from bellwire.formats.json_values import json_value
from bellwire.formats.timestamps import format_timestamp, in_range, parse_timestamp
from bellwire.models import TRUSTED, Payload
from bellwire.tenants import DEFAULT_TENANT, AddressedTenant

#: Maximum size of an event, in bytes of JSON. CloudEvents requires 64 KiB of intermediaries; this is four times as much.
MAX_EVENT_BYTES = 256 * 1024
#: Attributes that are not content: they differ when a publisher retries with the same event.
_NOT_CONTENT = {"time", "traceparent", "tracestate"}

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
_URI_REFERENCE = re.compile(
    r"(?:[A-Za-z][A-Za-z0-9+.\-]*:|(?![^/?#]*:))"  # a scheme, or a first segment without a colon
    # An authority, in which only an IP address has brackets.
    r"(?://(?:[A-Za-z0-9\-._~:@!$&'()*+,;=]|%[0-9A-Fa-f]{2})*(?:\[[0-9A-Fa-f:.]+\](?::[0-9]*)?)?)?"
    r"(?:[A-Za-z0-9\-._~:/?@!$&'()*+,;=]|%[0-9A-Fa-f]{2})*"
    r"(?:#(?:[A-Za-z0-9\-._~:/?@!$&'()*+,;=]|%[0-9A-Fa-f]{2})*)?"
)
_EXTENSION_NAME = re.compile(r"[a-z0-9]+")


def uuid7() -> uuid.UUID:
    """Return a UUID version 7 (RFC 9562 §5.7): milliseconds, then random bits, so that ids sort by creation."""
    value = (clock.time_ns() // 1_000_000 & (1 << 48) - 1) << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 7 << 76
    return uuid.UUID(int=value & ~(0x3 << 62) | 0x2 << 62)


def _printable(value: str) -> str:
    if _CONTROL.search(value):
        raise ValueError(
            "contains a control character, a lone surrogate or a noncharacter, which CloudEvents does not allow"
        )
    return value


def _uri_reference(value: str) -> str:
    if not _URI_REFERENCE.fullmatch(value):
        raise ValueError(
            "is not a valid URI-reference (RFC 3986), such as /shop/orders; percent-encode other characters"
        )
    return value


def _time(value: object) -> datetime:
    if isinstance(value, str):
        return parse_timestamp(value)
    if isinstance(value, datetime):
        return in_range(value)
    raise ValueError("must be an RFC 3339 string or an aware datetime")


def _data(value: object, info: ValidationInfo) -> object:
    return value if info.context == TRUSTED else json_value(value)


def _unknown(attributes: Iterable[str]) -> Iterator[str]:
    """The problems of keyword arguments that are no attributes of an event."""
    known = [*Event.model_fields, "extensions"]
    for name in attributes:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
            remedy = f"did you mean {close[0]}? Otherwise " if close else ""
            yield f"{name}: is not an attribute of an event; {remedy}extension attributes go into extensions={{{name!r}: …}}"


def _not_extensions(extensions: object) -> Iterator[str]:
    """The problems of `extensions`."""
    if extensions is not None and not isinstance(extensions, Mapping):
        yield "extensions: must be a dict of names and values"
        return
    for name in extensions or ():
        if not isinstance(name, str):
            yield f"extensions: has a {type(name).__name__} as a name; use a string"
        elif name in Event.model_fields:
            yield f"extensions: {name} is an attribute of its own; give it as {name}=…"


Attribute = Annotated[str, AfterValidator(_printable)]


class Event(Payload):
    """Something that happened. `extensions` are its CloudEvents extension attributes; `Event.parse` takes an event as JSON.

    Dates, times, decimals, UUIDs and enums in `data` become what JSON has for them. Raises EventInvalid, which names each invalid
    field.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    specversion: Literal["1.0"] = "1.0"
    #: Unique within the source. A UUIDv7 by default; give your own, such as order number and step, to make retries safe.
    id: Annotated[Attribute, Field(min_length=1, max_length=256)] = Field(default_factory=lambda: str(uuid7()))
    #: The publisher: a URI-reference such as /shop/orders.
    source: Annotated[str, Field(min_length=1, max_length=512), AfterValidator(_uri_reference)]
    #: What happened, in dotted words from general to specific: order.paid.
    type: Annotated[Attribute, Field(min_length=1, max_length=256)]
    #: What it happened to, within the source: 42.
    subject: Annotated[Attribute, Field(min_length=1, max_length=1024)] | None = None
    #: When it happened; now by default.
    time: Annotated[datetime, PlainValidator(_time), PlainSerializer(format_timestamp, when_used="json")] = Field(
        default_factory=lambda: datetime.now(UTC)
    )
    datacontenttype: Attribute | None = None
    dataschema: Annotated[Attribute, Field(min_length=1)] | None = None
    #: The tenant that it is for; * for all tenants.
    tenant: AddressedTenant = DEFAULT_TENANT
    data: Annotated[JsonValue, BeforeValidator(_data)] = None

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            source: str,
            type: str,  # noqa: A002 - the word of CloudEvents
            id: str | None = None,  # noqa: A002
            subject: str | None = None,
            time: datetime | str | None = None,
            datacontenttype: str | None = None,
            dataschema: str | None = None,
            tenant: str | None = None,
            data: object = None,
            extensions: Mapping[str, str | int | bool] | None = None,
            specversion: Literal["1.0"] = "1.0",
        ) -> None: ...

    else:

        def __init__(self, *, extensions: Mapping[str, str | int | bool] | None = None, **attributes: Any) -> None:
            problems = [*_unknown(attributes), *_not_extensions(extensions)]
            if problems:
                raise EventInvalid("; ".join(problems))
            try:
                super().__init__(**attributes, **(extensions or {}))
            except ValidationError as error:
                raise EventInvalid(fields_in_error(error)) from None

        # Only the constructor is strict. Validation, such as of JSON, takes unknown attributes as extensions.
        __init__.__pydantic_base_init__ = True

    @property
    def extensions(self) -> dict[str, str | int | bool]:
        """The extension attributes other than `tenant`."""
        return dict(self.__pydantic_extra__ or {})

    @property
    def key(self) -> str:
        """26 letters and digits that identify (source, id)."""
        return event_key(self.source, self.id)

    @property
    def digest(self) -> str:
        """A hash of the content: equal if the same event is published again, even with another time or trace."""
        content = {name: value for name, value in self.structured().items() if name not in _NOT_CONTENT}
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def structured(self) -> dict[str, Any]:
        """Return the event in the CloudEvents JSON format. Attributes that are not set are absent."""
        unset = {name for name in type(self).model_fields if getattr(self, name) is None}
        return self.model_dump(mode="json", exclude=unset)

    def to_json(self) -> str:
        """Return `structured` as text, which is stored and sent by webhooks."""
        return json.dumps(self.structured(), ensure_ascii=False, separators=(",", ":"))

    def attribute(self, name: str) -> str | None:
        """Return a context attribute in its canonical string form (CloudEvents "Type System"); None if it is not set."""
        value = self.model_dump(mode="json", include={name}).get(name) if name != "data" else None
        if isinstance(value, bool):
            return "true" if value else "false"
        return None if value is None else str(value)

    @classmethod
    def parse(cls, value: str | bytes | dict[str, Any]) -> Self:
        """Parse an event in the CloudEvents JSON format. Raises EventInvalid, which names each invalid field."""
        try:
            return cls.model_validate(value) if isinstance(value, dict) else cls.model_validate_json(value)
        except ValidationError as error:
            raise EventInvalid(fields_in_error(error)) from error

    @classmethod
    def restored(cls, stored: str) -> Self:
        """Parse an event that `to_json` wrote, without repeating the checks."""
        return cls.model_validate_json(stored, context=TRUSTED)

    @model_validator(mode="before")
    @classmethod
    def _null_is_unset(cls, value: Any) -> Any:
        """CloudEvents JSON format §2.1: a null attribute is not set."""
        if isinstance(value, dict):
            return {name: item for name, item in value.items() if item is not None or name == "data"}
        return value

    @model_validator(mode="after")
    def _check_extensions(self) -> Self:
        for name, value in self.extensions.items():
            if name == "data_base64":
                raise ValueError("data_base64: binary data is not supported; put JSON into data")
            if not _EXTENSION_NAME.fullmatch(name) or len(name) > 64:
                raise ValueError(f"{name[:80]}: extension attribute names are 1 to 64 lower-case letters and digits")
            match value:
                case str():
                    if _CONTROL.search(value):
                        raise ValueError(f"{name}: contains a control character, a lone surrogate or a noncharacter")
                case bool():
                    pass
                case int():
                    if not -(2**31) <= value < 2**31:
                        raise ValueError(f"{name}: is out of range (32-bit integer); use a string")
                case _:
                    raise ValueError(f"{name}: must be a string, an integer or a boolean; put other values into data")
        return self

    @model_validator(mode="after")
    def _check_data(self, info: ValidationInfo) -> Self:
        if info.context == TRUSTED:
            return self
        try:
            size = len(self.model_dump_json().encode())
        except ValueError as error:
            raise ValueError("data: contains a lone surrogate, which UTF-8 cannot encode; fix the text") from error
        if size > MAX_EVENT_BYTES:
            raise ValueError(
                f"data: the event has {size:,} bytes of JSON, the limit is {MAX_EVENT_BYTES:,}; send a reference to large data"
            )
        return self


@lru_cache(maxsize=4096)
def event_key(source: str, event_id: str) -> str:
    """Return 26 letters and digits that identify (source, id): the first 128 bits of a SHA-256, in base 32.

    A source cannot contain a line feed, so two different pairs are never the same hashed text.
    """
    digest = hashlib.sha256(f"{source}\n{event_id}".encode()).digest()[:16]
    return base64.b32encode(digest).decode().rstrip("=").lower()


def _validated(value: object, check: ValidatorFunctionWrapHandler) -> Event:
    return value if isinstance(value, Event) else check(value)


def _restored(value: object, _: ValidatorFunctionWrapHandler) -> Event:
    return value if isinstance(value, Event) else Event.model_validate(value, context=TRUSTED)


#: Fields for an event that a publisher sent, which is validated, and for one that was validated before. An Event instance is
#: not validated again when it becomes a field of another model.
Received = Annotated[Event, WrapValidator(_validated)]
Checked = Annotated[Event, WrapValidator(_restored)]
