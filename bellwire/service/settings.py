"""Settings: what operators configure, read once from BELLWIRE_* variables by `worker.py` and `starter`.

The connection to Temporal is not here: it has its own standard (TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, TEMPORAL_PROFILE, …).
"""

from datetime import timedelta
from email.utils import parseaddr
from enum import StrEnum
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from bellwire.email.relay_urls import Relay, SmtpSecurity
from bellwire.email.return_path import ReturnPath, check_return_path
from bellwire.email.unsubscribe_links import LinkKeys, UnsubscribeLinks
from bellwire.endpoint_health import DisablePolicy
from bellwire.errors import BellwireError
from bellwire.keys.keyring import KeyRing
from bellwire.service import settings_values
from bellwire.targets.sms import MAX_SEGMENTS, sms_sender

#: What describes one relay, and has its place in the URL where several are named.
_ONE_RELAY = ("smtp_host", "smtp_port", "smtp_security", "smtp_username", "smtp_password", "smtp_verify")


class LogFormat(StrEnum):
    CONSOLE = "console"
    JSON = "json"


class SettingsInvalid(BellwireError, ValueError):
    """A BELLWIRE_* variable has a bad value."""


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="BELLWIRE_",
        extra="forbid",
        frozen=True,
        env_ignore_empty=True,
        hide_input_in_errors=True,
        env_nested_delimiter="__",
    )

    #: Where subscriptions, events and deliveries are kept: sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME.
    registry_url: Annotated[str, AfterValidator(settings_values.async_driver)] = "sqlite:///bellwire.db"
    #: Most connections to PostgreSQL that one process holds; to SQLite it is two.
    registry_pool: int = Field(default=10, ge=1, le=200)

    #: Keys that private data is encrypted with, in Temporal and in the registry: id:base64,id2:base64, as
    #: `python -m starter keys new` makes them. The first encrypts, all decrypt. Publishers need the same.
    encryption_keys: Annotated[SecretStr, AfterValidator(settings_values.keys)] | None = None
    #: Bearer tokens, separated by commas, with which Temporal's CLI and UI may have the gateway decrypt; none: nobody may.
    codec_tokens: Annotated[SecretStr, AfterValidator(settings_values.tokens)] | None = None
    #: Origins of Temporal UIs whose pages may ask the gateway to decrypt, separated by commas: https://temporal.example.
    codec_origins: Annotated[tuple[settings_values.Origin, ...], NoDecode] = ()

    #: Host of the mail relay.
    smtp_host: str = "localhost"
    smtp_port: settings_values.Port = 25
    #: none, starttls (required, not opportunistic) or tls (from the first byte, port 465).
    smtp_security: SmtpSecurity = SmtpSecurity.NONE
    #: Login at the relay; both or neither, and only over starttls or tls.
    smtp_username: str | None = None
    smtp_password: SecretStr | None = None
    #: Check the relay's certificate. Switch off for a relay with a private certificate on a trusted network only.
    smtp_verify: bool = True
    #: Several relays instead, separated by commas: smtp+starttls://USER:PASSWORD@HOST:PORT?priority=10&connections=5, or
    #: smtp:// or smtps://; user and password percent-encoded. The lowest priority is used first, equal ones share the load.
    smtp_relays: Annotated[tuple[Relay, ...], NoDecode, BeforeValidator(settings_values.relays)] = ()
    #: Most connections to a relay that one process keeps open.
    smtp_connections: int = Field(default=10, ge=1, le=200)
    #: Seconds for each step of the conversation with a relay.
    smtp_timeout: float = Field(default=30, ge=1, le=300)
    #: The From address; its domain is also the domain of Message-IDs.
    email_from: Annotated[str, AfterValidator(settings_values.sender)] = "Bellwire <notifications@bellwire.localhost>"

    #: Where bounces go, such as bounces@mail.example.com: each mail's envelope is sent from bounces+TOKEN@mail.example.com, by
    #: which `python -m starter bounces` knows it again. The From address, without a token, if not set.
    email_return_path: Annotated[str, AfterValidator(check_return_path)] | None = None
    #: Where the gateway is reached from outside, https://host or https://host/path: links in mails begin with it, and Twilio
    #: is told to call back there.
    public_url: Annotated[str, AfterValidator(settings_values.public_url)] | None = None
    #: What signs return paths and the links by which recipients unsubscribe: base64 of 32 random bytes (openssl rand -base64
    #: 32). Several, separated by commas: the first signs, all verify. Without it, or without a public URL, mails have no link.
    link_key: Annotated[SecretStr, AfterValidator(settings_values.link_keys)] | None = None
    #: Domain that mails are signed for (DKIM): that of BELLWIRE_EMAIL_FROM, or one above it. All three or none.
    dkim_domain: Annotated[str, AfterValidator(settings_values.dns_name)] | None = None
    #: Under SELECTOR._domainkey.DOMAIN the public key is published.
    dkim_selector: Annotated[str, AfterValidator(settings_values.dns_name)] | None = None
    #: The private key, RSA or Ed25519: the path of a PEM file, or the PEM itself.
    dkim_key: SecretStr | None = None

    #: Twilio account; SMS deliveries are deferred until it is given.
    twilio_account_sid: str | None = None
    twilio_auth_token: SecretStr | None = None
    #: The sending number (+14155550123) or messaging service (MG…).
    twilio_sender: str | None = None
    #: Where Twilio's API is; another address for a test double.
    twilio_url: Annotated[str, AfterValidator(settings_values.http_url)] = "https://api.twilio.com"
    #: Seconds for one call of Twilio's API.
    twilio_timeout: float = Field(default=15, ge=0.1, le=60)
    #: Seconds that an SMS with a lost answer rests before its provider is asked what became of it.
    sms_reconcile_after: float = Field(default=15, ge=0, le=600)
    #: Senders that subscriptions may name, separated by commas: numbers, messaging services (MG…), names; any, if not set.
    sms_senders: Annotated[tuple[Annotated[str, AfterValidator(sms_sender)], ...] | None, NoDecode] = None
    #: Most segments of one SMS, for subscriptions that name no limit; a longer text is rejected.
    sms_max_segments: int = Field(default=10, ge=1, le=MAX_SEGMENTS)
    #: What a segment costs, for estimates: a file (CSV or JSON) of prefix, price and currency.
    sms_prices: Annotated[Path, AfterValidator(settings_values.file)] | None = None
    #: SMS providers other than Twilio: a file (TOML or JSON) that describes them.
    sms_providers: Annotated[Path, AfterValidator(settings_values.file)] | None = None
    #: Secrets that this file names: BELLWIRE_SMS_SECRETS__ACME=… is the one that it calls BELLWIRE_SMS_SECRETS__ACME.
    sms_secrets: dict[str, SecretStr] = Field(default_factory=dict)

    #: Seconds for one webhook request, from dialling to the end of the answer.
    webhook_timeout: float = Field(default=20, ge=1, le=30)
    #: Allow http:// targets; the body then travels in the clear.
    webhook_allow_http: bool = False
    #: Ports that webhook targets may name, separated by commas; * for all.
    webhook_ports: Annotated[frozenset[settings_values.Port] | None, NoDecode] = frozenset({80, 443, 8080, 8443})
    #: Private networks that webhooks may reach all the same, separated by commas: 10.1.0.0/16,127.0.0.0/8.
    egress_allow: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = ()
    #: Let tenants read why a webhook into those networks failed, and what was answered there; else both go to the log at most.
    egress_details: bool = False
    #: http://host:port of a forward proxy through which all webhooks go, and which then decides on names; none, if not set.
    egress_proxy: Annotated[str, AfterValidator(settings_values.proxy_url)] | None = None

    #: The domain name in whose name receivers are asked for their consent whose subscriptions want that (WebHook-Request-Origin).
    webhook_origin: Annotated[str, AfterValidator(settings_values.domain)] | None = None

    #: Seconds of failing without a success after which a subscription is disabled; 0: never.
    disable_after: float = Field(default=432_000, ge=0, le=31_536_000)
    #: It must have failed at least so many times by then; 0: it is never disabled for failing.
    disable_after_failures: int = Field(default=20, ge=0)
    #: Seconds of failing after which its tenant is told, by an event, separated by commas; 0: never.
    warn_after: Annotated[tuple[Annotated[float, Field(ge=0, le=31_536_000)], ...], Field(max_length=20), NoDecode] = (
        86_400,
        259_200,
    )

    #: Deliveries that one send activity attempts at the same time.
    send_concurrency: int = Field(default=50, ge=1, le=500)
    #: Most send activities that one worker runs at the same time, for each channel. One waits for its slowest receiver, so
    #: that many are needed where some hang; each holds up to 200 deliveries in memory. A worker that is busy takes fewer.
    max_activities: int = Field(default=200, ge=1, le=1000)
    #: Seconds that a worker has, after SIGTERM, to finish the attempts that are in flight.
    shutdown_grace: float = Field(default=30, ge=0, le=600)

    #: A folder of templates that are looked up before the built-in ones.
    templates: Annotated[Path, AfterValidator(settings_values.folder)] | None = None

    #: Processes, for each worker process, that render what tenants wrote; started when first needed.
    template_processes: int = Field(default=2, ge=1, le=64)
    #: Seconds for rendering what a tenant wrote, for one delivery; then its process is killed and the delivery deferred.
    template_timeout: float = Field(default=1, ge=0.05, le=30)
    #: Megabytes of address space for each of these processes.
    template_memory: int = Field(default=256, ge=64, le=4096)

    #: host:port of the Prometheus metrics page, of Temporal's SDK and Bellwire both; none, if not set.
    metrics_address: settings_values.HostAndPort | None = None
    #: host:port of GET /ready, which answers 200 once the worker polls and registry and Temporal answer; none, if not set.
    health_address: settings_values.HostAndPort | None = None
    #: console (for people) or json (for collectors).
    log_format: LogFormat = LogFormat.CONSOLE
    log_level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")

    @model_validator(mode="before")
    @classmethod
    def _split_lists(cls, values: dict[str, Any]) -> dict[str, Any]:
        values = dict(values)
        for name in ("codec_origins", "egress_allow", "sms_senders", "webhook_ports", "warn_after"):
            if isinstance(given := values.get(name), str):
                parts = settings_values.split(given)
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
        if self.link_key and not (self.public_url or self.email_return_path):
            raise ValueError(
                "BELLWIRE_LINK_KEY: a key alone signs nothing; give BELLWIRE_PUBLIC_URL, for links to unsubscribe, or "
                "BELLWIRE_EMAIL_RETURN_PATH, for bounces"
            )
        dkim = (self.dkim_domain, self.dkim_selector, self.dkim_key)
        if any(dkim) and not all(dkim):
            raise ValueError(
                "BELLWIRE_DKIM_DOMAIN, BELLWIRE_DKIM_SELECTOR and BELLWIRE_DKIM_KEY: give all three or none"
            )
        sending = settings_values.in_ascii(parseaddr(self.email_from)[1].rpartition("@")[2].lower())
        if self.dkim_domain and not f".{sending}".endswith(f".{self.dkim_domain}"):
            raise ValueError(
                f"BELLWIRE_DKIM_DOMAIN: must be {sending}, the domain of BELLWIRE_EMAIL_FROM, or one above it; to receivers "
                "(DMARC) another domain's signature says nothing about the sender"
            )
        twilio = (self.twilio_account_sid, self.twilio_auth_token, self.twilio_sender)
        if any(twilio) and not all(twilio):
            raise ValueError(
                "BELLWIRE_TWILIO_ACCOUNT_SID, BELLWIRE_TWILIO_AUTH_TOKEN and BELLWIRE_TWILIO_SENDER: give all three or none"
            )
        if self.codec_tokens and not self.encryption_keys:
            raise ValueError("BELLWIRE_CODEC_TOKENS: there is nothing to decrypt without BELLWIRE_ENCRYPTION_KEYS")
        return self

    @cached_property
    def ring(self) -> KeyRing | None:
        """The encryption keys; None if there are none."""
        return KeyRing.parse(self.encryption_keys.get_secret_value()) if self.encryption_keys else None

    @property
    def tokens(self) -> tuple[str, ...]:
        """The tokens of the codec server."""
        return tuple(settings_values.split(self.codec_tokens.get_secret_value())) if self.codec_tokens else ()

    @property
    def links(self) -> UnsubscribeLinks | None:
        """What makes links to unsubscribe, and reads them; None without a key."""
        if self.public_url is None or self.link_key is None:
            return None
        return UnsubscribeLinks(self.public_url, self.link_key.get_secret_value())

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
    def link_keys(self) -> LinkKeys | None:
        """What BELLWIRE_LINK_KEY holds."""
        return LinkKeys(self.link_key.get_secret_value()) if self.link_key else None

    @property
    def return_path(self) -> ReturnPath | None:
        """Where mails come back to; None if that is the From address."""
        keys = self.link_keys
        return ReturnPath(self.email_return_path, keys) if self.email_return_path and keys else None

    @property
    def disable_policy(self) -> DisablePolicy:
        """How long subscriptions may fail."""
        off = not self.disable_after or not self.disable_after_failures
        return DisablePolicy(
            warn_after=tuple(timedelta(seconds=point) for point in sorted({*self.warn_after} - {0})),
            disable_after=None if off else timedelta(seconds=self.disable_after),
            disable_after_failures=self.disable_after_failures,
        )

    @classmethod
    def read(cls, **overrides: Any) -> Self:
        """The settings of this process. Raises SettingsInvalid, which names each bad variable."""
        try:
            return cls(**overrides)
        except SettingsError as error:  # a list or a mapping in a notation of its own
            raise SettingsInvalid(
                "BELLWIRE_SMS_SECRETS: give each secret a variable of its own, such as BELLWIRE_SMS_SECRETS__ACME"
            ) from error
        except ValidationError as error:
            problems = error.errors(include_url=False, include_input=False, include_context=False)
            raise SettingsInvalid("; ".join(dict.fromkeys(map(_told, problems)))) from error


def _told(problem: ErrorDetails) -> str:
    message = problem["msg"].removeprefix("Value error, ")
    # A rule that spans several variables names them itself.
    return f"BELLWIRE_{str(problem['loc'][0]).upper()}: {message}" if problem["loc"] else message
