"""ProviderConfig: configuration of an SMS provider that is called over HTTP, from a TOML or JSON file of the operator.

docs/how-to/add-an-sms-provider.md has an example. The file names the environment variables that hold its secrets. It can
name only variables with the prefix BELLWIRE_SMS_SECRETS__.
"""

import json
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from activities.providers.config_files import read_config
from activities.sms.config_fields import ProviderName, SecretName, Url
from activities.sms.mainland.config import AliyunConfig, TencentConfig
from activities.sms.providers import Provider
from activities.sms.templating import PLACEHOLDERS, placeholders_in
from activities.sms.twilio import TWILIO
from bellwire.models import StrictInput
from bellwire.targets.sms import sms_sender

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")


def _pointer(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError("must be a JSON pointer (RFC 6901), such as /message/id")
    return value


def _header(value: str) -> str:
    if not _TOKEN.fullmatch(value):
        raise ValueError("must be the name of a header, such as X-Api-Key")
    return value


Pointer = Annotated[str, AfterValidator(_pointer)]
Header = Annotated[str, AfterValidator(_header)]
Statuses = frozenset[Annotated[int, Field(ge=100, le=599)]]


class Auth(StrictInput):
    """How requests are authenticated."""

    kind: Literal["basic", "bearer", "header"]
    #: The environment variable that holds the password, the token or the header's value.
    secret: SecretName
    #: Only for basic.
    username: str | None = None
    #: The name of the header that contains the secret. Only for header.
    header: Header | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.kind == "basic") != (self.username is not None):
            raise ValueError("username: required for basic, not allowed otherwise")
        if (self.kind == "header") != (self.header is not None):
            raise ValueError("header: required for header, not allowed otherwise")
        return self


class Body(StrictInput):
    """The body of a request."""

    format: Literal["json", "form"] = "json"
    #: Texts in it may contain placeholders. The values of a form must be texts.
    fields: dict[str, Any]

    @model_validator(mode="after")
    def _flat_form(self) -> Self:
        if self.format == "form" and not all(isinstance(value, str) for value in self.fields.values()):
            raise ValueError("fields: the values of a form must be texts")
        return self


class ResponseRules(StrictInput):
    """How responses are classified: by status, then by their content."""

    #: Statuses that mean: accepted, permanently rejected, try again, and unknown whether accepted.
    accepted: Statuses = frozenset(range(200, 300))
    rejected: Statuses = frozenset()
    retry: Statuses = frozenset({408, 409, 425})
    unknown: Statuses = frozenset({502, 504})
    #: Where an accepted response has the provider's id of the SMS.
    id: Pointer
    #: Where a response with an accepted status has the actual result, and the values that mean accepted, rejected and retry.
    result: Pointer | None = None
    accepted_results: frozenset[str] = frozenset()
    rejected_results: frozenset[str] = frozenset()
    retry_results: frozenset[str] = frozenset()
    #: Where a refusal has its error code, and the codes for a number that does not exist, and for an unsubscribed one.
    code: Pointer | None = None
    gone: frozenset[str] = frozenset()
    unsubscribed: frozenset[str] = frozenset()


class Lookup(StrictInput):
    """How to ask the provider, by GET, whether it has an SMS."""

    url: Url
    #: Where the response has the provider's id of the SMS. A response of 200 without it means that the provider has none.
    id: Pointer
    #: Other statuses that mean that the provider does not have it. Not 404 by default, since a wrong URL returns it too.
    absent: Statuses = frozenset()

    @model_validator(mode="after")
    def _specific(self) -> Self:
        if not {"idempotency_key", "delivery"} & placeholders_in(self.url):
            raise ValueError("url: must contain {idempotency_key} or {delivery}, or it would find other SMS")
        return self


class ProviderConfig(StrictInput):
    """One provider."""

    name: ProviderName
    url: Url
    method: Literal["POST", "PUT"] = "POST"
    #: Seconds for one call.
    timeout: float = Field(default=15, ge=0.1, le=60)
    sender: Annotated[str, AfterValidator(sms_sender)] | None = None
    auth: Auth | None = None
    headers: dict[Header, str] = Field(default_factory=dict)
    #: The header for the idempotency key, if the provider deduplicates on one.
    idempotency_header: Header | None = None
    body: Body
    response: ResponseRules
    lookup: Lookup | None = None

    @model_validator(mode="after")
    def _placeholders(self) -> Self:
        used = placeholders_in(json.dumps([self.url, self.body.fields, list(self.headers.values())]))
        used |= placeholders_in(self.lookup.url) if self.lookup else set()
        if unknown := used - PLACEHOLDERS:
            raise ValueError(
                f"{{{min(unknown)}}}: is not a valid placeholder; use one of {', '.join(sorted(PLACEHOLDERS))}"
            )
        if missing := {"to", "text"} - used:
            raise ValueError(f"body: must contain {{{min(missing)}}}")
        if placeholders_in(json.dumps(list(self.headers.values()))) - {"idempotency_key", "delivery"}:
            raise ValueError("headers: may contain {idempotency_key} and {delivery} only, which are valid in a header")
        if "sender" in used and self.sender is None:
            raise ValueError("sender: required, since {sender} is used and subscriptions may name none")
        return self


class ProvidersFile(StrictInput):
    """The configuration file: all providers and their order."""

    #: Names in the order in which they are tried, including twilio if it is configured.
    priority: tuple[str, ...] = ()
    provider: tuple[ProviderConfig, ...] = ()
    #: Accounts with Aliyun and Tencent Cloud.
    aliyun: tuple[AliyunConfig, ...] = ()
    tencent: tuple[TencentConfig, ...] = ()

    @model_validator(mode="after")
    def _names(self) -> Self:
        names = [each.name for each in self.provider]
        names += [each.name for each in self.aliyun] + [each.name for each in self.tencent]
        if not names:
            raise ValueError("provider: required, unless there is a section aliyun or tencent")
        if len(set(names)) < len(names):
            raise ValueError("provider: two have the same name")
        if self.priority and sorted(set(self.priority) - {TWILIO}) != sorted(names):
            raise ValueError(f"priority: must name each of {', '.join(names)}, and {TWILIO} if it is used")
        return self

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the file. Raises ValueError, which names each invalid field."""
        load = json.loads if path.suffix.lower() == ".json" else tomllib.loads
        return read_config(
            "BELLWIRE_SMS_PROVIDERS", path, lambda text: cls.model_validate(load(text)), known=cls.known_fields
        )

    def in_order(self, providers: Sequence[Provider]) -> list[Provider]:
        """The providers in order of priority. Those that `priority` does not name are left out, unless it is empty."""
        if not self.priority:
            return list(providers)
        known = {each.name: each for each in providers}
        return [known[name] for name in self.priority if name in known]
