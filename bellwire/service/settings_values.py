"""Settings values: checks of single BELLWIRE_* variables. They return the value, or raise ValueError with a remedy."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from bellwire.email.relay_urls import parse_relays
from bellwire.email.unsubscribe_links import LinkKeys
from bellwire.formats.hosts import canonical_host
from bellwire.formats.mailboxes import parse_sender
from bellwire.formats.web_urls import parse_web_url, with_canonical_host
from bellwire.keys.keyring import KeyRing
from bellwire.registry.db.engine import database_url

#: Minimum length of a token; shorter ones could be guessed.
MIN_TOKEN_LENGTH = 20

_TOKEN = re.compile(rf"[!-~]{{{MIN_TOKEN_LENGTH},}}")
_DOMAIN = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def registry_url(value: str) -> str:
    return database_url(value).render_as_string(hide_password=False)


def outbox_url(value: str) -> str:
    """The URL without the driver that the service uses."""
    if found := re.fullmatch(
        r"(?:postgres(?:ql)?(?:\+\w+)?(://.+)|sqlite(?:\+\w+)?(:///[^?]+))", value, flags=re.DOTALL
    ):
        postgres, sqlite = found.groups()
        if postgres:
            return f"postgresql{postgres}"
        if sqlite != ":///:memory:":
            return f"sqlite{sqlite}"
    raise ValueError("must be sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME, such as sqlite:///shop.db")


def host_and_port(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError("must be host:port, such as 127.0.0.1:9464")
    return value


def sender(value: str) -> str:
    try:
        address = parse_sender(value).address if value.isprintable() else ""
    except ValueError:
        address = ""
    if not (address and address.isascii()):
        raise ValueError(
            "must be an address, such as Bellwire <notifications@example.com>, in ASCII before the @, and no list or group"
        )
    return value


def sender_domain(value: str) -> str:
    """The domain of a valid sender, in its canonical form."""
    return parse_sender(value).address.rpartition("@")[2]


def relays(value: object) -> object:
    return parse_relays(value) if isinstance(value, str) else value


def host(value: str) -> str:
    return canonical_host(value)


def domain(value: str) -> str:
    try:
        name = canonical_host(value)
    except ValueError:
        name = ""
    if not _DOMAIN.fullmatch(name):
        raise ValueError("must be a domain name, such as notifications.example.com")
    return name


def folder(value: Path) -> Path:
    if not value.is_dir():
        raise ValueError(f"{value} is not a folder, correct the path")
    return value


def file(value: Path) -> Path:
    if not value.is_file():
        raise ValueError(f"{value} is not a file, correct the path")
    return value


def keys(value: SecretStr) -> SecretStr:
    KeyRing.parse(value.get_secret_value())
    return value


def tokens(value: SecretStr) -> SecretStr:
    if not all(_TOKEN.fullmatch(token) for token in split(value.get_secret_value())):
        raise ValueError(f"must be tokens of at least {MIN_TOKEN_LENGTH} ASCII characters, separated by commas")
    return value


def split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def http_url(value: str) -> str:
    parse_web_url(value, example="https://api.twilio.com")
    return with_canonical_host(value)


def origin(value: str) -> str:
    if not re.fullmatch(r"https?://[^/?#\s@*]+", value):
        raise ValueError("must be a scheme and host, optionally with a port, such as https://temporal.example")
    return value.lower()


def proxy_url(value: str) -> str:
    try:
        parts = parse_web_url(value, example="http://smokescreen.internal:4750")
    except ValueError:
        parts = None
    # Letters, digits, dots, colons and brackets: no login, no path, and nothing that two parsers could read differently.
    if parts is None or not parts.port or not re.fullmatch(r"http://[A-Za-z0-9._:\[\]-]+/?", value):
        raise ValueError("must be http://host:port without login or path, such as http://smokescreen.internal:4750")
    return value


def public_url(value: str) -> str:
    # It is sent in a header between angle brackets, and RFC 8058 requires https.
    if not re.fullmatch(r"https://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?", value) or len(value) > 200:
        raise ValueError("must be an https URL without query, such as https://bellwire.example.com")
    return value.rstrip("/")


def link_keys(value: SecretStr) -> SecretStr:
    LinkKeys(value.get_secret_value())
    return value


def url_secret(value: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[A-Za-z0-9_-]{16,128}", value.get_secret_value()):
        raise ValueError("must be 16 to 128 letters, digits, - or _, such as those of `openssl rand -hex 24`")
    return value


def dns_name(value: str) -> str:
    value = value if value.isascii() else canonical_host(value)
    if not re.fullmatch(
        r"(?=.{1,253}$)([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?",
        value,
    ):
        raise ValueError("must be a DNS name in ASCII, such as example.com or bellwire1")
    return value.lower()


HostAndPort = Annotated[str, AfterValidator(host_and_port)]
Origin = Annotated[str, AfterValidator(origin)]
Port = Annotated[int, Field(ge=1, le=65535)]


def or_none(rate: float) -> float | None:
    """A rate limit; None for 0."""
    return rate or None
