"""Relay: a mail server that takes our mail and passes it on, as operators name it: by a URL."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError


class SmtpSecurity(StrEnum):
    NONE = "none"
    STARTTLS = "starttls"
    TLS = "tls"


#: The security that a scheme stands for, and the port if none is given.
_SCHEMES = {
    "smtp": (SmtpSecurity.NONE, 25),
    "smtp+starttls": (SmtpSecurity.STARTTLS, 587),
    "smtps": (SmtpSecurity.TLS, 465),
}
_OPTIONS = ("priority", "connections", "verify")
#: Most relays; beyond that, a mail that none takes would be tried for too long.
MAX_RELAYS = 20


class Relay(BaseModel):
    """One relay. Raises pydantic's ValidationError."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    host: str
    port: int = Field(ge=1, le=65535)
    security: SmtpSecurity = SmtpSecurity.NONE
    username: str | None = None
    password: SecretStr | None = None
    #: Whether its certificate is checked.
    verify: bool = True
    #: The lowest is used first, as with MX records; equal ones share the load.
    priority: int = Field(default=10, ge=0, le=65535)
    #: Most connections that one process keeps open; None: BELLWIRE_SMTP_CONNECTIONS.
    connections: int | None = Field(default=None, ge=1, le=200)

    @property
    def name(self) -> str:
        """What logs and metrics call it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_relays(text: str) -> tuple[Relay, ...]:
    """The relays of a comma-separated list of URLs, such as smtp+starttls://user:password@mail.example.com?priority=10.

    Raises ValueError, which names the entry by its number and never shows it, since it may hold a password.
    """
    entries = [entry.strip() for entry in text.split(",") if entry.strip()]
    if len(entries) > MAX_RELAYS:
        raise ValueError(f"names {len(entries)} relays; at most {MAX_RELAYS}")
    relays = [_relay(f"entry {number}", entry) for number, entry in enumerate(entries, 1)]
    seen: dict[str, int] = {}
    for number, relay in enumerate(relays, 1):
        if first := seen.get(relay.name):
            raise ValueError(f"entry {number}: is {relay.name} again, as entry {first}; leave one of them out")
        seen[relay.name] = number
    return tuple(relays)


def _relay(where: str, entry: str) -> Relay:
    # Causes are left out of the traceback: what they quote may be a password.
    try:
        parts = urlsplit(entry)
        host, port = parts.hostname, parts.port
        username, password = (None if part is None else unquote(part, errors="strict") for part in _login(parts.netloc))
    except ValueError:
        raise ValueError(
            f"{where}: is not a URL; percent-encode @ : / ? # , and % in user and password, and give the port as a number"
        ) from None
    if parts.scheme not in _SCHEMES or not host or parts.path not in {"", "/"} or parts.fragment:
        raise ValueError(
            f"{where}: must be {', '.join(f'{scheme}://host' for scheme in _SCHEMES)},"
            " with user:password@ before the host and :port behind it if need be"
        )
    security, usual_port = _SCHEMES[parts.scheme]
    if bool(username) != bool(password):
        raise ValueError(f"{where}: has a user without a password, or the reverse; give user:password@ or neither")
    if username and security is SmtpSecurity.NONE:
        raise ValueError(f"{where}: the password would travel in the clear; use smtp+starttls:// or smtps://")
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
        problems = error.errors(include_url=False, include_input=False, include_context=False)
        told = "; ".join(f"{problem['loc'][0]}: {problem['msg']}" for problem in problems)
        raise ValueError(f"{where}: {told}") from None


def _login(netloc: str) -> Sequence[str | None]:
    """User and password as written; None where there is none."""
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
