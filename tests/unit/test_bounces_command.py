"""`bounces` and `suppressions` against a real SQLite registry: who is suppressed on what proof, and what mail servers hear."""

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

ANN, BOB, EVE = "ann@example.com", "Bob@Example.com", "eve@example.com"
KEY, FOREIGN = (base64.b64encode(letter * 32).decode() for letter in (b"k", b"x"))
PATH = ReturnPath("bounces@example.net", LinkKeys(KEY))
HAPPENED = event(id="1")


@pytest.fixture
def registry_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A registry with one delivery to ann and bob; commands use it, and know the key of return paths."""
    url = f"sqlite:///{tmp_path / 'registry.db'}"
    monkeypatch.setenv("BELLWIRE_REGISTRY_URL", url)
    monkeypatch.setenv("BELLWIRE_EMAIL_RETURN_PATH", "bounces@example.net")
    monkeypatch.setenv("BELLWIRE_LINK_KEY", KEY)

    async def prepare() -> None:
        registry = await Registry.open(url)
        await registry.migrate()
        await registry.subscriptions.create(subscription({"channel": "email", "to": [ANN, BOB]}, id="sub"))
        await registry.events.accept([HAPPENED], "event//shop/1")
        group = Group(event_key=HAPPENED.key, channel=Channel.EMAIL, subscription_ids=("sub",))
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
    message_id = fields.pop("message_id", f"dlv_{HAPPENED.key}_sub@example.net")
    returned = f"Message-ID: <{message_id}>" if message_id else "Subject: Hi"
    return dsn(f"Final-Recipient: rfc822; {about}\nAction: failed\nStatus: {status}", to=to, returned=returned)


def token(recipient: str = ANN, subscription_id: str = "sub") -> str:
    return PATH.sender(HAPPENED.key, subscription_id, recipient)


def taken(raw: bytes, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the command says that it did with a mail on its stdin, which it must accept."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))
    assert main(["bounces", "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    [one] = json.loads(out)
    found: dict[str, Any] = one
    return found


@pytest.mark.parametrize(
    ("raw", "address", "signed"),
    [
        (bounce(to=token(), message_id=None), ANN, True),
        (bounce(to=token(), message_id=None, about="ann2@forwarded.example"), ANN, True),
        (bounce(to=token(BOB), about="bob@example.COM"), BOB, True),
        (bounce(about="ANN@example.com"), ANN, False),
        (bounce(to=token(subscription_id="w" * 60)[:-1] + "x", about=BOB), BOB, False),
    ],
    ids=["token", "forwarded", "another spelling", "message id", "message id beside a bad token"],
)
def test_a_dead_address_is_suppressed_for_all_subscriptions(
    registry_url: str,
    raw: bytes,
    address: str,
    signed: bool,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = taken(raw, capsys, monkeypatch)
    assert (said["result"], said["report"], said["reason"]) == ("suppressed", "failed 5.1.1", "bounced")
    assert (said["address"], said["signed"]) == (address, signed)
    assert said["delivery"] == f"dlv_{HAPPENED.key}_sub"
    [only] = suppressed(registry_url)
    assert (only.address, only.subscription_id, only.reason) == (address, "", "bounced")


@pytest.mark.parametrize(
    "raw",
    [
        bounce(about=EVE),
        bounce(message_id=None),
        bounce(message_id="1@example.net"),
        bounce(message_id=f"dlv_{event(id='2').key}_sub@example.net"),
        bounce(message_id=f"dlv_{HAPPENED.key}_other@example.net"),
        bounce(
            to=ReturnPath("bounces@example.net", LinkKeys(FOREIGN)).sender(HAPPENED.key, "sub", ANN), message_id=None
        ),
        bounce(to=token(BOB)[:-20] + "A" * 8 + "@example.net", message_id=None),
        bounce(to=token(subscription_id="other"), about=EVE, message_id=None),
    ],
    ids=["no recipient", "no id", "no id of ours", "no event", "no subscription", "another key", "made up", "not hers"],
)
def test_a_report_that_proves_nothing_suppresses_nobody(
    registry_url: str, raw: bytes, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = taken(raw, capsys, monkeypatch)
    assert (said["result"], said["address"]) == ("ignored", None)
    assert suppressed(registry_url) == []


def test_a_bounce_of_ones_own_mail_suppresses_nobody_else(
    registry_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = taken(bounce(to=token(ANN), about=BOB, message_id=None), capsys, monkeypatch)
    assert said["address"] == ANN
    assert [each.address for each in suppressed(registry_url)] == [ANN]


@pytest.mark.parametrize("status", ["5.7.1", "5.2.2", "4.4.1", "5.0.0"])
def test_what_says_nothing_about_the_address_is_noted_only(
    registry_url: str, status: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = taken(bounce(to=token(), status=status), capsys, monkeypatch)
    assert (said["result"], said["report"], said["reason"]) == ("noted", f"failed {status}", None)
    assert suppressed(registry_url) == []


@pytest.mark.parametrize(
    ("feedback", "reason"), [("abuse", "complained"), ("opt-out", "unsubscribed"), ("not-spam", None)]
)
def test_a_complaint_suppresses_whoever_complains(
    registry_url: str,
    feedback: str,
    reason: str | None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    redacted = arf(feedback, more=f"Original-Mail-From: <{token()}>", returned="Subject: Hi\nTo: redacted")
    said = taken(redacted, capsys, monkeypatch)
    assert (said["report"], said["reason"], said["signed"]) == (f"feedback: {feedback}", reason, True)
    assert [str(each.reason) for each in suppressed(registry_url)] == ([reason] if reason else [])


def test_files_folders_and_boxes_are_read(
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
    said = json.loads(capsys.readouterr().out)
    assert [(each["mail"].removeprefix(str(tmp_path)), each["result"]) for each in said] == [
        ("/one.eml", "suppressed"),
        ("/box mail 1", "ignored"),
        ("/box mail 2", "suppressed"),
        ("/Maildir/cur/1", "ignored"),
        ("/Maildir/new/1", "ignored"),
    ]
    assert {each.address for each in suppressed(registry_url)} == {ANN, BOB}


def test_a_mail_with_the_line_that_pipes_put_before_it_is_read(
    registry_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = taken(b"From MAILER-DAEMON Mon Nov 23 08:00:00 2026\r\n" + bounce(to=token()), capsys, monkeypatch)
    assert said["result"] == "suppressed"


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("BELLWIRE_REGISTRY_URL", "postgresql://bell@127.0.0.1:1/wire", "cannot be reached"),
        ("BELLWIRE_REGISTRY_URL", "sqlite:///{folder}/empty.db", "python -m starter setup"),
        ("BELLWIRE_LINK_KEY", "short", "BELLWIRE_LINK_KEY: each key must be"),
    ],
)
def test_a_mail_server_is_asked_to_try_again_when_it_is_not_the_mails_fault(
    registry_url: str,
    tmp_path: Path,
    name: str,
    value: str,
    told: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(name, value.format(folder=tmp_path))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(bounce())))
    assert main(["bounces"]) == 75
    out, err = capsys.readouterr()
    assert (out, told in err) == ("", True)


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


def test_a_suppression_that_was_there_keeps_its_reason(
    registry_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken(bounce(to=token()), capsys, monkeypatch)
    assert main(["suppressions", "add", ANN, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reason"] == "bounced"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["add", "ann"], "ADDRESS: to: is not an E.164 number"),
        (["add", "ann", "--channel", "email"], "ADDRESS: to.one: is not an email address"),
        (["lift", "https://a.example", "--channel", "webhook"], "--channel: a webhook has no address"),
        (["--before", "yesterday"], "--before: 'yesterday' is not a valid time"),
    ],
)
def test_bad_input_is_named(
    registry_url: str, arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["suppressions", *arguments]) == 2
    assert told in capsys.readouterr().err
