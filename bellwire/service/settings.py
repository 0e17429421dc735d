"""Settings: the configuration, read once from BELLWIRE_* variables by `worker.py` and `starter`.

The connection to Temporal is not here: it has its own standard (TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, TEMPORAL_PROFILE, …).
"""

import os
from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from bellwire.email.relay_urls import Relay, SmtpSecurity
from bellwire.email.return_path import ReturnPath, check_return_path
from bellwire.email.unsubscribe_links import LinkKeys, UnsubscribeLinks
from bellwire.endpoint_health import DisablePolicy
from bellwire.errors import BellwireError, problem_text
from bellwire.exchanges import KeepExchanges
from bellwire.keys.keyring import KeyRing
from bellwire.service import settings_values
from bellwire.targets.push import PUSH_HOSTS
from bellwire.targets.sms import MAX_SEGMENTS, sms_sender

#: The settings of a single relay. BELLWIRE_SMTP_RELAYS replaces all of them.
_ONE_RELAY = ("smtp_host", "smtp_port", "smtp_security", "smtp_username", "smtp_password", "smtp_verify")


class LogFormat(StrEnum):
    CONSOLE = "console"
    JSON = "json"


class SettingsInvalid(BellwireError, ValueError):
    """A BELLWIRE_* variable has an invalid value."""


def environment() -> Mapping[str, str]:
    """The environment variables of this process."""
    return os.environ


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
    registry_url: Annotated[str, AfterValidator(settings_values.registry_url)] = "sqlite:///bellwire.db"
    #: Maximum connections to PostgreSQL per process. SQLite always has two.
    registry_pool: int = Field(default=10, ge=1, le=200)

    #: The service's own database, whose outbox `python -m starter relay` publishes: sqlite:///FILE or
    #: postgresql://USER:PASSWORD@HOST/NAME. None: give --url.
    outbox_url: Annotated[str, AfterValidator(settings_values.outbox_url)] | None = None

    #: Keys that encrypt private data, in Temporal and in the registry: id:base64,id2:base64. `python -m starter keys new`
    #: generates one. The first encrypts, all decrypt. Publishers need the same keys.
    encryption_keys: Annotated[SecretStr, AfterValidator(settings_values.keys)] | None = None
    #: Requests per second to resources of the HTTP API, of each key and of each tenant. 0: no limit.
    api_rate: Annotated[float, Field(ge=0, le=1_000_000), AfterValidator(settings_values.or_none)] | None = 50.0
    #: Events per second that each key may publish over HTTP. 0: no limit.
    publish_rate: Annotated[float, Field(ge=0, le=1_000_000), AfterValidator(settings_values.or_none)] | None = 1_000.0
    #: Origins of web pages that may use the HTTP API from a browser (CORS), separated by commas: https://app.example.
    api_origins: Annotated[tuple[settings_values.Origin, ...], NoDecode] = ()

    #: Bearer tokens, separated by commas, with which Temporal's CLI and UI may use the gateway's codec server. None: disabled.
    codec_tokens: Annotated[SecretStr, AfterValidator(settings_values.tokens)] | None = None
    #: Origins of Temporal UIs that may use the codec server, separated by commas: https://temporal.example.
    codec_origins: Annotated[tuple[settings_values.Origin, ...], NoDecode] = ()

    #: Host of the mail relay.
    smtp_host: Annotated[str, AfterValidator(settings_values.host)] = "localhost"
    smtp_port: settings_values.Port = 25
    #: none, starttls (required, not opportunistic) or tls (from the first byte, port 465).
    smtp_security: SmtpSecurity = SmtpSecurity.NONE
    #: Login for the relay: both or neither, and only with starttls or tls.
    smtp_username: str | None = None
    smtp_password: SecretStr | None = None
    #: Verify the relay's certificate. Disable only for a relay with a private certificate on a trusted network.
    smtp_verify: bool = True
    #: Several relays, separated by commas: smtp+starttls://USER:PASSWORD@HOST:PORT?priority=10&connections=5, or smtp:// or
    #: smtps://; percent-encode user and password. The lowest priority is used first; relays of equal priority share the load.
    smtp_relays: Annotated[tuple[Relay, ...], NoDecode, BeforeValidator(settings_values.relays)] = ()
    #: Maximum connections to a relay per process.
    smtp_connections: int = Field(default=10, ge=1, le=200)
    #: Timeout of each SMTP command, in seconds.
    smtp_timeout: float = Field(default=30, ge=1, le=300)
    #: The From address; its domain is also the domain of Message-IDs.
    email_from: Annotated[str, AfterValidator(settings_values.sender)] = "Bellwire <notifications@bellwire.localhost>"

    #: Address for bounces, such as bounces@mail.example.com. Each mail is sent with the envelope sender
    #: bounces+TOKEN@mail.example.com, by which `python -m starter bounces` identifies it. By default the From address.
    email_return_path: Annotated[str, AfterValidator(check_return_path)] | None = None
    #: Folder where `python -m starter bounces` keeps mails that it could not use. By default unread-bounces in the working
    #: directory, for mails from a pipe.
    bounces_unread: Path | None = None
    #: Public URL of the gateway, https://host or https://host/path: the base of links in mails and of Twilio's status callbacks.
    public_url: Annotated[str, AfterValidator(settings_values.public_url)] | None = None
    #: Keys that sign return paths and unsubscribe links: base64 of 32 random bytes (openssl rand -base64 32), separated by
    #: commas. The first signs, all verify. Without a key or a public URL, mails have no unsubscribe link.
    link_key: Annotated[SecretStr, AfterValidator(settings_values.link_keys)] | None = None
    #: DKIM signing domain: the domain of BELLWIRE_EMAIL_FROM, or a parent domain. All three or none.
    dkim_domain: Annotated[str, AfterValidator(settings_values.dns_name)] | None = None
    #: DKIM selector. The public key is published at SELECTOR._domainkey.DOMAIN.
    dkim_selector: Annotated[str, AfterValidator(settings_values.dns_name)] | None = None
    #: DKIM private key, RSA or Ed25519: the path of a PEM file, or the PEM itself.
    dkim_key: SecretStr | None = None

    #: Twilio account SID. SMS deliveries are deferred until it is set.
    twilio_account_sid: str | None = None
    twilio_auth_token: SecretStr | None = None
    #: The sending number (+14155550123) or messaging service (MG…).
    twilio_sender: str | None = None
    #: URL of Twilio's API. Change it for tests only.
    twilio_url: Annotated[str, AfterValidator(settings_values.http_url)] = "https://api.twilio.com"
    #: Timeout of a call of Twilio's API, in seconds.
    twilio_timeout: float = Field(default=15, ge=0.1, le=60)
    #: Seconds before an SMS whose response was lost is reconciled with its provider.
    sms_reconcile_after: float = Field(default=15, ge=0, le=600)
    #: Senders that subscriptions may use, separated by commas: numbers, messaging services (MG…), names. By default any.
    sms_senders: Annotated[tuple[Annotated[str, AfterValidator(sms_sender)], ...] | None, NoDecode] = None
    #: Maximum segments of an SMS, unless the subscription sets one. A longer text is rejected.
    sms_max_segments: int = Field(default=10, ge=1, le=MAX_SEGMENTS)
    #: Price list for cost estimates: a file (CSV or JSON) of prefix, price per segment and currency.
    sms_prices: Annotated[Path, AfterValidator(settings_values.file)] | None = None
    #: Configuration file (TOML or JSON) of SMS providers other than Twilio.
    sms_providers: Annotated[Path, AfterValidator(settings_values.file)] | None = None
    #: Secrets that this file refers to, one variable each: BELLWIRE_SMS_SECRETS__ACME=….
    sms_secrets: dict[str, SecretStr] = Field(default_factory=dict)
    #: Secret in the URLs to which Aliyun and Tencent Cloud report, at least 16 letters, digits, - or _. Without it, the gateway
    #: does not have these URLs.
    sms_callback_secret: Annotated[SecretStr, AfterValidator(settings_values.url_secret)] | None = None
    #: Networks that both of them call from, separated by commas: 203.0.113.0/24,198.51.100.7/32. By default any.
    sms_callback_networks: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = ()

    #: Accounts with providers of chat and push: a file (TOML or JSON) with a section for each account, such as [slack.default].
    accounts: Annotated[Path, AfterValidator(settings_values.file)] | None = None
    #: Secrets that this file refers to, one variable each: BELLWIRE_ACCOUNT_SECRETS__SLACK=….
    account_secrets: dict[str, SecretStr] = Field(default_factory=dict)

    #: Hosts of the push services that browsers may have, separated by commas; * stands for any characters.
    push_hosts: Annotated[tuple[str, ...], NoDecode] = PUSH_HOSTS

    #: Timeout of a webhook request, in seconds, from connecting to the end of the response.
    webhook_timeout: float = Field(default=20, ge=1, le=30)
    #: Maximum connections of a worker process to one host and port. Further deliveries to it wait in order; a fifth is kept for
    #: tenants that have no connection there.
    webhook_connections: int = Field(default=50, ge=1, le=1000)
    #: Allow http:// targets, whose requests are not encrypted.
    webhook_allow_http: bool = False
    #: Ports that webhook targets may use, separated by commas; * for all.
    webhook_ports: Annotated[frozenset[settings_values.Port] | None, NoDecode] = frozenset({80, 443, 8080, 8443})
    #: Private networks that webhooks may reach, separated by commas: 10.1.0.0/16,127.0.0.0/8. By default none.
    egress_allow: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = ()
    #: Show tenants why webhooks into these networks failed, and their responses. Otherwise both are redacted.
    egress_details: bool = False
    #: http://host:port of a forward proxy for all webhooks, which then resolves and checks host names. By default none.
    egress_proxy: Annotated[str, AfterValidator(settings_values.proxy_url)] | None = None

    #: What becomes of events whose tenant never had a subscription: they match nothing, or are refused and not stored.
    unknown_tenants: Literal["accept", "refuse"] = "accept"

    #: What becomes of events that are published over HTTP or by the command line with a type that the catalog does not have: they
    #: are allowed, or refused.
    unknown_types: Literal["allow", "refuse"] = "allow"

    #: Domain name sent as WebHook-Request-Origin when an endpoint is asked for its consent.
    webhook_origin: Annotated[str, AfterValidator(settings_values.domain)] | None = None

    #: Seconds of failures without a success after which a subscription is disabled; 0: never.
    disable_after: float = Field(default=432_000, ge=0, le=31_536_000)
    #: Minimum failures before a subscription is disabled; 0: never disable for failures.
    disable_after_failures: int = Field(default=20, ge=0)
    #: Seconds of failures after which the tenant gets an operational event, separated by commas; 0: never.
    warn_after: Annotated[tuple[Annotated[float, Field(ge=0, le=31_536_000)], ...], Field(max_length=20), NoDecode] = (
        86_400,
        259_200,
    )

    #: Of which attempts request and response are kept, for `deliveries show`: failed (those that did not deliver), all or none.
    #: All costs throughput and storage. Secrets are left out; what is kept is encrypted with the keys, erased and purged.
    keep_exchanges: KeepExchanges = KeepExchanges.FAILED

    #: Concurrent attempts of one send activity for one tenant.
    send_concurrency: int = Field(default=50, ge=1, le=500)
    #: Maximum concurrent send activities of one worker, per channel. Each waits for its slowest receiver, so many are needed
    #: if some hang, and holds up to 200 deliveries in memory. A busy worker runs fewer.
    max_activities: int = Field(default=200, ge=1, le=1000)
    #: Seconds after SIGTERM that a worker has to finish attempts in flight, and the gateway to finish requests.
    shutdown_grace: float = Field(default=30, ge=0, le=600)

    #: Folder of templates that take precedence over the built-in ones.
    templates: Annotated[Path, AfterValidator(settings_values.folder)] | None = None

    #: Sandbox processes per worker process that render tenants' templates and finish large HTML. They start when first needed.
    #: One tenant uses at most half of them at the same time.
    template_processes: int = Field(default=2, ge=1, le=64)
    #: Timeout of rendering a tenant's templates for one delivery, in seconds; then the delivery is deferred.
    template_timeout: float = Field(default=1, ge=0.05, le=30)
    #: Address space of a sandbox process, in megabytes.
    template_memory: int = Field(default=256, ge=64, le=4096)

    #: host:port of the Prometheus metrics endpoint. By default none.
    metrics_address: settings_values.HostAndPort | None = None
    #: host:port of GET /ready, which returns 200 while the worker polls and registry and Temporal respond. By default none.
    health_address: settings_values.HostAndPort | None = None
    #: console (for people) or json (for collectors).
    log_format: LogFormat = LogFormat.CONSOLE
    log_level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")

    @model_validator(mode="before")
    @classmethod
    def _split_lists(cls, values: dict[str, Any]) -> dict[str, Any]:
        values = dict(values)
        for name in (
            "api_origins",
            "codec_origins",
            "egress_allow",
            "push_hosts",
            "sms_callback_networks",
            "sms_senders",
            "webhook_ports",
            "warn_after",
        ):
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
                "BELLWIRE_SMTP_SECURITY: must be starttls or tls, since the password would be sent unencrypted"
            )
        if self.smtp_relays and (both := [name for name in _ONE_RELAY if name in self.model_fields_set]):
            raise ValueError(
                f"BELLWIRE_SMTP_RELAYS and {' and '.join(f'BELLWIRE_{name.upper()}' for name in both)}: give one or the other"
            )
        if self.email_return_path and self.link_key is None:
            raise ValueError("BELLWIRE_EMAIL_RETURN_PATH: needs BELLWIRE_LINK_KEY, which signs it")
        if self.link_key and not (self.public_url or self.email_return_path):
            raise ValueError(
                "BELLWIRE_LINK_KEY: is not used without BELLWIRE_PUBLIC_URL (unsubscribe links) or "
                "BELLWIRE_EMAIL_RETURN_PATH (bounces); set one of them"
            )
        dkim = (self.dkim_domain, self.dkim_selector, self.dkim_key)
        if any(dkim) and not all(dkim):
            raise ValueError(
                "BELLWIRE_DKIM_DOMAIN, BELLWIRE_DKIM_SELECTOR and BELLWIRE_DKIM_KEY: give all three or none"
            )
        sending = settings_values.sender_domain(self.email_from)
        if self.dkim_domain and not f".{sending}".endswith(f".{self.dkim_domain}"):
            raise ValueError(
                f"BELLWIRE_DKIM_DOMAIN: must be {sending}, the domain of BELLWIRE_EMAIL_FROM, or a parent domain (DMARC)"
            )
        twilio = (self.twilio_account_sid, self.twilio_auth_token, self.twilio_sender)
        if any(twilio) and not all(twilio):
            raise ValueError(
                "BELLWIRE_TWILIO_ACCOUNT_SID, BELLWIRE_TWILIO_AUTH_TOKEN and BELLWIRE_TWILIO_SENDER: give all three or none"
            )
        if self.codec_tokens and not self.encryption_keys:
            raise ValueError(
                "BELLWIRE_CODEC_TOKENS: needs BELLWIRE_ENCRYPTION_KEYS, with which the codec server decrypts"
            )
        return self

    @cached_property
    def ring(self) -> KeyRing | None:
        """The encryption keys; None if not set."""
        return KeyRing.parse(self.encryption_keys.get_secret_value()) if self.encryption_keys else None

    @property
    def tokens(self) -> tuple[str, ...]:
        """The tokens of the codec server."""
        return tuple(settings_values.split(self.codec_tokens.get_secret_value())) if self.codec_tokens else ()

    @property
    def links(self) -> UnsubscribeLinks | None:
        """What makes and reads unsubscribe links; None without a key or a public URL."""
        if self.public_url is None or self.link_key is None:
            return None
        return UnsubscribeLinks(self.public_url, self.link_key.get_secret_value())

    @property
    def relays(self) -> tuple[Relay, ...]:
        """The mail relays."""
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
        """The keys of BELLWIRE_LINK_KEY."""
        return LinkKeys(self.link_key.get_secret_value()) if self.link_key else None

    @property
    def return_path(self) -> ReturnPath | None:
        """The return path of mails; None: the From address."""
        keys = self.link_keys
        return ReturnPath(self.email_return_path, keys) if self.email_return_path and keys else None

    @property
    def disable_policy(self) -> DisablePolicy:
        """When failing subscriptions are disabled."""
        off = not self.disable_after or not self.disable_after_failures
        return DisablePolicy(
            warn_after=tuple(timedelta(seconds=point) for point in sorted({*self.warn_after} - {0})),
            disable_after=None if off else timedelta(seconds=self.disable_after),
            disable_after_failures=self.disable_after_failures,
        )

    @classmethod
    def read(cls, **overrides: Any) -> Self:
        """Read the settings of this process. Raises SettingsInvalid, which names each invalid variable."""
        try:
            return cls(**overrides)
        except SettingsError as error:  # one of the two _SECRETS itself, which pydantic parses as JSON
            name = f"BELLWIRE_{'ACCOUNT' if 'account' in str(error) else 'SMS'}_SECRETS"
            raise SettingsInvalid(f"{name}: give each secret its own variable, such as {name}__ACME") from error
        except ValidationError as error:
            problems = error.errors(include_url=False, include_input=False)
            raise SettingsInvalid("; ".join(dict.fromkeys(map(_format, problems)))) from error


def _format(problem: ErrorDetails) -> str:
    message = problem_text(problem)
    # A problem of several variables names them in its message.
    return f"BELLWIRE_{str(problem['loc'][0]).upper()}: {message}" if problem["loc"] else message
