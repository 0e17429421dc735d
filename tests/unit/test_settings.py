"""Settings: which variables are refused, by their name, and without showing what they hold."""

import re
import traceback
from ipaddress import ip_network
from typing import Any

import pytest

from bellwire.relays import SmtpSecurity
from bellwire.settings import LogFormat, Settings, SettingsInvalid


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"BELLWIRE_{name.upper()}", raising=False)


def test_every_setting_has_a_default() -> None:
    settings = Settings.read()
    assert settings.registry_url == "sqlite:///bellwire.db"
    assert settings.smtp_security is SmtpSecurity.NONE


@pytest.mark.parametrize(
    ("name", "value", "meant"),
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
        ("EGRESS_ALLOW", "127.0.0.0/8, ::1/128", (ip_network("127.0.0.0/8"), ip_network("::1/128"))),
        ("EMAIL_FROM", "ops@example.com", "ops@example.com"),
        ("EMAIL_FROM", "Caf\u00e9 <ops@example.com>", "Caf\u00e9 <ops@example.com>"),
        ("METRICS_ADDRESS", "[::1]:9464", "[::1]:9464"),
        ("HEALTH_ADDRESS", "localhost:8080", "localhost:8080"),
        ("LOG_FORMAT", "json", LogFormat.JSON),
    ],
)
def test_variables_are_read(monkeypatch: pytest.MonkeyPatch, name: str, value: str, meant: object) -> None:
    monkeypatch.setenv(f"BELLWIRE_{name}", value)
    assert getattr(Settings.read(), name.lower()) == meant


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("REGISTRY_URL", "mysql://h/n", "sqlite:/// or postgresql://"),
        ("REGISTRY_URL", "bellwire.db", "sqlite:/// or postgresql://"),
        ("REGISTRY_POOL", "0", "greater than or equal to 1"),
        ("SMTP_PORT", "smtp", "valid integer"),
        ("SMTP_PORT", "65536", "less than or equal to 65535"),
        ("SMTP_SECURITY", "ssl", "'none', 'starttls' or 'tls'"),
        ("SMTP_VERIFY", "perhaps", "valid boolean"),
        ("SMTP_CONNECTIONS", "201", "less than or equal to 200"),
        ("SMTP_TIMEOUT", "0", "greater than or equal to 1"),
        ("SMTP_TIMEOUT", "nan", "or equal to"),
        ("EMAIL_FROM", "nobody", "must be an address"),
        ("EMAIL_FROM", "ops@example.com\nBcc: eve@example.com", "must be an address"),
        ("TWILIO_URL", "api.twilio.com", "http or https URL"),
        ("TWILIO_URL", "https://[api", "is not a URL"),
        ("TWILIO_TIMEOUT", "61", "less than or equal to 60"),
        ("SMS_RECONCILE_AFTER", "-1", "greater than or equal to 0"),
        ("WEBHOOK_TIMEOUT", "31", "less than or equal to 30"),
        ("WEBHOOK_ALLOW_HTTP", "2", "valid boolean"),
        ("WEBHOOK_PORTS", "80,https", "valid integer"),
        ("WEBHOOK_PORTS", "80,0", "greater than or equal to 1"),
        ("WEBHOOK_PORTS", "80,*", "valid integer"),
        ("EGRESS_ALLOW", "intranet", "network"),
        ("EGRESS_ALLOW", "10.0.0.1/8", "network"),
        ("SEND_CONCURRENCY", "0", "greater than or equal to 1"),
        ("MAX_ACTIVITIES", "1001", "less than or equal to 1000"),
        ("SHUTDOWN_GRACE", "soon", "valid number"),
        ("METRICS_ADDRESS", "9464", "must be host:port"),
        ("METRICS_ADDRESS", "localhost:70000", "must be host:port"),
        ("HEALTH_ADDRESS", "localhost:http", "must be host:port"),
        ("LOG_FORMAT", "xml", "'console' or 'json'"),
        ("LOG_LEVEL", "debug", "DEBUG|INFO|WARNING|ERROR"),
    ],
)
def test_a_bad_variable_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, problem: str) -> None:
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
        ({"smtp_port": 0, "log_level": "loud"}, ["SMTP_PORT", "LOG_LEVEL"]),
        ({"smtp_prot": 25}, ["SMTP_PROT"]),
    ],
)
def test_every_variable_that_takes_part_is_named(given: dict[str, Any], named: list[str]) -> None:
    with pytest.raises(SettingsInvalid) as refused:
        Settings.read(**given)
    assert re.findall(r"BELLWIRE_([A-Z_]+)", str(refused.value)) == named


def test_settings_that_go_together_are_accepted() -> None:
    settings = Settings.read(
        smtp_username="ann",
        smtp_password="hunter2",
        smtp_security="starttls",
        twilio_account_sid="AC1",
        twilio_auth_token="hunter3",
        twilio_sender="+14155550100",
    )
    assert settings.smtp_password is not None
    assert settings.smtp_password.get_secret_value() == "hunter2"
    assert "hunter" not in repr(settings)


def test_a_refusal_shows_no_secret_not_even_in_its_traceback() -> None:
    with pytest.raises(SettingsInvalid) as refused:
        Settings.read(smtp_username="ann", smtp_password="hunter2")
    with pytest.raises(SettingsInvalid) as second:
        Settings.read(registry_url="mysql://ann:hunter2@host/name")
    shown = [*traceback.format_exception(refused.value), *traceback.format_exception(second.value)]
    assert "hunter2" not in "".join(line for line in shown if "Settings.read(" not in line)
