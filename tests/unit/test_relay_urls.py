"""BELLWIRE_SMTP_RELAYS: parsing of relay URLs, and errors that do not contain passwords."""

import traceback

import pytest

from bellwire.email.relay_urls import Relay, SmtpSecurity, parse_relays
from bellwire.service.settings import Settings, SettingsInvalid

HOST = "mail.example.com"


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"BELLWIRE_{name.upper()}", raising=False)


@pytest.mark.parametrize(
    ("url", "relay"),
    [
        ("smtp://mail.example.com", Relay(host=HOST, port=25)),
        ("SMTP://mail.example.com:2525/", Relay(host=HOST, port=2525)),
        ("smtp+starttls://mail.example.com", Relay(host=HOST, port=587, security=SmtpSecurity.STARTTLS)),
        ("smtps://[::1]", Relay(host="::1", port=465, security=SmtpSecurity.TLS)),
        (
            "smtps://ann%40example.com:a%2Fb%3A%2C%25@mail.example.com?priority=5&connections=3&verify=false",
            Relay.model_validate(
                {
                    "host": HOST,
                    "port": 465,
                    "security": "tls",
                    "username": "ann@example.com",
                    "password": "a/b:,%",
                    "priority": 5,
                    "connections": 3,
                    "verify": False,
                }
            ),
        ),
    ],
)
def test_a_url_is_parsed_to_a_relay(url: str, relay: Relay) -> None:
    assert parse_relays(url) == (relay,)


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("mail.example.com", "must be smtp://host"),
        ("http://mail.example.com", "must be smtp://host"),
        ("smtp://", "must be smtp://host"),
        ("smtp://mail.example.com/inbox", "must be smtp://host"),
        ("smtp://mail.example.com:smtp", "is not a URL"),
        ("smtp://mail.example.com:0", "port: must be greater than or equal to 1"),
        ("smtp://mail.example.com:70000", "is not a URL"),
        ("smtps://ann:hunt/er2@mail.example.com", "is not a URL"),
        ("smtps://ann:hunter2%ff@mail.example.com", "is not a URL"),
        ("smtps://ann@mail.example.com", "user without a password"),
        ("smtps://:hunter2@mail.example.com", "user without a password"),
        ("smtp://ann:hunter2@mail.example.com", "would send the password unencrypted"),
        ("smtp://mail.example.com?prio=1", "options are priority, connections, verify"),
        ("smtp://mail.example.com?priority=1&priority=2", "each once"),
        ("smtp://mail.example.com?priority=high", "priority: must be a whole number"),
        ("smtp://mail.example.com?connections=0", "connections: must be greater"),
        ("smtp://mail.example.com?verify=perhaps", "verify: must be true or false"),
        ("smtp://first", "is the same relay as entry 1, first:25"),
    ],
)
def test_the_error_for_an_invalid_entry_names_its_number_and_hides_its_password(
    monkeypatch: pytest.MonkeyPatch, entry: str, problem: str
) -> None:
    monkeypatch.setenv("BELLWIRE_SMTP_RELAYS", f"smtp://first, {entry}")
    with pytest.raises(SettingsInvalid) as refused:
        Settings.read()
    assert str(refused.value).startswith("BELLWIRE_SMTP_RELAYS: entry 2: ")
    assert problem in str(refused.value)
    shown = "".join(traceback.format_exception(refused.value))
    assert "hunt" not in shown


def test_several_relays_are_read_and_their_passwords_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BELLWIRE_SMTP_RELAYS", "smtps://ann:hunter2@one.example, smtp://two.example?priority=20,")
    settings = Settings.read()
    assert [relay.name for relay in settings.relays] == ["one.example:465", "two.example:25"]
    assert "hunter2" not in repr(settings)


def test_without_a_list_the_relay_comes_from_the_single_relay_settings() -> None:
    settings = Settings.read(smtp_host=HOST, smtp_port=587, smtp_security="starttls", smtp_verify=False)
    assert settings.relays == (Relay(host=HOST, port=587, security=SmtpSecurity.STARTTLS, verify=False),)


@pytest.mark.parametrize("one", [{"smtp_host": HOST}, {"smtp_port": 587}, {"smtp_verify": False}])
def test_a_list_cannot_be_combined_with_the_single_relay_settings(one: dict[str, object]) -> None:
    with pytest.raises(SettingsInvalid) as refused:
        Settings.read(smtp_relays="smtp://one.example", **one)
    (name,) = one
    assert str(refused.value) == f"BELLWIRE_SMTP_RELAYS and BELLWIRE_{name.upper()}: give one or the other"


def test_too_many_relays_are_refused() -> None:
    with pytest.raises(SettingsInvalid, match="BELLWIRE_SMTP_RELAYS: has 21 relays; at most 20"):
        Settings.read(smtp_relays=",".join(f"smtp://r{number}" for number in range(21)))
