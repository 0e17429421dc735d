"""Webhook targets: the URL of an endpoint, and how requests to it are made."""

from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, ValidationInfo, model_validator

from bellwire.formats.web_urls import parse_web_url
from bellwire.keys import certificates
from bellwire.models import TRUSTED, skip_when_trusted
from bellwire.targets import headers
from bellwire.targets.channel import Channel, ChannelSpec, ChannelTarget
from bellwire.targets.stored_secret import StoredSecret


def _web_url(value: str) -> str:
    parts = parse_web_url(value, example="https://app.example/hooks")
    if "@" in parts.netloc:
        raise ValueError("contains credentials; webhooks are authenticated by signatures, leave user and password out")
    if parts.fragment:
        raise ValueError("has a fragment (#...), which is never sent; leave it out")
    return value


def _certificate(value: SecretStr) -> SecretStr:
    certificates.checked(value.get_secret_value())
    return value


def _headers(value: dict[str, SecretStr]) -> dict[str, SecretStr]:
    headers.checked({name: secret.get_secret_value() for name, secret in value.items()})
    return value


class WebhookFormat(StrEnum):
    """The format of a webhook's body."""

    #: CloudEvents in structured mode: the whole event as one JSON object.
    CLOUDEVENTS = "cloudevents"
    #: CloudEvents in binary mode: the data as body, the attributes as ce-* headers.
    CLOUDEVENTS_BINARY = "cloudevents-binary"
    #: The payload that Standard Webhooks recommends: an object of type, timestamp and data.
    STANDARD = "standard"
    #: JSON from the template webhook.json of the subscription or of the event type.
    TEMPLATE = "template"


class WebhookTarget(ChannelTarget):
    """The endpoint of a webhook. Headers and the client certificate are private: JSON shows stars instead."""

    channel: Literal[Channel.WEBHOOK] = Channel.WEBHOOK
    #: https; http only where the settings allow it (BELLWIRE_WEBHOOK_ALLOW_HTTP).
    url: Annotated[str, Field(max_length=2048), skip_when_trusted(_web_url)]
    #: Ask the endpoint for its consent before the first POST (CloudEvents web hooks, "Abuse protection").
    handshake: bool = False
    format: WebhookFormat = WebhookFormat.CLOUDEVENTS
    #: Headers to add, up to 20, such as authorization. Not those that Bellwire or HTTP sets.
    headers: Annotated[dict[str, StoredSecret], skip_when_trusted(_headers)] = Field(default_factory=dict)
    #: Seconds for one request, 1 to 30; BELLWIRE_WEBHOOK_TIMEOUT if left out.
    timeout: Annotated[float, Field(ge=1, le=30)] | None = None
    #: A certificate and its private key in PEM, for endpoints that ask for one (mutual TLS).
    client_certificate: Annotated[StoredSecret, Field(max_length=65_536), skip_when_trusted(_certificate)] | None = None

    @property
    def address(self) -> str:
        return self.url

    @property
    def is_rendered(self) -> bool:
        return self.format is WebhookFormat.TEMPLATE

    @property
    def needs_consent(self) -> bool:
        return self.handshake

    @model_validator(mode="after")
    def _check_certificate(self, info: ValidationInfo) -> Self:
        if info.context != TRUSTED and self.client_certificate and not self.url.lower().startswith("https:"):
            raise ValueError("client_certificate: needs an https URL; use https, or leave it out")
        return self


WEBHOOK = ChannelSpec(
    channel=Channel.WEBHOOK,
    example=WebhookTarget(url="https://app.example/hooks"),
    templates=MappingProxyType({"webhook.json": "webhook.json"}),
    # 10 attempts over 75 h 35 min: the example schedule of Standard Webhooks 1.0.
    schedule=(5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0),
    inline=True,
    signed=True,
)
