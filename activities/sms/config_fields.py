"""Fields that the sections of the operator's file of SMS providers share."""

import re
from collections.abc import Mapping
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr

from activities.sms.templating import placeholders_in
from activities.sms.twilio import TWILIO
from bellwire.formats.hosts import canonical_host
from bellwire.formats.web_urls import with_canonical_host

#: Prefix of the environment variables that may hold secrets of providers.
SECRETS = "BELLWIRE_SMS_SECRETS__"

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")


def _name(value: str) -> str:
    if not _NAME.fullmatch(value) or value == TWILIO:
        raise ValueError(f"must be up to 32 lower-case letters, digits or dashes, and not {TWILIO}")
    return value


def _url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"https", "http"} or not parts.hostname:
        raise ValueError("must be an http or https URL with a host")
    if placeholders_in(parts.netloc):
        raise ValueError("must have a host without placeholders, or a subscription could choose it")
    canonical_host(parts.hostname)
    return with_canonical_host(value)


def _secret(value: str) -> str:
    if not re.fullmatch(SECRETS + "[A-Z0-9_]+", value):
        raise ValueError(f"must name an environment variable that begins with {SECRETS}")
    return value


ProviderName = Annotated[str, AfterValidator(_name)]
Url = Annotated[str, Field(max_length=2048), AfterValidator(_url)]
#: The name of the environment variable that holds a secret.
SecretName = Annotated[str, AfterValidator(_secret)]


def secret_of(provider: str, variable: str, secrets: Mapping[str, SecretStr]) -> str:
    """The secret in an environment variable. Raises ValueError if it is not set, or not printable ASCII."""
    found = secrets.get(variable.removeprefix(SECRETS).lower())
    if found is None or not (secret := found.get_secret_value()):
        raise ValueError(f"{variable}: is not set, but provider {provider} in BELLWIRE_SMS_PROVIDERS needs it")
    if not (secret.isascii() and secret.isprintable()):
        raise ValueError(f"{variable}: must be printable ASCII")
    return secret
