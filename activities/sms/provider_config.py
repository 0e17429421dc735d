"""Descriptions of SMS providers that have no client of their own: a file of the operator's, TOML or JSON.

docs/how-to/add-an-sms-provider.md has an example. A file names the environment variables that hold its secrets, and
can name no others.
"""

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import quote, urlsplit

from pydantic import AfterValidator, Field, ValidationError, model_validator

from activities.sms.providers import Provider
from activities.sms.twilio import TWILIO
from bellwire.errors import fields_in_error
from bellwire.models import StrictInput
from bellwire.targets.sms import sms_sender

#: What placeholders stand for: {to}, {text}, {sender}, {reference} (a key of 32 characters), {delivery} (its id).
PLACEHOLDERS = frozenset({"to", "text", "sender", "reference", "delivery"})
#: The environment variables that may hold secrets of providers begin with this.
SECRETS = "BELLWIRE_SMS_SECRETS__"

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")


def _name(value: str) -> str:
    if not _NAME.fullmatch(value) or value == TWILIO:
        raise ValueError(f"must be up to 32 small letters, digits or dashes, and not {TWILIO}")
    return value


def _url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"https", "http"} or not parts.hostname:
        raise ValueError("must be an http or https URL with a host")
    if _PLACEHOLDER.search(parts.netloc):
        raise ValueError("must name its host without placeholders, or a subscription could choose it")
    return value


def _pointer(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError("must be a JSON pointer (RFC 6901), such as /message/id")
    return value


def _header(value: str) -> str:
    if not _TOKEN.fullmatch(value):
        raise ValueError("must be the name of a header, such as X-Api-Key")
    return value


def _secret(value: str) -> str:
    if not re.fullmatch(SECRETS + "[A-Z0-9_]+", value):
        raise ValueError(f"must name an environment variable that begins with {SECRETS}")
    return value


Pointer = Annotated[str, AfterValidator(_pointer)]
Url = Annotated[str, Field(max_length=2048), AfterValidator(_url)]
Header = Annotated[str, AfterValidator(_header)]
Statuses = frozenset[Annotated[int, Field(ge=100, le=599)]]


class Auth(StrictInput):
    kind: Literal["basic", "bearer", "header"]
    #: The environment variable that holds the password, the token or the header's value.
    secret: Annotated[str, AfterValidator(_secret)]
    #: Of basic.
    username: str | None = None
    #: The header that carries the secret, of header.
    header: Header | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.kind == "basic") != (self.username is not None):
            raise ValueError("username: basic needs one, the others none")
        if (self.kind == "header") != (self.header is not None):
            raise ValueError("header: header needs one, the others none")
        return self


class Body(StrictInput):
    format: Literal["json", "form"] = "json"
    #: What is sent. Texts in it may hold placeholders; a form has no values but texts.
    fields: dict[str, Any]

    @model_validator(mode="after")
    def _flat_form(self) -> Self:
        if self.format == "form" and not all(isinstance(value, str) for value in self.fields.values()):
            raise ValueError("fields: the values of a form must be texts")
        return self


class Answers(StrictInput):
    """How answers are understood: by status, then by what they hold."""

    #: Statuses that mean accepted, rejected for good, to be tried again, and that nobody knows.
    accepted: Statuses = frozenset(range(200, 300))
    rejected: Statuses = frozenset()
    retry: Statuses = frozenset({408, 409, 425})
    unknown: Statuses = frozenset({502, 504})
    #: Where an accepted answer has the provider's id of the SMS.
    id: Pointer
    #: Where an answer with an accepted status says what it really means, and which of its words mean what.
    result: Pointer | None = None
    accepted_results: frozenset[str] = frozenset()
    rejected_results: frozenset[str] = frozenset()
    retry_results: frozenset[str] = frozenset()
    #: Where a refusal has its code, and the codes that say that the number is gone, or its owner wants no more.
    code: Pointer | None = None
    dead: frozenset[str] = frozenset()
    unsubscribed: frozenset[str] = frozenset()


class LookUp(StrictInput):
    """How the provider is asked, by GET, whether it has got an SMS."""

    url: Url
    #: Where the answer has the provider's id of the SMS; nothing there, in an answer of 200: it has not got it.
    id: Pointer
    #: Other statuses that mean that it has not got it. 404 is not among them by itself: a wrong URL answers so too.
    absent: Statuses = frozenset()

    @model_validator(mode="after")
    def _specific(self) -> Self:
        if not {"reference", "delivery"} & set(_PLACEHOLDER.findall(self.url)):
            raise ValueError("url: must hold {reference} or {delivery}, or it would find other SMS")
        return self


class Description(StrictInput):
    """One provider."""

    name: Annotated[str, AfterValidator(_name)]
    url: Url
    method: Literal["POST", "PUT"] = "POST"
    #: Seconds for one call.
    timeout: float = Field(default=15, ge=0.1, le=60)
    sender: Annotated[str, AfterValidator(sms_sender)] | None = None
    auth: Auth | None = None
    headers: dict[Header, str] = Field(default_factory=dict)
    #: The header for a key under which the provider does once what it is told twice.
    idempotency_header: Header | None = None
    body: Body
    answer: Answers
    lookup: LookUp | None = None

    @model_validator(mode="after")
    def _placeholders(self) -> Self:
        used = set(_PLACEHOLDER.findall(json.dumps([self.url, self.body.fields, list(self.headers.values())])))
        used |= set(_PLACEHOLDER.findall(self.lookup.url)) if self.lookup else set()
        if unknown := used - PLACEHOLDERS:
            raise ValueError(
                f"{{{min(unknown)}}}: is no placeholder; those there are: {', '.join(sorted(PLACEHOLDERS))}"
            )
        if missing := {"to", "text"} - used:
            raise ValueError(f"body: {{{min(missing)}}} must be in it")
        if set(_PLACEHOLDER.findall(json.dumps(list(self.headers.values())))) - {"reference", "delivery"}:
            raise ValueError("headers: may hold {reference} and {delivery} only, which fit into a header")
        if "sender" in used and self.sender is None:
            raise ValueError("sender: {sender} is used, so give one for subscriptions that name none")
        return self


class ProviderConfigs(StrictInput):
    """A file of them."""

    #: Names, the first asked first, twilio among them if it is configured.
    priority: tuple[str, ...] = ()
    provider: tuple[Description, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names(self) -> Self:
        names = [each.name for each in self.provider]
        if len(set(names)) < len(names):
            raise ValueError("provider: two have the same name")
        if self.priority and sorted(set(self.priority) - {TWILIO}) != sorted(names):
            raise ValueError(f"priority: must name each of {', '.join(names)}, and {TWILIO} if it is to be asked")
        return self

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises ValueError, which names each bad field."""
        named = f"BELLWIRE_SMS_PROVIDERS: {path}"
        try:
            text = path.read_text(encoding="utf-8")
            return cls.model_validate(json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text))
        except OSError as error:
            raise ValueError(f"{named}: cannot be read: {error.strerror or error}") from error
        except ValidationError as error:
            raise ValueError(f"{named}: {fields_in_error(error)}") from error
        except ValueError as error:
            raise ValueError(f"{named}: {error}") from error

    def in_order(self, providers: Sequence[Provider]) -> list[Provider]:
        """Those to be asked, the first first."""
        if not self.priority:
            return list(providers)
        known = {each.name: each for each in providers}
        return [known[name] for name in self.priority if name in known]


def filled(template: Any, values: Mapping[str, str], *, encoded: bool = False) -> Any:
    """The template with what its placeholders stand for, in every text of it; `encoded` for a part of a URL."""
    match template:
        case str():
            return _PLACEHOLDER.sub(
                lambda found: quote(values[found[1]], safe="") if encoded else values[found[1]], template
            )
        case dict():
            return {key: filled(value, values) for key, value in template.items()}
        case list() | tuple():
            return [filled(value, values) for value in template]
        case _:
            return template


def at(document: Any, pointer: str) -> Any:
    """What is at this place of a JSON document (RFC 6901); None if nothing is."""
    for step in pointer.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(document, dict):
            document = document.get(name)
        elif isinstance(document, list) and name.isdecimal() and int(name) < len(document):
            document = document[int(name)]
        else:
            return None
    return document
