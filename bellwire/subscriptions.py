"""Subscription: a tenant's standing wish for events, and the target that receives them."""

import re
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    FieldSerializationInfo,
    SecretStr,
    Tag,
    ValidationInfo,
    field_serializer,
    model_validator,
)

from bellwire.events import Event, TenantName, uuid7
from bellwire.filters import Filter, TypePattern, matches, type_matches
from bellwire.keys import certificates
from bellwire.models import TRUSTED, StrictInput, skip_when_trusted
from bellwire.targets import headers

#: Most recipients of one email subscription; a list server is the better target beyond that.
MAX_RECIPIENTS = 20

#: Most segments that one SMS can have; the header that joins them counts in one byte.
MAX_SEGMENTS = 255

_EMAIL = re.compile(r"[^\s@<>()\[\],;:\\\"\x00-\x1f\x7f]{1,64}@[^\s@<>()\[\],;:\\\"\x00-\x1f\x7f_/?#%]{1,253}")
_E164 = re.compile(r"\+[1-9]\d{6,14}")
#: A number, a short code, a messaging service of Twilio's, or a name of at most 11 places with a letter in it.
_SMS_SENDER = re.compile(
    r"\+[1-9]\d{6,14}|\d{3,8}|MG[0-9a-f]{32}|(?=.*[A-Za-z])[A-Za-z0-9](?:[A-Za-z0-9 &_+-]{0,9}[A-Za-z0-9])?"
)
_SUBSCRIPTION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_TEMPLATE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*")
_LOCALE = re.compile(r"[A-Za-z]{2,3}(?:-[A-Za-z0-9]{2,8})*")


class Channel(StrEnum):
    """A way to deliver."""

    EMAIL = "email"
    SMS = "sms"
    WEBHOOK = "webhook"


class SubscriptionState(StrEnum):
    #: Events are matched and delivered.
    ACTIVE = "active"
    #: The tenant asked for silence; events that come meanwhile are not delivered later.
    PAUSED = "paused"
    #: Bellwire stopped it, because the target is gone or has failed for too long; `state_reason` says why.
    DISABLED = "disabled"


#: What tenants can write themselves, for each channel: names of parts, each with Jinja2 source.
PARTS: Mapping[Channel, tuple[str, ...]] = MappingProxyType(
    {
        Channel.EMAIL: ("email.subject", "email.text", "email.html"),
        Channel.SMS: ("sms.text",),
        Channel.WEBHOOK: ("webhook.json",),
    }
)
#: Largest size of a subscription's parts together, in bytes of UTF-8.
MAX_PARTS_BYTES = 64 * 1024


def _email(value: str) -> str:
    local, _, domain = value.rpartition("@")
    bad_dots = (
        local.startswith(".")
        or local.endswith(".")
        or ".." in value
        or domain.startswith((".", "-"))
        or domain.endswith("-")
    )
    if not _EMAIL.fullmatch(value) or bad_dots or not value.isprintable():
        raise ValueError("is not an email address; give the bare address, such as ann@example.com")
    return value


def _e164(value: str) -> str:
    if not _E164.fullmatch(value):
        raise ValueError("is not an E.164 number; write + and the country code, digits only, such as +14155550123")
    return value


def sms_sender(value: str) -> str:
    """The sender of an SMS, if it can be one. Raises ValueError."""
    if not _SMS_SENDER.fullmatch(value):
        raise ValueError(
            "is not a sender, which is a number (+14155550100), a short code (24555), a messaging service (MG and 32 digits) "
            "or a name of up to 11 letters and digits (Acme Shop)"
        )
    return value


def _web_url(value: str) -> str:
    if not value.isprintable() or " " in value or "\\" in value:
        raise ValueError("holds white space, a control character or a backslash; percent-encode them")
    try:
        parts = urlsplit(value)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"is not a URL: {error}") from error
    if parts.scheme not in {"https", "http"} or not host:
        raise ValueError("must be an https URL with a host, such as https://app.example/hooks")
    if port == 0:
        raise ValueError("has port 0, where nobody can listen; leave it out, or name another")
    if "@" in parts.netloc:
        raise ValueError(
            "holds credentials; webhooks are authenticated by their signature, leave user and password out"
        )
    if parts.fragment:
        raise ValueError("has a fragment (#...), which is never sent; leave it out")
    return value


def _certificate(value: SecretStr) -> SecretStr:
    certificates.checked(value.get_secret_value())
    return value


def _headers(value: dict[str, SecretStr]) -> dict[str, SecretStr]:
    headers.checked({name: secret.get_secret_value() for name, secret in value.items()})
    return value


EmailAddress = Annotated[str, Field(max_length=254), skip_when_trusted(_email)]


class EmailTarget(StrictInput):
    channel: Literal[Channel.EMAIL] = Channel.EMAIL
    #: One address, or several that get the same mail, each in an envelope of its own.
    to: Annotated[
        Annotated[EmailAddress, Tag("one")]
        | Annotated[tuple[EmailAddress, ...], Field(min_length=1, max_length=MAX_RECIPIENTS), Tag("several")],
        Discriminator(
            lambda value: "one" if isinstance(value, str) else "several" if isinstance(value, list | tuple) else None,
            custom_error_type="address",
            custom_error_message="must be an address, such as ann@example.com, or a list of them",
        ),
    ]
    #: Send the files along that an event names in `data.attachments`: [{"url", "name"?, "type"?}], up to 10 and 15 MB.
    attachments: bool = False

    @property
    def recipients(self) -> tuple[str, ...]:
        """The addresses, each once, in the order given."""
        return (self.to,) if isinstance(self.to, str) else tuple(dict.fromkeys(self.to))


class SmsTarget(StrictInput):
    channel: Literal[Channel.SMS] = Channel.SMS
    #: An E.164 number: +14155550123.
    to: Annotated[str, skip_when_trusted(_e164)]
    #: Who sends it: a number, short code, name or messaging service (MG…) of the operator's; None: the operator's choice.
    sender: Annotated[str, skip_when_trusted(sms_sender)] | None = None
    #: Most segments of one SMS; a longer text is rejected before it is sent. None: the operator's limit.
    max_segments: Annotated[int, Field(ge=1, le=MAX_SEGMENTS)] | None = None


class WebhookFormat(StrEnum):
    """How the request says what happened."""

    #: CloudEvents in structured mode: the whole event as one JSON object.
    CLOUDEVENTS = "cloudevents"
    #: CloudEvents in binary mode: the data as body, the attributes as ce-* headers.
    CLOUDEVENTS_BINARY = "cloudevents-binary"
    #: What Standard Webhooks advises: an object of type, timestamp and data.
    STANDARD = "standard"
    #: JSON from webhook.json of the subscription's template, or of the one named like the event type.
    TEMPLATE = "template"


class WebhookTarget(StrictInput):
    """Values of headers and the certificate are shown as stars, in JSON too; only what is stored holds them."""

    channel: Literal[Channel.WEBHOOK] = Channel.WEBHOOK
    #: https; http only where the settings allow it (BELLWIRE_WEBHOOK_ALLOW_HTTP).
    url: Annotated[str, Field(max_length=2048), skip_when_trusted(_web_url)]
    #: Ask the URL for its consent before the first POST (CloudEvents web hooks, "Abuse protection").
    handshake: bool = False
    format: WebhookFormat = WebhookFormat.CLOUDEVENTS
    #: Headers to add, at most 20, such as authorization. Not those that Bellwire or HTTP sets.
    headers: Annotated[dict[str, SecretStr], skip_when_trusted(_headers)] = Field(default_factory=dict)
    #: Seconds for one request, 1 to 30; BELLWIRE_WEBHOOK_TIMEOUT if left out.
    timeout: Annotated[float, Field(ge=1, le=30)] | None = None
    #: PEM of a certificate and its private key, shown to a receiver that asks for one (mutual TLS).
    client_certificate: Annotated[SecretStr, Field(max_length=65_536), skip_when_trusted(_certificate)] | None = None

    @field_serializer("headers", "client_certificate", when_used="json")
    def _hidden_unless_stored(self, value: Any, info: FieldSerializationInfo) -> Any:
        """The secrets themselves only with context STORED; stars for everybody else."""
        if isinstance(value, dict):
            return {name: _told(secret, info) for name, secret in value.items()}
        return None if value is None else _told(value, info)

    @model_validator(mode="after")
    def _check_certificate(self, info: ValidationInfo) -> Self:
        if info.context != TRUSTED and self.client_certificate and not self.url.lower().startswith("https:"):
            raise ValueError(
                "client_certificate: needs an https URL, since http shows none; leave it out, or use https"
            )
        return self


def _told(secret: SecretStr, info: FieldSerializationInfo) -> str:
    return secret.get_secret_value() if info.context == TRUSTED else headers.HIDDEN


Target = Annotated[EmailTarget | SmsTarget | WebhookTarget, Field(discriminator="channel")]


def _parts(parts: dict[str, str], info: ValidationInfo) -> dict[str, str]:
    if info.context == TRUSTED:
        return parts
    target = info.data.get("target")  # is missing if it is wrong itself
    fitting = PARTS[target.channel] if target else parts
    for part in parts:
        if part not in fitting:
            raise ValueError(f"{part[:40]!r} does not fit the target; write {' or '.join(fitting)}")
    try:
        size = sum(len(source.encode()) for source in parts.values())
    except UnicodeEncodeError as error:
        raise ValueError("hold half a character (a lone surrogate), which has no UTF-8") from error
    if size > MAX_PARTS_BYTES:
        raise ValueError(f"have {size:,} bytes together, the limit is {MAX_PARTS_BYTES:,}; shorten them")
    return parts


def _matching(pattern: re.Pattern[str], remedy: str) -> AfterValidator:
    def check(value: str) -> str:
        if not pattern.fullmatch(value):
            raise ValueError(remedy)
        return value

    return AfterValidator(check)


SubscriptionId = Annotated[
    str,
    _matching(_SUBSCRIPTION_ID, "must be 1 to 63 letters, digits, dashes or underscores, the first a letter or digit"),
]
#: Lowest and highest rate limit, in deliveries per second: one in 17 minutes, and more than any one receiver takes.
RATE_BOUNDS = (0.001, 10_000.0)
#: Seconds to wait before the second, third, … attempt. Up to 50 waits of at most 7 days.
RetrySchedule = Annotated[tuple[Annotated[float, Field(gt=0, le=7 * 86400)], ...], Field(max_length=50)]


class Subscription(StrictInput):
    """A tenant's standing wish: which events, and where to. Raises pydantic's ValidationError, which names each bad field."""

    #: Unique over all tenants; part of each delivery's id. A UUIDv7 if left out.
    id: SubscriptionId = Field(default_factory=lambda: f"sub_{uuid7().hex}")
    tenant: TenantName
    #: Events of a type that matches any of these are wanted.
    types: Annotated[tuple[TypePattern, ...], Field(min_length=1, max_length=100)]
    #: All of them must match as well.
    filters: Annotated[tuple[Filter, ...], Field(max_length=100)] = ()
    target: Target
    #: The template to render instead of the one named like the event type. Webhooks carry the event itself.
    template: (
        Annotated[str, Field(max_length=100), _matching(_TEMPLATE, "must be dotted words, such as order.paid")] | None
    ) = None
    #: Templates that the tenant wrote, by part: email.subject, email.text, email.html; sms.text; webhook.json. They win over
    #: the operator's; a part that is left out comes from those. What is wrong in them is found by `subscribe`.
    templates: Annotated[dict[str, str], Field(min_length=1), AfterValidator(_parts)] | None = None
    #: BCP 47 language of the text: en, zh-CN.
    locale: Annotated[str, _matching(_LOCALE, "must be a BCP 47 language tag, such as en or zh-CN")] = "en"
    #: Seconds to wait before each further attempt; the channel's default schedule, if left out. Empty: one attempt only.
    retry_schedule: RetrySchedule | None = None
    #: Most deliveries per second; what comes faster waits its turn. None: no limit.
    rate_limit: Annotated[float, Field(ge=RATE_BOUNDS[0], le=RATE_BOUNDS[1])] | None = None
    state: SubscriptionState = SubscriptionState.ACTIVE
    #: Why it is paused or disabled; None while active.
    state_reason: str | None = None

    @property
    def channel(self) -> Channel:
        return self.target.channel

    def wants(self, event: Event) -> bool:
        """Whether the event is to be delivered: right tenant, active, a type pattern and all filters match."""
        return (
            self.state is SubscriptionState.ACTIVE
            and event.tenant in {None, self.tenant}
            and any(type_matches(pattern, event.type) for pattern in self.types)
            and matches(self.filters, event)
        )
