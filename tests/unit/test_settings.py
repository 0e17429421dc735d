"""Settings: invalid variables are named, and their values are not shown."""

import base64
import re
import traceback
from datetime import timedelta
from ipaddress import ip_network
from typing import Any

import pytest

from bellwire.email.relay_urls import SmtpSecurity
from bellwire.endpoint_health import DisablePolicy
from bellwire.service.settings import LogFormat, Settings, SettingsInvalid

KEY = base64.b64encode(b"k" * 32).decode()
DKIM = {"dkim_domain": "example.net", "dkim_selector": "bell1", "dkim_key": "/run/dkim.pem"}


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"BELLWIRE_{name.upper()}", raising=False)


def test_every_setting_has_a_default() -> None:
    settings = Settings.read()
    assert settings.registry_url == "sqlite:///bellwire.db"
    assert settings.smtp_security is SmtpSecurity.NONE


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("REGISTRY_URL", "sqlite:///a.db", "sqlite:///a.db"),
        ("REGISTRY_URL", "postgres://u:p@h/n", "postgresql+asyncpg://u:p@h/n"),
        ("REGISTRY_URL", "postgresql://u:p@h/n", "postgresql+asyncpg://u:p@h/n"),
        ("REGISTRY_URL", "postgresql+asyncpg://u:p@h/n", "postgresql+asyncpg://u:p@h/n"),
        ("SMTP_PORT", "2525", 2525),
        ("SMTP_PORT", "", 25),
        ("WEBHOOK_PORTS", "443", frozenset({443})),
        ("WEBHOOK_PORTS", " 80, 443 ,", frozenset({80, 443})),
        ("WEBHOOK_PORTS", "*", None),
        ("EGRESS_PROXY", "http://[::1]:4750", "http://[::1]:4750"),
        ("EGRESS_DETAILS", "true", True),
        ("EGRESS_ALLOW", "127.0.0.0/8, ::1/128", (ip_network("127.0.0.0/8"), ip_network("::1/128"))),
        ("EMAIL_FROM", "ops@example.com", "ops@example.com"),
        ("EMAIL_FROM", "Caf\u00e9 <ops@example.com>", "Caf\u00e9 <ops@example.com>"),
        ("METRICS_ADDRESS", "[::1]:9464", "[::1]:9464"),
        ("HEALTH_ADDRESS", "localhost:8080", "localhost:8080"),
        ("WEBHOOK_ORIGIN", "Notifications.Example.com", "notifications.example.com"),
        ("DISABLE_AFTER", "0", 0.0),
        ("WARN_AFTER", "3600, 86400", (3600.0, 86_400.0)),
        ("LOG_FORMAT", "json", LogFormat.JSON),
        ("SMS_SENDERS", "+14155550100, Acme Shop", ("+14155550100", "Acme Shop")),
        ("PUBLIC_URL", "https://bell.example:8443/notify/", "https://bell.example:8443/notify"),
    ],
)
def test_variables_are_read(monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: object) -> None:
    monkeypatch.setenv(f"BELLWIRE_{name}", value)
    assert getattr(Settings.read(), name.lower()) == expected


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("REGISTRY_URL", "mysql://h/n", "sqlite:/// or postgresql://"),
        ("REGISTRY_URL", "bellwire.db", "sqlite:/// or postgresql://"),
        ("REGISTRY_POOL", "0", "greater than or equal to 1"),
        ("SMTP_PORT", "smtp", "must be a whole number"),
        ("SMTP_PORT", "65536", "less than or equal to 65535"),
        ("SMTP_SECURITY", "ssl", "'none', 'starttls' or 'tls'"),
        ("SMTP_VERIFY", "perhaps", "must be true or false"),
        ("SMTP_CONNECTIONS", "201", "less than or equal to 200"),
        ("SMTP_TIMEOUT", "0", "greater than or equal to 1"),
        ("SMTP_TIMEOUT", "nan", "or equal to"),
        ("EMAIL_FROM", "nobody", "must be an address"),
        ("EMAIL_FROM", "ops@example.com\nBcc: eve@example.com", "must be an address"),
        ("PUBLIC_URL", "http://bell.example", "must be an https URL"),
        ("PUBLIC_URL", "https://bell.example/?a=1", "must be an https URL"),
        ("PUBLIC_URL", "https://bell.example/>\r\nBcc: eve", "must be an https URL"),
        ("PUBLIC_URL", "https://ann:hunter2@bell.example", "must be an https URL"),
        ("LINK_KEY", "hunter2", "at least 32 bytes"),
        ("DKIM_DOMAIN", "example .net", "DNS name"),
        ("DKIM_DOMAIN", "example.net; d=example.org", "DNS name"),
        ("DKIM_SELECTOR", "bell\r\n", "DNS name"),
        ("TWILIO_URL", "api.twilio.com", "http or https URL"),
        ("TWILIO_URL", "https://[api", "is not a valid URL"),
        ("TWILIO_TIMEOUT", "61", "less than or equal to 60"),
        ("SMS_RECONCILE_AFTER", "-1", "greater than or equal to 0"),
        ("SMS_SENDERS", "+1", "is not a sender"),
        ("SMS_MAX_SEGMENTS", "0", "greater than or equal to 1"),
        ("SMS_PRICES", "/nowhere/prices.csv", "is not a file"),
        ("SMS_PROVIDERS", "/nowhere/providers.toml", "is not a file"),
        ("ACCOUNTS", "/nowhere/accounts.toml", "/nowhere/accounts.toml is not a file, correct the path"),
        ("SMS_SECRETS", "s3cret", "its own variable"),
        ("ACCOUNT_SECRETS", "s3cret", "its own variable"),
        ("PUBLIC_URL", "bellwire.example", "must be an https URL"),
        ("WEBHOOK_TIMEOUT", "31", "less than or equal to 30"),
        ("WEBHOOK_ALLOW_HTTP", "2", "must be true or false"),
        ("WEBHOOK_PORTS", "80,https", "must be a whole number"),
        ("WEBHOOK_PORTS", "80,0", "greater than or equal to 1"),
        ("WEBHOOK_PORTS", "80,*", "must be a whole number"),
        ("EGRESS_ALLOW", "intranet", "network"),
        ("EGRESS_ALLOW", "10.0.0.1/8", "network"),
        *(
            ("EGRESS_PROXY", value, "must be http://host:port")
            for value in (
                *(
                    "proxy:4750",
                    "https://proxy:4750",
                    "http://proxy",
                    "http://:4750",
                    "http://proxy:99999",
                    "http://[::1",
                ),
                *(
                    "http://ann:hunter2@proxy:4750",
                    "http://proxy:4750/path",
                    "http://proxy:4750?a",
                    "http://pro xy:4750",
                ),
            )
        ),
        ("WEBHOOK_ORIGIN", "https://example.com", "must be a domain name"),
        ("WEBHOOK_ORIGIN", "example.com:443", "must be a domain name"),
        ("WEBHOOK_ORIGIN", "*", "must be a domain name"),
        ("DISABLE_AFTER", "-1", "greater than or equal to 0"),
        ("DISABLE_AFTER", "inf", "less than or equal to"),
        ("DISABLE_AFTER_FAILURES", "few", "must be a whole number"),
        ("WARN_AFTER", "1d", "must be a number"),
        ("WARN_AFTER", "60,-60", "greater than or equal to 0"),
        ("SEND_CONCURRENCY", "0", "greater than or equal to 1"),
        ("MAX_ACTIVITIES", "1001", "less than or equal to 1000"),
        ("SHUTDOWN_GRACE", "soon", "must be a number"),
        ("METRICS_ADDRESS", "9464", "must be host:port"),
        ("METRICS_ADDRESS", "localhost:70000", "must be host:port"),
        ("HEALTH_ADDRESS", "localhost:http", "must be host:port"),
        ("LOG_FORMAT", "xml", "'console' or 'json'"),
        ("LOG_LEVEL", "debug", "DEBUG|INFO|WARNING|ERROR"),
    ],
)
def test_an_invalid_variable_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, problem: str) -> None:
    monkeypatch.setenv(f"BELLWIRE_{name}", value)
    with pytest.raises(SettingsInvalid) as refused:
        Settings.read()
    problems = str(refused.value).split("; ")
    assert all(text.startswith(f"BELLWIRE_{name}: ") for text in problems)
    assert problem in str(refused.value)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"smtp_username": "ann"}, ["SMTP_USERNAME", "SMTP_PASSWORD"]),
        ({"smtp_password": "hunter2"}, ["SMTP_USERNAME", "SMTP_PASSWORD"]),
        ({"smtp_username": "ann", "smtp_password": "hunter2"}, ["SMTP_SECURITY"]),
        ({"twilio_account_sid": "AC1"}, ["TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "TWILIO_SENDER"]),
        (
            {"twilio_account_sid": "AC1", "twilio_sender": "+1"},
            ["TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "TWILIO_SENDER"],
        ),
        ({"link_key": KEY}, ["LINK_KEY", "PUBLIC_URL", "EMAIL_RETURN_PATH"]),
        ({"dkim_domain": "example.net"}, ["DKIM_DOMAIN", "DKIM_SELECTOR", "DKIM_KEY"]),
        ({"dkim_selector": "b", "dkim_key": "k"}, ["DKIM_DOMAIN", "DKIM_SELECTOR", "DKIM_KEY"]),
        ({**DKIM, "email_from": "a@example.org"}, ["DKIM_DOMAIN", "EMAIL_FROM"]),
        ({**DKIM, "email_from": "a@notexample.net"}, ["DKIM_DOMAIN", "EMAIL_FROM"]),
        ({"smtp_port": 0, "log_level": "loud"}, ["SMTP_PORT", "LOG_LEVEL"]),
        ({"smtp_prot": 25}, ["SMTP_PROT"]),
    ],
)
def test_all_variables_of_a_conflict_are_named(given: dict[str, Any], named: list[str]) -> None:
    with pytest.raises(SettingsInvalid) as refused:
        Settings.read(**given)
    assert re.findall(r"BELLWIRE_([A-Z_]+)", str(refused.value)) == named


def test_compatible_settings_are_accepted() -> None:
    settings = Settings.read(
        smtp_username="ann",
        smtp_password="hunter2",
        smtp_security="starttls",
        twilio_account_sid="AC1",
        twilio_auth_token="hunter3",
        twilio_sender="+14155550100",
        public_url="https://bell.example",
        link_key=f"{KEY},{KEY}",
        email_from="Bell <bell@mail.Example.net>",
        **DKIM,
    )
    assert settings.smtp_password is not None
    assert settings.smtp_password.get_secret_value() == "hunter2"
    assert "hunter" not in repr(settings)
    assert KEY not in repr(settings)


@pytest.mark.parametrize("sender", ["a@example.net", "a@deep.mail.EXAMPLE.net", "a@b\u00fccher.example.net"])
def test_a_dkim_domain_may_be_a_parent_of_the_senders(sender: str) -> None:
    assert Settings.read(email_from=sender, **DKIM).dkim_domain == "example.net"


def test_each_provider_secret_has_its_own_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BELLWIRE_SMS_SECRETS__ACME", '{"a": 1}')
    monkeypatch.setenv("BELLWIRE_SMS_SECRETS__OTHER_ONE", "123")
    settings = Settings.read()
    values = {name: secret.get_secret_value() for name, secret in settings.sms_secrets.items()}
    assert values == {"acme": '{"a": 1}', "other_one": "123"}
    assert "123" not in repr(settings)


def test_errors_show_no_secret_not_even_in_their_traceback() -> None:
    with pytest.raises(SettingsInvalid) as refused:
        Settings.read(smtp_username="ann", smtp_password="hunter2")
    with pytest.raises(SettingsInvalid) as second:
        Settings.read(registry_url="mysql://ann:hunter2@host/name")
    shown = [*traceback.format_exception(refused.value), *traceback.format_exception(second.value)]
    assert "hunter2" not in "".join(line for line in shown if "Settings.read(" not in line)


@pytest.mark.parametrize(
    ("given", "policy"),
    [
        ({}, DisablePolicy()),
        ({"disable_after": 0}, DisablePolicy(disable_after=None)),
        ({"disable_after_failures": 0}, DisablePolicy(disable_after=None, disable_after_failures=0)),
        ({"warn_after": "0"}, DisablePolicy(warn_after=())),
        ({"warn_after": "60,5,60"}, DisablePolicy(warn_after=(timedelta(seconds=5), timedelta(minutes=1)))),
        (
            {"disable_after": 60, "disable_after_failures": 3},
            DisablePolicy(disable_after=timedelta(minutes=1), disable_after_failures=3),
        ),
    ],
)
def test_the_disable_policy_is_configured_or_disabled(given: dict[str, Any], policy: DisablePolicy) -> None:
    assert Settings.read(**given).disable_policy == policy
