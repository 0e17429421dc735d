"""Settings: what operators configure, read once from BELLWIRE_* variables by `worker.py` and `starter`.

The connection to Temporal is not here: it has its own standard (TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, TEMPORAL_PROFILE, …).
"""

import base64
import binascii
import re
from email.utils import parseaddr
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from bellwire.errors import BellwireError
from bellwire.relays import Relay, SmtpSecurity, parse_relays
from bellwire.returns import check_return_path


class LogFormat(StrEnum):
    CONSOLE = "console"
    JSON = "json"


class SettingsInvalid(BellwireError, ValueError):
    """A BELLWIRE_* variable has a bad value."""


def _async_driver(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    drivers = {"sqlite": "sqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}
    full = drivers.get(scheme, scheme)
    if not separator or full not in drivers.values():
        raise ValueError("must start with sqlite:/// or postgresql://, such as sqlite:///bellwire.db")
    return f"{full}://{rest}"


def _host_and_port(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError("must be host:port, such as 127.0.0.1:9464")
    return value


def _sender(value: str) -> str:
    local, _, domain = parseaddr(value)[1].rpartition("@")
    if not (local and domain and value.isprintable()):
        raise ValueError("must be an address, such as Bellwire <notifications@example.com>")
    return value


def _relays(value: object) -> object:
    return parse_relays(value) if isinstance(value, str) else value


def _link_key(value: SecretStr) -> SecretStr:
    try:
        keys = _keys(value)
    except (binascii.Error, ValueError):
        keys = ()
    if not keys or min(map(len, keys)) < _KEY_BYTES:
        raise ValueError(f"must be the base64 of at least {_KEY_BYTES} random bytes, or several, separated by commas")
    return value


def _keys(value: SecretStr) -> tuple[bytes, ...]:
    parts = [part.strip() for part in value.get_secret_value().split(",") if part.strip()]
    return tuple(base64.b64decode(part, validate=True) for part in parts)


def _folder(value: Path) -> Path:
    if not value.is_dir():
        raise ValueError("is not a folder; without this check the built-in templates would be sent in silence")
    return value


def _http_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"is not a URL: {error}") from error
    if parts.scheme not in {"https", "http"} or not host:
        raise ValueError("must be an http or https URL with a host, such as https://api.twilio.com")
    return value


#: Fewest bytes of a key that signs links and return paths.
_KEY_BYTES = 32
#: What describes one relay, and has its place in the URL where several are named.
_ONE_RELAY = ("smtp_host", "smtp_port", "smtp_security", "smtp_username", "smtp_password", "smtp_verify")

HostAndPort = Annotated[str, AfterValidator(_host_and_port)]
Port = Annotated[int, Field(ge=1, le=65535)]


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="BELLWIRE_", extra="forbid", frozen=True, env_ignore_empty=True, hide_input_in_errors=True
    )

    #: Where subscriptions, events and deliveries are kept: sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME.
    registry_url: Annotated[str, AfterValidator(_async_driver)] = "sqlite:///bellwire.db"
    #: Most connections to the registry that one process holds.
    registry_pool: int = Field(default=10, ge=1, le=200)

    #: Host of the mail relay.
    smtp_host: str = "localhost"
    smtp_port: Port = 25
    #: none, starttls (required, not opportunistic) or tls (from the first byte, port 465).
    smtp_security: SmtpSecurity = SmtpSecurity.NONE
    #: Login at the relay; both or neither, and only over starttls or tls.
    smtp_username: str | None = None
    smtp_password: SecretStr | None = None
    #: Check the relay's certificate. Switch off for a relay with a private certificate on a trusted network only.
    smtp_verify: bool = True
    #: Several relays instead, separated by commas: smtp+starttls://USER:PASSWORD@HOST:PORT?priority=10&connections=5, or
    #: smtp:// or smtps://; user and password percent-encoded. The lowest priority is used first, equal ones share the load.
    smtp_relays: Annotated[tuple[Relay, ...], NoDecode, BeforeValidator(_relays)] = ()
    #: Most connections to a relay that one process keeps open.
    smtp_connections: int = Field(default=10, ge=1, le=200)
    #: Seconds for each step of the conversation with a relay.
    smtp_timeout: float = Field(default=30, ge=1, le=300)
    #: The From address; its domain is also the domain of Message-IDs.
    email_from: Annotated[str, AfterValidator(_sender)] = "Bellwire <notifications@bellwire.localhost>"
    #: Where bounces go, such as bounces@mail.example.com: each mail's envelope is sent from bounces+TOKEN@mail.example.com, by
    #: which `python -m starter bounces` knows it again. The From address, without a token, if not set.
    email_return_path: Annotated[str, AfterValidator(check_return_path)] | None = None
    #: Signs return paths: base64 of at least 32 random bytes; several separated by commas: the first signs, all are accepted.
    link_key: Annotated[SecretStr, AfterValidator(_link_key)] | None = None

    #: Twilio account; SMS deliveries are deferred until it is given.
    twilio_account_sid: str | None = None
    twilio_auth_token: SecretStr | None = None
    #: The sending number (+14155550123) or messaging service (MG…).
    twilio_sender: str | None = None
    #: Where Twilio's API is; another address for a test double.
    twilio_url: Annotated[str, AfterValidator(_http_url)] = "https://api.twilio.com"
    #: Seconds for one call of Twilio's API.
    twilio_timeout: float = Field(default=15, ge=0.1, le=60)
    #: Seconds that an SMS with a lost answer rests before Twilio is asked what became of it.
    sms_reconcile_after: float = Field(default=15, ge=0, le=600)

    #: Seconds for one webhook request, from dialling to the end of the answer.
    webhook_timeout: float = Field(default=20, ge=1, le=30)
    #: Allow http:// targets; the body then travels in the clear.
    webhook_allow_http: bool = False
    #: Ports that webhook targets may name, separated by commas; * for all.
    webhook_ports: Annotated[frozenset[Port] | None, NoDecode] = frozenset({80, 443, 8080, 8443})
    #: Private networks that webhooks may reach all the same, separated by commas: 10.1.0.0/16,127.0.0.0/8.
    egress_allow: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = ()

    #: Deliveries that one send activity attempts at the same time.
    send_concurrency: int = Field(default=50, ge=1, le=500)
    #: Send activities that one worker runs at the same time, for each channel. One waits for its slowest receiver, so that
    #: many are needed where some hang; each holds up to 200 deliveries in memory.
    max_activities: int = Field(default=200, ge=1, le=1000)
    #: Seconds that a worker has, after SIGTERM, to finish the attempts that are in flight.
    shutdown_grace: float = Field(default=30, ge=0, le=600)

    #: A folder of templates that are looked up before the built-in ones.
    templates: Annotated[Path, AfterValidator(_folder)] | None = None

    #: host:port of the Prometheus metrics page, of Temporal's SDK and Bellwire both; none, if not set.
    metrics_address: HostAndPort | None = None
    #: host:port of GET /ready, which answers 200 once the worker polls and registry and Temporal answer; none, if not set.
    health_address: HostAndPort | None = None
    #: console (for people) or json (for collectors).
    log_format: LogFormat = LogFormat.CONSOLE
    log_level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")

    @model_validator(mode="before")
    @classmethod
    def _split_lists(cls, values: dict[str, Any]) -> dict[str, Any]:
        values = dict(values)
        for name in ("egress_allow", "webhook_ports"):
            if isinstance(given := values.get(name), str):
                parts = [part.strip() for part in given.split(",") if part.strip()]
                values[name] = None if name == "webhook_ports" and parts == ["*"] else parts
        return values

    @model_validator(mode="after")
    def _check_relations(self) -> Self:
        if (self.smtp_username is None) != (self.smtp_password is None):
            raise ValueError("BELLWIRE_SMTP_USERNAME and BELLWIRE_SMTP_PASSWORD: give both or neither")
        if self.smtp_username and self.smtp_security is SmtpSecurity.NONE:
            raise ValueError(
                "BELLWIRE_SMTP_SECURITY: must be starttls or tls, or the password would travel in the clear"
            )
        if self.smtp_relays and (both := [name for name in _ONE_RELAY if name in self.model_fields_set]):
            raise ValueError(
                f"BELLWIRE_SMTP_RELAYS and {' and '.join(f'BELLWIRE_{name.upper()}' for name in both)}: give one or the other"
            )
        if self.email_return_path and self.link_key is None:
            raise ValueError("BELLWIRE_EMAIL_RETURN_PATH: needs BELLWIRE_LINK_KEY, which signs it")
        twilio = (self.twilio_account_sid, self.twilio_auth_token, self.twilio_sender)
        if any(twilio) and not all(twilio):
            raise ValueError(
                "BELLWIRE_TWILIO_ACCOUNT_SID, BELLWIRE_TWILIO_AUTH_TOKEN and BELLWIRE_TWILIO_SENDER: give all three or none"
            )
        return self

    @property
    def relays(self) -> tuple[Relay, ...]:
        """The relays that mail goes out by."""
        if self.smtp_relays:
            return self.smtp_relays
        one = Relay(
            host=self.smtp_host,
            port=self.smtp_port,
            security=self.smtp_security,
            username=self.smtp_username,
            password=self.smtp_password,
            verify=self.smtp_verify,
        )
        return (one,)

    @property
    def link_keys(self) -> tuple[bytes, ...]:
        """The keys of BELLWIRE_LINK_KEY; the first signs, all verify."""
        return _keys(self.link_key) if self.link_key else ()

    @classmethod
    def read(cls, **overrides: Any) -> Self:
        """The settings of this process. Raises SettingsInvalid, which names each bad variable."""
        try:
            return cls(**overrides)
        except ValidationError as error:
            problems = error.errors(include_url=False, include_input=False, include_context=False)
            raise SettingsInvalid("; ".join(dict.fromkeys(map(_told, problems)))) from error


def _told(problem: ErrorDetails) -> str:
    message = problem["msg"].removeprefix("Value error, ")
    # A rule that spans several variables names them itself.
    return f"BELLWIRE_{str(problem['loc'][0]).upper()}: {message}" if problem["loc"] else message
