"""`bounces` and `suppressions` against a real SQLite registry: which reports suppress an address, and exit statuses."""

import asyncio
import base64
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from bellwire.contract import Group
from bellwire.email.return_path import ReturnPath
from bellwire.email.unsubscribe_links import LinkKeys
from bellwire.registry import Registry
from bellwire.suppressions import Suppression
from bellwire.targets import Channel
from starter.cli.main import main
from tests.factories import event, subscription
from tests.reports import arf, dsn

ANN, BOB, EVE = "ann@example.com", "Bob@example.com", "eve@example.com"
KEY, FOREIGN = (base64.b64encode(letter * 32).decode() for letter in (b"k", b"x"))
PATH = ReturnPath("bounces@example.net", LinkKeys(KEY))
EVENT = event(id="1")


@pytest.fixture
def registry_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a registry with one delivery to ann and bob; commands use it and have the key of return paths."""
    url = f"sqlite:///{tmp_path / 'registry.db'}"
    monkeypatch.setenv("BELLWIRE_REGISTRY_URL", url)
    monkeypatch.setenv("BELLWIRE_EMAIL_RETURN_PATH", "bounces@example.net")
    monkeypatch.setenv("BELLWIRE_LINK_KEY", KEY)
    monkeypatch.chdir(tmp_path)

    async def prepare() -> None:
        registry = await Registry.open(url)
        await registry.migrate()
        await registry.subscriptions.create(subscription({"channel": "email", "to": [ANN, BOB]}, id="sub"))
        await registry.events.accept([EVENT], "event//shop/1")
        group = Group(event_key=EVENT.key, channel=Channel.EMAIL, subscription_ids=("sub",))
        await registry.deliveries.add("event//shop/1", [group])
        await registry.close()

    asyncio.run(prepare())
    return url


def suppressed(url: str) -> list[Suppression]:
    async def read() -> list[Suppression]:
        registry = await Registry.open(url)
        try:
            return list(await registry.suppressions.list())
        finally:
            await registry.close()

    return asyncio.run(read())


def bounce(
    *, to: str = "bounces@example.net", about: str = "ann@example.com", status: str = "5.1.1", **fields: Any
) -> bytes:
    message_id = fields.pop("message_id", f"dlv_{EVENT.key}_sub@example.net")
    returned = f"Message-ID: <{message_id}>" if message_id else "Subject: Hi"
    return dsn(f"Final-Recipient: rfc822; {about}\nAction: failed\nStatus: {status}", to=to, returned=returned)


def token(recipient: str = ANN, subscription_id: str = "sub") -> str:
    return PATH.sender(EVENT.key, subscription_id, recipient)


def processed(raw: bytes, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The JSON that the command prints for a mail on its stdin. It must succeed, and keep what has no effect."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))
    assert main(["bounces", "--json"]) == 0
    out, err = capsys.readouterr()
    [one] = json.loads(out)
    found: dict[str, Any] = one
    if found["result"] in {"unproven", "unread"}:
        assert err == "1 of 1 mail not usable; kept in unread-bounces\n"
        assert Path(found["kept"]).read_bytes() == raw
    else:
        assert (err, found["kept"]) == ("", None)
    return found


@pytest.mark.parametrize(
    ("raw", "address"),
    [
        (bounce(to=token(), message_id=None), ANN),
        (bounce(to=token(), message_id=None, about="ann2@forwarded.example"), ANN),
        (bounce(to=token(BOB), about="bob@example.COM"), BOB),
        (bounce(to=f"{token()} <{token()}>", message_id=None), ANN),
        (bounce(to=f"prvs=1906abcd={token()}", message_id=None), ANN),
        (bounce(to=f"btv1==489040e8aa2=={token()}", message_id=None), ANN),
        (
            bounce(to=f"SRS0=Xy1z=GA=example.net={token().partition('@')[0]}@forwarder.example", message_id=None),
            ANN,
        ),
        (bounce(to=token().replace("+", "+2B", 1), message_id=None), ANN),
        (bounce(to=f"\"'{token()}'\" <'{token()}'>", message_id=None), ANN),
        (bounce(to=token().lower()), ANN),
        (b"Resent-To: " + token().encode() + b"\r\n" + bounce(to="postmaster@example.net", message_id=None), ANN),
    ],
    ids=[
        "token",
        "forwarded",
        "another spelling",
        "address as name",
        "prvs",
        "btv1",
        "SRS",
        "xtext",
        "quotes",
        "changed case",
        "another field",
    ],
)
def test_a_dead_address_is_suppressed_for_all_subscriptions(
    registry_url: str,
    raw: bytes,
    address: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    printed = processed(raw, capsys, monkeypatch)
    assert (printed["result"], printed["report"], printed["reason"]) == ("suppressed", "failed 5.1.1", "bounced")
    assert printed["address"] == address
    assert printed["delivery"] == f"dlv_{EVENT.key}_sub"
    [only] = suppressed(registry_url)
    assert (only.address, only.subscription_id, only.reason) == (address, "", "bounced")


@pytest.mark.parametrize(
    "raw",
    [
        bounce(),
        bounce(about="ANN@example.com"),
        bounce(to=token().lower(), message_id=None),
        bounce(to=PATH.sender(event(id="2").key, "sub", ANN).lower()),
        bounce(to=token(subscription_id="w" * 60)[:-1] + "x", about=BOB),
        bounce(about=EVE),
        bounce(message_id=None),
        bounce(message_id="1@example.net"),
        bounce(message_id=f"dlv_{event(id='2').key}_sub@example.net"),
        bounce(message_id=f"dlv_{EVENT.key}_other@example.net"),
        bounce(to=ReturnPath("bounces@example.net", LinkKeys(FOREIGN)).sender(EVENT.key, "sub", ANN), message_id=None),
        bounce(to=token(BOB)[:-20] + "A" * 8 + "@example.net", message_id=None),
        bounce(to=token(subscription_id="other"), about=EVE, message_id=None),
    ],
    ids=[
        "no token",
        "no token, another spelling",
        "changed case, no message id",
        "changed case, another event",
        "a bad token",
        "no recipient",
        "no id",
        "another id",
        "no event",
        "no subscription",
        "another key",
        "made up",
        "not hers",
    ],
)
def test_a_report_that_proves_no_delivery_suppresses_nothing(
    registry_url: str, raw: bytes, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = processed(raw, capsys, monkeypatch)
    assert (printed["result"], printed["address"]) == ("unproven", None)
    assert suppressed(registry_url) == []


def test_a_bounce_suppresses_only_the_recipient_of_its_return_path(
    registry_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = processed(bounce(to=token(ANN), about=BOB, message_id=None), capsys, monkeypatch)
    assert printed["address"] == ANN
    assert [each.address for each in suppressed(registry_url)] == [ANN]


@pytest.mark.parametrize("status", ["5.7.1", "5.2.2", "4.4.1", "5.0.0"])
def test_a_report_that_is_not_about_the_address_is_only_noted(
    registry_url: str, status: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = processed(bounce(to=token(), status=status), capsys, monkeypatch)
    assert (printed["result"], printed["report"], printed["reason"]) == ("noted", f"failed {status}", None)
    assert suppressed(registry_url) == []


@pytest.mark.parametrize(
    ("feedback", "reason"), [("abuse", "complained"), ("opt-out", "unsubscribed"), ("not-spam", None)]
)
def test_a_complaint_suppresses_the_recipient_who_complains(
    registry_url: str,
    feedback: str,
    reason: str | None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    redacted = arf(feedback, more=f"Original-Mail-From: <{token()}>", returned="Subject: Hi\nTo: redacted")
    printed = processed(redacted, capsys, monkeypatch)
    assert (printed["report"], printed["reason"]) == (f"feedback: {feedback}", reason)
    assert [str(each.reason) for each in suppressed(registry_url)] == ([reason] if reason else [])


def test_files_maildirs_and_mbox_files_are_read(
    registry_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = tmp_path / "one.eml"
    one.write_bytes(bounce(to=token()))
    box = tmp_path / "box"
    other = b"From mailer@x Mon Nov 23 08:00:00 2026\nSubject: Hi\n\nHello\n\n"
    box.write_bytes(other + b"From mailer@x Mon Nov 23 08:00:00 2026\n" + bounce(to=token(BOB), about=BOB) + b"\n\n")
    folder = tmp_path / "Maildir"
    for part in ("new", "cur", "tmp"):
        (folder / part).mkdir(parents=True)
        (folder / part / "1").write_bytes(arf())
    assert main(["bounces", str(one), str(box), str(folder), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [(each["mail"].removeprefix(str(tmp_path)), each["result"]) for each in printed] == [
        ("/one.eml", "suppressed"),
        ("/box mail 1", "unread"),
        ("/box mail 2", "suppressed"),
        ("/Maildir/cur/1", "unproven"),
        ("/Maildir/new/1", "unproven"),
    ]
    assert not (tmp_path / "unread-bounces").exists()
    assert {each.address for each in suppressed(registry_url)} == {ANN, BOB}


def test_a_mail_with_a_from_line_is_read(
    registry_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = processed(b"From MAILER-DAEMON Mon Nov 23 08:00:00 2026\r\n" + bounce(to=token()), capsys, monkeypatch)
    assert printed["result"] == "suppressed"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("BELLWIRE_REGISTRY_URL", "postgresql://bell@127.0.0.1:1/wire", "cannot be reached"),
        ("BELLWIRE_REGISTRY_URL", "sqlite:///{folder}/empty.db", "python -m starter setup"),
        ("BELLWIRE_LINK_KEY", "short", "BELLWIRE_LINK_KEY: each key must be"),
    ],
)
def test_the_exit_status_is_75_when_the_mail_is_not_the_reason(
    registry_url: str,
    tmp_path: Path,
    name: str,
    value: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(name, value.format(folder=tmp_path))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(bounce())))
    assert main(["bounces"]) == 75
    out, err = capsys.readouterr()
    assert (out, message in err) == ("", True)


def test_a_file_that_cannot_be_read_is_named(
    registry_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bounces", f"{tmp_path}/none.eml"]) == 2
    assert "none.eml: cannot be read: No such file or directory" in capsys.readouterr().err
    assert main(["bounces", str(tmp_path)]) == 2
    assert "is not a Maildir" in capsys.readouterr().err


def test_suppressions_are_added_listed_by_pages_and_lifted(
    registry_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for address in (ANN, "+14155550123", "carl@example.com"):
        assert main(["suppressions", "add", address]) == 0
    capsys.readouterr()
    assert main(["suppressions", "--limit", "1", "--channel", "email"]) == 0
    out, err = capsys.readouterr()
    assert "carl@example.com" in out
    before = err.split("--before ")[1].strip()
    assert main(["suppressions", "--before", before, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(each["channel"], each["address"]) for each in found] == [("sms", "+14155550123"), ("email", ANN)]
    assert main(["suppressions", "--address", "ANN@example.com", "--json"]) == 0
    [only] = json.loads(capsys.readouterr().out)
    assert (only["address"], only["reason"], only["subscription_id"]) == (ANN, "operator", "")
    assert main(["suppressions", "lift", "ANN@example.com"]) == 0
    assert main(["suppressions", "lift", ANN]) == 1
    assert "is not suppressed on email; nothing was changed" in capsys.readouterr().err
    assert {each.address for each in suppressed(registry_url)} == {"+14155550123", "carl@example.com"}


def test_suppressions_are_counted_and_lifted_by_their_cause(
    registry_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    processed(bounce(to=token()), capsys, monkeypatch)
    processed(arf(more=f"Original-Mail-From: <{token(BOB)}>", returned="Subject: Hi"), capsys, monkeypatch)
    assert main(["suppressions", "add", "carl@example.com"]) == 0
    capsys.readouterr()
    for options, addresses in (
        (["--cause", "5.1.1"], {ANN}),
        (["--cause", "abuse"], {BOB}),
        (["--reason", "bounced", "--since", "2020-01-01"], {ANN}),
        (["--reason", "bounced", "--since", "2999-01-01"], set()),
        (["--cause", "5.1.1", "--channel", "sms"], set()),
    ):
        assert main(["suppressions", "lift", *options, "--json"]) == 0
        printed = json.loads(capsys.readouterr().out)
        assert (printed["count"], printed["lifted"]) == (len(addresses), False)
        assert {each["address"] for each in printed["suppressions"]} == addresses
    assert main(["suppressions", "lift", "--cause", "5.1.1"]) == 0
    out, err = capsys.readouterr()
    assert (ANN in out, "1 suppressions match. Nothing was changed: add --yes" in err) == (True, True)
    assert main(["suppressions", "lift", "--cause", "5.1.1", "--yes"]) == 0
    assert capsys.readouterr().err == "1 suppressions were lifted\n"
    assert {each.address for each in suppressed(registry_url)} == {BOB, "carl@example.com"}
    for wrong in (["lift"], ["lift", "--yes"], ["lift", BOB, "--cause", "abuse"]):
        assert main(["suppressions", *wrong]) == 2
    assert {each.address for each in suppressed(registry_url)} == {BOB, "carl@example.com"}


def test_a_suppression_that_was_there_keeps_its_reason(
    registry_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    processed(bounce(to=token()), capsys, monkeypatch)
    assert main(["suppressions", "add", ANN, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reason"] == "bounced"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["add", "ann"], "ADDRESS: is not an E.164 number"),
        (["add", "ann", "--channel", "email"], "ADDRESS: is not an email address"),
        (["lift", "https://a.example", "--channel", "webhook"], "--channel: a webhook has no address"),
        (["--before", "yesterday"], "--before: 'yesterday' is not a valid time"),
    ],
)
def test_bad_input_is_named(
    registry_url: str, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["suppressions", *arguments]) == 2
    assert message in capsys.readouterr().err
