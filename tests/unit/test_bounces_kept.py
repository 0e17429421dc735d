"""`bounces` reads pipes once and to their end, and keeps the mails that it could not use."""

import asyncio
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from bellwire.contract import Group
from bellwire.registry import Registry
from bellwire.targets import Channel
from starter.cli.input.kept_mails import MAX_MAILS
from starter.cli.main import main
from tests.factories import event, subscription
from tests.reports import dsn
from tests.unit.test_bounces_command import ANN, BOB, EVENT, bounce, registry_url, suppressed, token

__all__ = ["registry_url"]

NO_REPORT = b"Subject: I am on holiday\r\n\r\nBack on Monday\r\n"


def results(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [each["result"] for each in json.loads(capsys.readouterr().out)]


def piped(raw: bytes) -> str:
    reader, writer = os.pipe()
    os.write(writer, raw)
    os.close(writer)
    return f"/dev/fd/{reader}"


def test_a_pipe_is_read_like_a_file(registry_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bounces", piped(bounce(to=token())), "--json"]) == 0
    assert results(capsys) == ["suppressed"]
    assert [each.address for each in suppressed(registry_url)] == [ANN]


def test_an_mbox_file_may_come_through_a_pipe(
    registry_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    start = b"From MAILER-DAEMON Mon Nov 23 08:00:00 2026\n"
    box = start + NO_REPORT + b"From Ann, at last\n\n" + start + bounce(to=token())
    assert main(["bounces", piped(box), "--json"]) == 0
    assert results(capsys) == ["unread", "suppressed"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(box)))
    assert main(["bounces", "--json"]) == 0
    assert results(capsys) == ["unread", "suppressed"]


@pytest.mark.parametrize("before", [b"\xef\xbb\xbf", b"\n\r\n", b"\xef\xbb\xbf \n"])
def test_no_mail_of_an_mbox_file_is_lost_to_what_comes_before_the_first(
    before: bytes, registry_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    start = b"From MAILER-DAEMON Mon Nov 23 08:00:00 2026\n"
    box = before + start + bounce(to=token(BOB)) + b"\n" + start + bounce(to=token())
    assert main(["bounces", piped(box), "--json"]) == 0
    assert results(capsys) == ["suppressed", "suppressed"]


def test_a_mail_of_a_pipe_that_cannot_be_used_is_kept_once_and_counted(
    registry_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for raw in (NO_REPORT, bounce(), NO_REPORT):
        assert main(["bounces", piped(raw)]) == 0
        out, err = capsys.readouterr()
        assert "unproven" in out if raw is not NO_REPORT else "unread" in out
        assert err == "1 of 1 mail not usable; kept in unread-bounces\n"
    kept = [*(tmp_path / "unread-bounces").iterdir()]
    assert sorted(file.read_bytes() for file in kept) == sorted([NO_REPORT, bounce()])
    assert {file.stat().st_mode & 0o777 for file in kept} == {0o600}
    assert main(["bounces", *map(str, kept), "--json"]) == 0
    assert sorted(results(capsys)) == ["unproven", "unread"]


@pytest.mark.parametrize("by", ["option", "setting"])
def test_the_folder_is_given_by_an_option_or_a_setting(
    by: str, registry_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mail.eml").write_bytes(NO_REPORT)
    option = ["--unread", "kept/here"] if by == "option" else []
    if by == "setting":
        monkeypatch.setenv("BELLWIRE_BOUNCES_UNREAD", "kept/here")
    assert main(["bounces", "mail.eml", *option]) == 0
    assert capsys.readouterr().err == "1 of 1 mail not usable; kept in kept/here\n"
    assert [file.read_bytes() for file in (tmp_path / "kept/here").iterdir()] == [NO_REPORT]


@pytest.mark.parametrize("reason", ["not a folder", "full"])
def test_a_mail_that_cannot_be_kept_stays_with_the_mail_server(
    reason: str, registry_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if reason == "full":
        (tmp_path / "unread-bounces").mkdir()
        for number in range(MAX_MAILS):
            (tmp_path / f"unread-bounces/{number}").touch()
    else:
        (tmp_path / "unread-bounces").write_text("a file")
    assert main(["bounces", piped(NO_REPORT)]) == 75
    assert ("BELLWIRE_BOUNCES_UNREAD" if reason != "full" else "look at them") in capsys.readouterr().err
    assert main(["bounces", piped(bounce(to=token()))]) == 0
    assert [each.address for each in suppressed(registry_url)] == [ANN]


@pytest.mark.parametrize("about", [ANN, "ann@forwarded.example"])
@pytest.mark.parametrize("message_id", [None, f"dlv_{event(id='2').key}_other@example.net"])
def test_a_token_without_subscription_needs_no_message_id(
    registry_url: str, about: str, message_id: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    long = "w" * 60

    async def prepare() -> None:
        registry = await Registry.open(registry_url)
        await registry.subscriptions.create(subscription({"channel": "email", "to": ANN}, id=long))
        group = Group(event_key=EVENT.key, channel=Channel.EMAIL, subscription_ids=(long,))
        await registry.deliveries.add("event//shop/1", [group])
        await registry.close()

    asyncio.run(prepare())
    raw = bounce(to=token(subscription_id=long), about=about, message_id=message_id)
    assert main(["bounces", piped(raw), "--json"]) == 0
    [printed] = json.loads(capsys.readouterr().out)
    assert (printed["result"], printed["address"]) == ("suppressed", ANN)
    assert printed["delivery"] == f"dlv_{EVENT.key}_{long}"


@pytest.mark.parametrize(
    ("others", "result"),
    [
        ([("bob@forwarded.example", "5.1.1")], "suppressed"),
        ([("ann@forwarded.example", "5.2.2")], "noted"),
        ([("ann@forwarded.example", "2.1.5")], "noted"),
    ],
)
def test_an_address_that_expands_to_several_is_suppressed_if_all_are_gone(
    registry_url: str, others: list[tuple[str, str]], result: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parts: list[Any] = [("carl@forwarded.example", "5.1.1"), *others]
    fields = "\n\n".join(
        f"Original-Recipient: rfc822; {ANN}\nFinal-Recipient: rfc822; {final}\n"
        f"Action: {'failed' if status.startswith('5') else 'relayed'}\nStatus: {status}"
        for final, status in parts
    )
    assert main(["bounces", piped(dsn(fields, to=token())), "--json"]) == 0
    assert results(capsys) == [result]
    assert len(suppressed(registry_url)) == (result == "suppressed")


def test_a_report_without_a_return_path_in_the_settings_is_kept(
    registry_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BELLWIRE_EMAIL_RETURN_PATH")
    monkeypatch.delenv("BELLWIRE_LINK_KEY")
    assert main(["bounces", piped(bounce(to=token())), "--json"]) == 0
    [printed] = json.loads(capsys.readouterr().out)
    assert printed["result"] == "unproven"
    assert "BELLWIRE_EMAIL_RETURN_PATH is not set" in printed["report"]
