"""Relay: a mail server that accepts outgoing mail. Operators configure relays as URLs."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError

from bellwire.errors import fields_in_error
from bellwire.formats.hosts import canonical_host


class SmtpSecurity(StrEnum):
    NONE = "none"
    STARTTLS = "starttls"
    TLS = "tls"


#: The security and the default port of each scheme.
_SCHEMES = {
    "smtp": (SmtpSecurity.NONE, 25),
    "smtp+starttls": (SmtpSecurity.STARTTLS, 587),
    "smtps": (SmtpSecurity.TLS, 465),
}
_OPTIONS = ("priority", "connections", "verify")
#: Relays of one deployment. An attempt may try each of them, which takes too long with more.
MAX_RELAYS = 20


class Relay(BaseModel):
    """One relay. Raises pydantic's ValidationError."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    host: Annotated[str, AfterValidator(canonical_host)]
    port: int = Field(ge=1, le=65535)
    security: SmtpSecurity = SmtpSecurity.NONE
    username: str | None = None
    password: SecretStr | None = None
    #: Whether to verify its certificate.
    verify: bool = True
    #: The lowest priority is used first, as with MX records. Relays of equal priority share the load.
    priority: int = Field(default=10, ge=0, le=65535)
    #: Maximum connections of one process; None: BELLWIRE_SMTP_CONNECTIONS.
    connections: int | None = Field(default=None, ge=1, le=200)

    @property
    def name(self) -> str:
        """Its name in logs and metrics."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_relays(text: str) -> tuple[Relay, ...]:
    """Parse a comma-separated list of URLs, such as smtp+starttls://user:password@mail.example.com?priority=10.

    Raises ValueError, which names the entry by its number and never shows it, since it may contain a password.
    """
    entries = [entry.strip() for entry in text.split(",") if entry.strip()]
    if len(entries) > MAX_RELAYS:
        raise ValueError(f"has {len(entries)} relays; at most {MAX_RELAYS}")
    relays = [_relay(f"entry {number}", entry) for number, entry in enumerate(entries, 1)]
    seen: dict[str, int] = {}
    for number, relay in enumerate(relays, 1):
        if first := seen.get(relay.name):
            raise ValueError(f"entry {number}: is the same relay as entry {first}, {relay.name}; remove one of them")
        seen[relay.name] = number
    return tuple(relays)


def _relay(where: str, entry: str) -> Relay:
    # Errors are not chained, since their text may contain a password.
    try:
        parts = urlsplit(entry)
        host, port = parts.hostname, parts.port
        username, password = (None if part is None else unquote(part, errors="strict") for part in _login(parts.netloc))
    except ValueError:
        raise ValueError(
            f"{where}: is not a URL; percent-encode @ : / ? # , and % in user and password, and write the port as a number"
        ) from None
    if parts.scheme not in _SCHEMES or not host or parts.path not in {"", "/"} or parts.fragment:
        raise ValueError(
            f"{where}: must be {', '.join(f'{scheme}://host' for scheme in _SCHEMES)},"
            " optionally with user:password@ before the host and :port after it"
        )
    security, usual_port = _SCHEMES[parts.scheme]
    if bool(username) != bool(password):
        raise ValueError(f"{where}: has a user without a password, or the reverse; write user:password@ or neither")
    if username and security is SmtpSecurity.NONE:
        raise ValueError(f"{where}: would send the password unencrypted; use smtp+starttls:// or smtps://")
    try:
        return Relay(
            host=host,
            port=usual_port if port is None else port,
            security=security,
            username=username or None,
            password=SecretStr(password) if password else None,
            **_options(where, parts.query),
        )
    except ValidationError as error:
        raise ValueError(f"{where}: {fields_in_error(error)}") from None


def _login(netloc: str) -> Sequence[str | None]:
    """User and password, still percent-encoded; None if missing."""
    login, at, _ = netloc.rpartition("@")
    if not at:
        return None, None
    user, colon, password = login.partition(":")
    return user, password if colon else None


def _options(where: str, query: str) -> dict[str, Any]:
    pairs = parse_qsl(query, keep_blank_values=True)
    options = dict(pairs)
    if len(options) < len(pairs) or not options.keys() <= set(_OPTIONS):
        raise ValueError(
            f"{where}: options are {', '.join(_OPTIONS)}, each once: ?priority=10&connections=5&verify=true"
        )
    return options
