"""Reports of mail systems: what is read out of them, however they deviate, and that no bytes break the reader."""

import base64
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellwire.email.bounce_reports import (
    MAX_BYTES,
    Action,
    NotABounce,
    Report,
    parse_report,
)
from bellwire.email.status_codes import code_at_start
from tests.reports import MESSAGE_ID, arf, dsn, mail

ANN = "ann@example.com"
#: Repetitions that make a malicious mail of some megabytes.
LARGE = 256 * 1024
GONE = f"""
Final-Recipient: rfc822; {ANN}
Original-Recipient: rfc822;{ANN}
Action: failed
Status: 5.1.1
Remote-MTA: dns; mx.example.com
Diagnostic-Code: smtp; 550 5.1.1 <{ANN}>: Recipient address rejected: User unknown
"""


def only(raw: bytes) -> tuple[Action, str | None, tuple[str, ...], bool]:
    report = parse_report(raw)
    (reported,) = report.recipients
    return reported.action, reported.status, reported.addresses, reported.is_gone


def test_a_delivery_status_notification_names_recipient_and_mail() -> None:
    report = parse_report(dsn(GONE, to="<bounces+token@example.net>"))
    (reported,) = report.recipients
    assert (reported.action, reported.status, reported.addresses) == (Action.FAILED, "5.1.1", (ANN,))
    assert (report.message_id, report.returned_to, report.feedback) == (
        MESSAGE_ID,
        ("bounces+token@example.net",),
        None,
    )


@pytest.mark.parametrize(
    ("status", "is_gone"),
    [
        ("5.1.1", True),
        ("5.1.2", True),
        ("5.1.10", True),
        ("5.1.3", True),
        ("5.1.6", True),
        ("5.1.0", False),
        ("5.1.9", False),
        ("5.1.20", False),
        ("5.1.90", False),
        ("5.2.1", False),
        ("5.1.7", False),
        ("5.1.8", False),
        ("5.2.2", False),
        ("5.2.10", False),
        ("5.7.1", False),
        ("5.7.26", False),
        ("5.4.4", False),
        ("5.0.0", False),
        ("4.1.1", False),
        ("5.11.1", False),
    ],
)
def test_only_codes_for_a_missing_mailbox_mark_an_address_as_gone(status: str, is_gone: bool) -> None:
    fields = f"Final-Recipient: rfc822; {ANN}\nAction: failed\nStatus: {status}"
    assert only(dsn(fields)) == (Action.FAILED, status, (ANN,), is_gone)


@pytest.mark.parametrize("action", ["delayed", "delivered", "relayed", "expanded"])
def test_an_action_other_than_failed_does_not_mark_an_address_as_gone(action: str) -> None:
    assert only(dsn(GONE.replace("failed", action))) == (Action(action), "5.1.1", (ANN,), False)


@pytest.mark.parametrize(
    ("fields", "read"),
    [
        # Exim: a generic status, and the code in the diagnostic.
        (
            f"Action: failed\nFinal-Recipient: rfc822;{ANN}\nStatus: 5.0.0\nDiagnostic-Code: smtp; 550 5.1.1 gone",
            (Action.FAILED, "5.1.1", True),
        ),
        (
            f"Action: failed\nFinal-Recipient: rfc822;{ANN}\nStatus: 5.0.0\nDiagnostic-Code: smtp; 550 gone",
            (Action.FAILED, "5.0.0", False),
        ),
        # A specific status wins over the diagnostic.
        (
            f"Action: failed\nFinal-Recipient: rfc822;{ANN}\nStatus: 5.7.1\nDiagnostic-Code: smtp; 550 5.1.1 gone",
            (Action.FAILED, "5.7.1", False),
        ),
        (
            f"Action: failed\nFinal-Recipient: rfc822;{ANN}\nStatus: 4.0.0\nDiagnostic-Code: smtp; 550 5.1.1 gone",
            (Action.FAILED, "4.0.0", False),
        ),
        # Exchange.
        (
            f"Final-recipient: RFC822;{ANN}\nAction: failed\nStatus: 5.1.10\nDiagnostic-code: smtp;550 5.1.10 RESOLVER.ADR",
            (Action.FAILED, "5.1.10", True),
        ),
        (
            f"FINAL-RECIPIENT: rfc822;\n\t<{ANN}>\nACTION: Failed (bad mailbox)\nSTATUS: 5.1.1 (unknown user)",
            (Action.FAILED, "5.1.1", True),
        ),
        (f"Final-Recipient: {ANN}\nAction: failed\nStatus: 5.1.1", (Action.FAILED, "5.1.1", True)),
        (f"Final-Recipient: rfc822; {ANN}\nStatus: 5.1.1", (Action.FAILED, "5.1.1", True)),
        (f"Final-Recipient: rfc822; {ANN}\nStatus: 4.4.1", (Action.DELAYED, "4.4.1", False)),
        (f"Final-Recipient: rfc822; {ANN}\nAction: failed", (Action.FAILED, None, False)),
        (f"Final-Recipient: rfc822; {ANN}\nAction: exploded\nStatus: x", (Action.DELAYED, None, False)),
        (f"Action: failed\nStatus: 5.1.1\nFinal-Recipient: x400; {ANN}\nStatus: 5.7.1", (Action.FAILED, "5.1.1", True)),
        # An IP address in the diagnostic is not a code.
        (
            f"Final-Recipient: rfc822; {ANN}\nAction: failed\nDiagnostic-Code: smtp; 550 from 192.5.1.1 refused",
            (Action.FAILED, None, False),
        ),
    ],
)
def test_deviations_from_the_standard_are_accepted(fields: str, read: tuple[Action, str | None, bool]) -> None:
    action, status, addresses, is_gone = only(dsn(fields))
    assert ((action, status, is_gone), addresses) == (read, (ANN,))


def test_the_original_recipient_comes_before_the_final_recipient() -> None:
    fields = "Original-Recipient: rfc822;ann@example.com\nFinal-Recipient: rfc822;ann2@other.example\nAction: failed"
    assert only(dsn(fields))[2] == (ANN, "ann2@other.example")
    fields = "Final-Recipient: rfc822;ann2@other.example\nAction: failed"
    assert only(dsn(fields))[2] == ("ann2@other.example", ANN)


def test_several_recipients_are_reported_separately() -> None:
    report = parse_report(
        dsn(f"{GONE.strip()}\n\nFinal-Recipient: rfc822; bob@example.com\nAction: delayed\nStatus: 4.2.2")
    )
    assert [(each.addresses, each.is_gone) for each in report.recipients] == [
        ((ANN,), True),
        (("bob@example.com",), False),
    ]


@pytest.mark.parametrize(
    "address", ["utf-8; j\\x{FC}rgen@example.com", "utf-8; jürgen@example.com", "rfc822; jürgen@example.com"]
)
def test_non_ascii_addresses_are_read_in_every_form(address: str) -> None:
    raw = dsn(
        f"Final-Recipient: {address}\nAction: failed\nStatus: 5.1.1",
        kind="message/global-delivery-status",
        returned_as="message/global-headers",
        returned=f"Message-ID: <{MESSAGE_ID}>",
    )
    assert only(raw) == (Action.FAILED, "5.1.1", ("jürgen@example.com",), True)
    assert parse_report(raw).message_id == MESSAGE_ID


@pytest.mark.parametrize("kind", ["message/rfc822", "text/rfc822-headers", "Message/RFC822", "message/global"])
def test_the_returned_mail_may_be_complete_or_headers_only(kind: str) -> None:
    returned = f"Return-Path: <bounces+old@example.net>\nMessage-ID:\n <{MESSAGE_ID}>"
    report = parse_report(dsn(GONE, returned=returned, returned_as=kind))
    assert (report.message_id, report.returned_to) == (MESSAGE_ID, ("bounces@example.net", "bounces+old@example.net"))


def test_a_report_without_the_returned_mail_is_accepted() -> None:
    raw = dsn(GONE)
    cut = raw[: raw.index(b"--B1/mx\r\nContent-Type: message/rfc822")]
    assert (only(cut)[3], parse_report(cut).message_id) == (True, None)


def test_encoded_parts_are_decoded() -> None:
    fields = base64.encodebytes(b"Reporting-MTA: dns; x\r\n\r\n" + GONE.strip().encode()).decode()
    raw = mail(
        """
        Content-Type: multipart/mixed; boundary=b

        --b
        Content-Type: message/delivery-status
        Content-Transfer-Encoding: base64

        FIELDS
        --b
        Content-Type: text/rfc822-headers
        Content-Transfer-Encoding: quoted-printable

        Message-ID: <a=40b>

        --b--
        """
    ).replace(b"FIELDS", fields.replace("\n", "\r\n").encode())
    report = parse_report(raw)
    assert (report.recipients[0].status, report.message_id) == ("5.1.1", "a@b")


def test_the_outer_of_two_nested_reports_is_read() -> None:
    inner = dsn(GONE).decode().replace("B1/mx", "inner")
    outer = dsn("Final-Recipient: rfc822; bob@example.com\nAction: delayed\nStatus: 4.0.0", returned=inner)
    assert [each.addresses[0] for each in parse_report(outer).recipients] == ["bob@example.com"]


@pytest.mark.parametrize(
    ("kind", "is_complaint", "is_opt_out"),
    [
        ("abuse", True, False),
        ("Fraud", True, False),
        ("opt-out", False, True),
        ("opt-out-list", False, True),
        ("not-spam", False, False),
        ("auth-failure", False, False),
    ],
)
def test_a_feedback_report_is_a_complaint_or_an_opt_out_by_its_type(
    kind: str, is_complaint: bool, is_opt_out: bool
) -> None:
    report = parse_report(arf(kind))
    assert (report.feedback, report.is_complaint, report.is_opt_out) == (kind.lower(), is_complaint, is_opt_out)
    assert (report.recipients[0].addresses, report.recipients[0].is_gone) == ((ANN,), False)
    assert report.message_id == MESSAGE_ID


def test_the_return_path_of_a_complaint_is_read_from_the_report() -> None:
    report = parse_report(
        arf(more="Original-Mail-From: <bounces+token@example.net>", returned=f"Message-ID: <{MESSAGE_ID}>")
    )
    assert report.returned_to == ("abuse@example.net", "bounces+token@example.net")
    assert report.recipients[0].addresses == ()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x00\xff",
        b"Subject: Hi\r\n\r\nHello\r\n",
        b"Subject: failure notice\r\n\r\nHi. This is the qmail-send program.\r\n<ann@example.com>:\r\nSorry\r\n",
        dsn(""),
        dsn(GONE, kind="text/plain"),
        arf(""),
    ],
    ids=["empty", "bytes", "mail", "qmail", "no recipient", "no type", "no feedback"],
)
def test_other_mails_are_refused(raw: bytes) -> None:
    with pytest.raises(NotABounce):
        parse_report(raw)


def test_a_returned_mail_may_have_any_size() -> None:
    raw = dsn(GONE, returned=f"Message-ID: <{MESSAGE_ID}>\n\n" + "long\n" * (MAX_BYTES // 5))
    assert parse_report(raw).message_id == MESSAGE_ID


@pytest.mark.parametrize(
    "raw",
    [
        "".join(f"Content-Type: multipart/report; boundary={n}\r\n\r\n--{n}\r\n" for n in range(5000)).encode(),
        b"Content-Type: message/rfc822\r\n\r\n" * 5000,
        "".join(f"Content-Type: multipart/x; boundary={n}\r\n\r\n--{n}\r\n" for n in range(39)).encode()
        + b"\n" * LARGE,
        dsn(GONE + "\n\n" + "a: b\n\n" * LARGE),
        dsn("Final-Recipient: " + "rfc822;" * LARGE),
        dsn("Final-Recipient: rfc822; " + "(" * LARGE),
        b"To: " + b"<" * LARGE,
        b"To: " + b'"\\' * LARGE,
        dsn(GONE, to=",".join(f"a{number}@example.com" for number in range(LARGE))),
        dsn(GONE + "\nX-Field: (" + "(a)" * LARGE),
        dsn(GONE, to="=?utf-8?q?" + "a@b+" * LARGE + "?="),
        dsn(GONE, returned="--B1/mx\n" * LARGE),
        dsn(GONE, returned="\n--\n-- \n" * LARGE),
        b"Content-Type: multipart/x; boundary=b\n\n" + b"--b\nContent-Type: multipart/x; boundary=b\n\n" * LARGE,
        b"From x\n" * LARGE,
        b" " * MAX_BYTES,
        b"Subject: " + b"\n x" * LARGE,
        b"X-Failed-Recipients: " + b"a@b.example," * 900 + b"\n\n" + b"  a@b.example\n" * LARGE,
        b"Subject: x\n\nHi. This is the \n\n" + b"<a@b.example>:\n" + b"\n \n" * LARGE,
        b"X-Failed-Recipients: a@b.example\n\n a@b.example\n" + b" \n" * LARGE,
    ],
    ids=range(20),
)
def test_malicious_mails_are_parsed_within_a_limit_of_cpu_time(raw: bytes) -> None:
    started = time.process_time()
    with suppress(NotABounce):
        parse_report(raw)
    assert time.process_time() - started < 30


PIECES = [
    *dsn(GONE).splitlines(keepends=True),
    *arf().splitlines(keepends=True),
    b"\x80\xff",
    b"\r\n",
    b"=?utf-8?b?",
    b";",
]


@given(st.lists(st.sampled_from(PIECES) | st.binary(max_size=30), max_size=60))
def test_any_bytes_are_a_report_or_refused(pieces: list[bytes]) -> None:
    try:
        report = parse_report(b"".join(pieces))
    except NotABounce:
        return
    assert isinstance(report, Report)
    assert report.recipients


@given(st.data())
def test_a_corrupted_report_is_a_report_or_refused(data: st.DataObject) -> None:
    raw = bytearray(data.draw(st.sampled_from([dsn(GONE), arf()])))
    for _ in range(data.draw(st.integers(1, 20))):
        where = data.draw(st.integers(0, len(raw) - 1))
        raw[where : where + data.draw(st.integers(0, 5))] = data.draw(st.binary(max_size=5))
    with suppress(NotABounce):
        assert isinstance(parse_report(bytes(raw)), Report)


def test_digits_of_other_scripts_are_no_code() -> None:
    assert code_at_start("5.\u0661.1 user unknown") is None
