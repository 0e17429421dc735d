"""Webhook subscriptions on the command line: options and secrets. Secret values are never printed."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bellwire.targets import WebhookTarget
from bellwire.webhooks import generate_secret, public_key
from starter.cli.main import main
from tests.certificates import Authority
from tests.unit.test_cli import GOOD, HOOK, MAIL, SUBSCRIBE, errors_of, output_of, registry_url, stored

__all__ = ["registry_url"]

HOOKED = [*SUBSCRIBE, *HOOK, "--id", "hook"]


def shown(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Everything that a command prints. It must succeed."""
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    return out + err


def test_the_options_of_webhooks_are_stored_and_secret_values_never_printed(
    registry_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pem = Authority().certificate("acme")
    file = tmp_path / "client.pem"
    file.write_text(pem)
    options = ["--format", "cloudevents-binary", "--timeout", "5s", "--client-certificate", str(file)]
    headers = ["--header", "Authorization: Bearer s3cret:x", "--header", "x-shop:s3cret"]
    printed = shown([*HOOKED, *options, *headers], capsys)
    (subscription,) = stored(registry_url)
    assert isinstance(subscription.target, WebhookTarget)
    assert {name: value.get_secret_value() for name, value in subscription.target.headers.items()} == {
        "Authorization": "Bearer s3cret:x",
        "x-shop": "s3cret",
    }
    assert (subscription.target.format, subscription.target.timeout) == ("cloudevents-binary", 5)
    assert subscription.target.client_certificate is not None
    assert subscription.target.client_certificate.get_secret_value() == pem
    for command in (["show", "hook"], ["show", "hook", "--json"], [], ["--json"], ["pause", "hook", "--json"]):
        printed += shown(["subscriptions", *command], capsys)
    assert "s3cret" not in printed
    assert "BEGIN" not in printed
    facts = shown(["subscriptions", "show", "hook"], capsys)
    for fact in (
        "cloudevents-binary",
        "Authorization, x-shop",
        "5s",
        "client certificate  expires 20",
        "a shared secret",
    ):
        assert fact in facts


def test_a_target_without_options_is_shown_without_them(registry_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown(HOOKED, capsys)
    facts = shown(["subscriptions", "show", "hook"], capsys)
    assert not [name for name in ("headers", "timeout", "client certificate") if name in facts]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([*HOOKED, "--format", "xml"], "--format"),
        ([*HOOKED, "--header", "s3cret"], "--header: is not NAME:VALUE"),
        ([*HOOKED, "--header", ":s3cret"], "--header: is not NAME:VALUE"),
        ([*HOOKED, "--header", "x:s3cret", "--header", "x:s3cret"], "--header: x is given twice"),
        ([*HOOKED, "--header", "Host:s3cret"], "target.headers: Host is set by Bellwire or by HTTP"),
        ([*HOOKED, "--header", "x:"], "target.headers.x: the value is not valid"),
        ([*HOOKED, "--timeout", "31s"], "target.timeout: must be less than or equal to 30"),
        ([*HOOKED, "--timeout", "soon"], "--timeout: 'soon' is not a valid duration; write 90s"),
        ([*HOOKED, "--client-certificate", "nowhere.pem"], "nowhere.pem: cannot be read"),
        ([*HOOKED, "--client-certificate", "pyproject.toml"], "client_certificate: no certificate found"),
        (
            [*HOOKED, "--format", "template", "--template", "order.paid"],
            "--template: no template order.paid exists for webhook",
        ),
        ([*SUBSCRIBE, *MAIL, "--format", "standard", "--timeout", "5s"], "format, timeout: only for --webhook"),
        ([*SUBSCRIBE, *MAIL, "--asymmetric"], "secret: only webhooks are signed"),
        (
            [*HOOKED, "--asymmetric", "--secret", generate_secret()],
            "--secret: is symmetric, but asymmetric is requested",
        ),
        ([*HOOKED, "--secret", public_key(generate_secret("asymmetric"))], "secret: whpk_ is a public key"),
        ([*HOOKED, "--secret", "whsk_s3cret"], "secret: whsk_ must be followed by"),
        (["subscribe", "--file", "x.json", "--header", "x:s3cret"], "--file: cannot be combined with other options"),
    ],
)
def test_a_bad_option_is_named_and_its_value_not_printed(
    arguments: list[str], named: str, registry_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (line,) = errors_of(arguments, capsys)
    assert named in line
    assert "s3cret" not in line
    assert stored(registry_url) == []


def test_a_file_has_the_same_fields_as_the_options(
    registry_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "many.json"
    target = {"channel": "webhook", "url": HOOK[1], "format": "standard", "headers": {"x": "s3cret"}, "timeout": 5}
    file.write_text(json.dumps([{**GOOD, "target": target, "asymmetric": True, "id": "one"}]))
    (made,) = output_of(["subscribe", "--file", str(file)], capsys)
    assert made["public_key"].startswith("whpk_")
    assert "secret" not in made
    assert "s3cret" not in json.dumps(made)
    file.write_text(json.dumps([{**GOOD, "asymmetric": "yes"}]))
    assert "asymmetric: must be true or false" in errors_of(["subscribe", "--file", str(file)], capsys)[0]


def test_a_template_for_webhooks_must_exist_if_the_format_needs_it(
    registry_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "chat").mkdir()
    (tmp_path / "chat" / "webhook.json").write_text('{"text": {{ data.order }}}')
    monkeypatch.setenv("BELLWIRE_TEMPLATES", str(tmp_path))
    assert output_of([*HOOKED, "--format", "template", "--template", "chat"], capsys)["template"] == "chat"
    assert output_of(["templates", "list"], capsys)["chat"] == ["webhook"]
    parts = output_of(["templates", "preview", "chat", "--data", '{"order": "4\\"2"}'], capsys)
    assert json.loads(parts["webhook.json"]) == {"text": '4"2'}


def test_an_asymmetric_secret_is_not_shown_but_its_public_key_is(
    registry_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = shown([*HOOKED, "--asymmetric"], capsys)
    key = next(word for word in printed.split() if word.startswith("whpk_"))
    assert "whsk_" not in printed
    facts = shown(["subscriptions", "show", "hook"], capsys)
    assert f"signed by       {key}" in facts
    brought = generate_secret("asymmetric")
    printed = shown([*SUBSCRIBE, *HOOK, "--secret", brought], capsys)
    assert public_key(brought) in printed
    assert brought not in printed


def test_a_rotated_secret_is_shown_once_and_the_old_one_expires(
    registry_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    old = output_of(HOOKED, capsys)["secret"]
    new = output_of(["subscriptions", "rotate", "hook", "--overlap", "2h"], capsys)
    assert new["secret"].startswith("whsec_")
    assert new["secret"] != old
    assert [key["kind"] for key in new["keys"]] == ["symmetric", "symmetric"]
    newest, replaced = (key["expires_at"] for key in new["keys"])
    assert newest is None
    assert timedelta() < datetime.fromisoformat(replaced) - datetime.now(UTC) <= timedelta(hours=2)
    printed = shown(["subscriptions", "show", "hook"], capsys) + shown(
        ["subscriptions", "show", "hook", "--json"], capsys
    )
    assert "a shared secret, until 20" in printed
    for secret in (old, new["secret"]):
        assert secret not in printed
    printed = shown(["subscriptions", "rotate", "hook"], capsys)
    assert "signing secret, shown once  whsec_" in printed
    assert printed.count("an old symmetric key signs as well until 20") == 2


def test_revoked_secrets_do_not_overlap_and_another_kind_can_follow(
    registry_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output_of(HOOKED, capsys)
    made = output_of(["subscriptions", "rotate", "hook", "--asymmetric", "--revoke"], capsys)
    assert [key["public_key"] for key in made["keys"]] == [made["public_key"]]
    again = output_of(["subscriptions", "rotate", "hook", "--revoke"], capsys)
    assert again["public_key"] != made["public_key"]
    assert "secret" in output_of(["subscriptions", "rotate", "hook", "--symmetric"], capsys)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--overlap", "31d"], "overlap: must be 0 to 30 days"),
        (["--overlap", "9" * 400 + "d"], "is out of range; the longest duration is 36500d"),
        (["--overlap", "soon"], "--overlap: 'soon' is not a valid duration"),
        (["--overlap", "1h", "--revoke"], "--revoke: cannot be combined with --overlap"),
        (["--secret", "whsec_s3cret"], "secret: must be whsec_"),
    ],
)
def test_a_bad_rotation_is_refused_and_changes_nothing(
    options: list[str], named: str, registry_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output_of(HOOKED, capsys)
    before = output_of(["subscriptions", "show", "hook"], capsys)
    (line,) = errors_of(["subscriptions", "rotate", "hook", *options], capsys)
    assert named in line
    assert "s3cret" not in line
    assert output_of(["subscriptions", "show", "hook"], capsys) == before


def test_a_subscription_that_is_not_signed_has_no_secret_to_rotate(
    registry_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output_of([*SUBSCRIBE, *MAIL, "--id", "mail"], capsys)
    assert "only webhooks are signed" in errors_of(["subscriptions", "rotate", "mail"], capsys)[0]
    assert "keys" not in output_of(["subscriptions", "show", "mail"], capsys)
    assert main(["subscriptions", "rotate", "unknown"]) == 1
