"""The forms in which mail systems write reports: each is read, or refused for a reason."""

import base64
import quopri

import pytest

from bellwire.email.bounce_reports import Action, NotABounce, parse_report
from bellwire.email.return_path import ReturnPath
from bellwire.email.unsubscribe_links import LinkKeys
from tests.reports import MESSAGE_ID, arf, dsn, mail

ANN = "ann@example.com"
GONE = f"Final-Recipient: rfc822; {ANN}\nAction: failed\nStatus: 5.1.1"
RETURNED = f"Message-ID: <{MESSAGE_ID}>\nTo: {ANN}\n\n"
PATH = ReturnPath("bounces@example.net", LinkKeys(base64.b64encode(b"k" * 32).decode()))
TOKEN = PATH.sender("a" * 26, "sub", ANN)


def is_gone(raw: bytes) -> bool:
    report = parse_report(raw)
    return all(each.is_gone for each in report.recipients) and bool(report.recipients)


@pytest.mark.parametrize(
    "body",
    [
        "".join(f"https://app.example/message/{number}\n" for number in range(50)),
        "the boundary moved\n" * 500,
        "--B1/mx--\n" * 50,
        "Content-Type: message/delivery-status\n\nStatus: 2.0.0\n\n" * 50,
        "".join(f"--{number}\nContent-Type: multipart/mixed; boundary={number}\n\n" for number in range(100)),
        "--B1/mx\nContent-Type: message/rfc822\n\n" * 2000,
        "\x00\x1a\ufffd" * 1000,
        "From ann Mon Nov 23 08:00:00 2026\n" * 50,
    ],
    ids=["links", "words", "closing boundary", "reports", "boundaries", "own boundary", "controls", "from lines"],
)
def test_what_the_returned_mail_contains_does_not_change_how_the_report_is_read(body: str) -> None:
    assert is_gone(dsn(GONE, returned=RETURNED + body))


@pytest.mark.parametrize(
    "before",
    [
        b"\xef\xbb\xbf",
        b">From MAILER-DAEMON Mon Nov 23 08:00:00 2026\r\n",
        b"From MAILER-DAEMON\n",
        b"\xef\xbb\xbf>From x\r\n\r\n",
        b"\r\n\r\n",
        b"  \n",
        b"From x\n>From y\n",
    ],
)
def test_what_comes_before_the_headers_is_skipped(before: bytes) -> None:
    assert is_gone(before + dsn(GONE))


@pytest.mark.parametrize(
    "written",
    [
        lambda raw: raw.replace(b"\r\n", b"\n"),
        lambda raw: raw.replace(b"\r\n", b"\r"),
        lambda raw: raw.replace(b"\r\n", b"\r\r\n"),
        lambda raw: b"\xff\xfe" + raw.decode().encode("utf-16-le"),
        lambda raw: raw[: raw.index(b"Hello")],
        lambda raw: raw.replace(b"--B1/mx--", b""),
        lambda raw: raw.replace(b';\r\n\tboundary="B1/mx"', b""),
        lambda raw: raw.replace(b'boundary="B1/mx"', b'boundary="other"'),
        lambda raw: raw.replace(b"multipart/report;", b"Multipart/Mixed (a comment);"),
        lambda raw: raw.replace(b"message/delivery-status", b"MESSAGE/DELIVERY-STATUS (as RFC 3464); charset=utf-8"),
        lambda raw: raw.replace(b"Content-Type: text/plain; charset=us-ascii\r\n\r\n", b""),
        lambda raw: raw.replace(b"I'm sorry", "Es tut mir leid: Zustellung für Ann".encode("latin-1")),
        lambda raw: raw.replace(b"I'm sorry", b"long text " * 100_000),
        lambda raw: raw.replace(b"multipart/report; report-type=delivery-status;\r\n\t", b"multipart/mixed; "),
    ],
    ids=range(14),
)
def test_damaged_and_rewritten_mails_are_read(written) -> None:  # type: ignore[no-untyped-def]
    assert is_gone(written(dsn(GONE)))


@pytest.mark.parametrize("encoding", ["base64", "BASE64 (sic)", "quoted-printable", "8bit", "x-unknown"])
def test_the_status_part_may_be_encoded(encoding: str) -> None:
    content = f"Reporting-MTA: dns; x\n\n{GONE}\n".encode()
    if encoding.lower().startswith("base64"):
        content = base64.encodebytes(content).rstrip(b"=\n")
    elif encoding == "quoted-printable":
        content = quopri.encodestring(content)
    raw = (
        b"Content-Type: multipart/report; boundary=b\n\n--b\nContent-Type: message/delivery-status\n"
        b"Content-Transfer-Encoding: " + encoding.encode() + b"\n\n" + content + b"\n--b--\n"
    )
    assert is_gone(raw)


def test_a_whole_multipart_may_be_encoded() -> None:
    head, _, body = dsn(GONE).partition(b"\r\n\r\n")
    assert is_gone(head + b"\r\nContent-Transfer-Encoding: base64\r\n\r\n" + base64.encodebytes(body))


def test_a_report_is_found_within_other_parts_and_as_a_file() -> None:
    nested = dsn(GONE, to=TOKEN)
    for _ in range(3):
        nested = b"Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\n" + nested + b"\r\n--o--\r\n"
        nested = nested.replace(b"--o", b"--oo").replace(b"boundary=o", b"boundary=oo")
    assert is_gone(nested)
    head = (
        b"To: postmaster@example.net\r\nContent-Type: multipart/mixed; boundary=f\r\n\r\n--f\r\n\r\nsee file\r\n--f\r\n"
    )
    plain = head + b"Content-Type: message/rfc822\r\n\r\n" + dsn(GONE, to=TOKEN) + b"\r\n--f--\r\n"
    encoded = base64.encodebytes(dsn(GONE, to=TOKEN))
    as_base64 = head + b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n" + encoded
    for raw in (plain, as_base64):
        assert is_gone(raw)
        assert TOKEN in parse_report(raw).returned_to


def test_a_status_part_alone_is_a_report() -> None:
    assert is_gone(b"Content-Type: message/delivery-status\n\nReporting-MTA: dns; x\n\n" + GONE.encode())


@pytest.mark.parametrize(
    ("fields", "gone"),
    [
        (f"Reporting-MTA: dns; x\n{GONE}", [True]),
        (f"Final-Recipient: rfc822; {ANN}\n\nAction: failed\nStatus: 5.1.1", [True]),
        (f"{GONE}\nFinal-Recipient: rfc822; bob@example.com\nAction: delayed\nStatus: 4.2.2", [True, False]),
        (
            f"Original-Recipient: rfc822; {ANN}\n{GONE}\nOriginal-Recipient: rfc822; {ANN}\n{GONE}",
            [True, True],
        ),
        (f"{GONE}\n \n\nFinal-Recipient: rfc822; bob@example.com\nAction: failed\nStatus: 5.2.2", [True, False]),
        (GONE.replace("Action: failed", "Action: (really) failed"), [True]),
        (GONE.replace("5.1.1", "(comment) 5.1.1"), [True]),
        (GONE.replace("5.1.1", "5.1.1."), [True]),
        (GONE.replace("5.1.1", "version 5.1.1"), [False]),
        (GONE.replace("5.1.1", "5.1.1.4"), [False]),
    ],
)
def test_blank_lines_and_comments_in_the_status_part_may_be_wrong(fields: str, gone: list[bool]) -> None:
    assert [each.is_gone for each in parse_report(dsn(fields)).recipients] == gone


def test_a_report_may_have_many_recipients() -> None:
    many = "\n\n".join(
        f"Final-Recipient: rfc822; a{number}@example.com\nAction: failed\nStatus: 5.1.1" for number in range(500)
    )
    assert len(parse_report(dsn(many)).recipients) == 500


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("ann@example.com <ann@example.com>", ANN),
        ("rfc822; ann@example.com <ann@example.com>", ANN),
        ("ann@example.com (Smith, Ann)", ANN),
        ("rfc822;<ann@example.com>", ANN),
        ("RFC822 ; 'ann@example.com'", ANN),
        ("rfc822;ann@example.com.", ANN),
        ("utf-8; j\\x{FC}rgen@example.com", "jürgen@example.com"),
        ("rfc822; ann+2Btag@example.com", "ann+tag@example.com"),
        ("rfc822; ann+3Dtag@example.com", "ann=tag@example.com"),
        ("=?utf-8?q?ann=40example.com?=", ANN),
    ],
)
def test_addresses_are_found_in_every_form(value: str, address: str) -> None:
    fields = f"Final-Recipient: {value}\nAction: failed\nStatus: 5.1.1"
    assert address in parse_report(dsn(fields, returned="Subject: x")).recipients[0].addresses


@pytest.mark.parametrize("charset", ["utf-8", "latin-1"])
def test_bytes_beyond_ascii_are_read_as_utf_8_or_latin_1(charset: str) -> None:
    raw = dsn("Final-Recipient: utf-8; jürgen@example.com\nAction: failed\nStatus: 5.1.1", returned="Subject: x")
    assert parse_report(raw.decode().encode(charset)).recipients[0].addresses == ("jürgen@example.com",)


@pytest.mark.parametrize(
    "raw",
    [
        dsn(GONE, to=f"{TOKEN} <{TOKEN}>"),
        dsn(GONE, to=f'"{TOKEN}"'),
        dsn(GONE, to=f'"{TOKEN.partition("@")[0]}"@example.net'),
        dsn(GONE, to=f"<@relay.example:{TOKEN}>"),
        dsn(GONE, to=f"{TOKEN.replace('@', '%')}@relay.example"),
        dsn(GONE, to=f"IMCEASMTP-{TOKEN.replace('+', '+2B').replace('@', '+40')}@relay.example"),
        b"X-Rcpt-To: " + TOKEN.encode() + b"\r\n" + dsn(GONE),
        b"Received: by mx.example.net (envelope-from <" + TOKEN.encode() + b">) for x; Mon\r\n" + dsn(GONE),
        dsn(GONE, returned=f"Return-Path: <prvs=1906abcd={TOKEN}>\n\nx"),
        dsn(f"X-Postfix-Sender: rfc822; {TOKEN}\n\n{GONE}"),
        arf(more=f"Original-Mail-From: <{TOKEN}>"),
        arf(more=f"Original-Envelope-Id: {TOKEN}"),
    ],
    ids=range(12),
)
def test_the_return_path_is_found_in_any_header(raw: bytes) -> None:
    assert any(token for address in parse_report(raw).returned_to if (token := PATH.read(address)))


@pytest.mark.parametrize(
    "before", ["", "prvs=1906abcd=", "btv1==489040e8aa2==", "msprvs1=19abc=", "SRS0=Ab=CD=example.net="]
)
def test_a_token_behind_tags_of_relays_verifies(before: str) -> None:
    token = PATH.read(before + TOKEN)
    assert token is not None
    assert PATH.verifies(token, "sub", ANN)
    assert PATH.read(f"{before}x{TOKEN}") is None


@pytest.mark.parametrize("kind", ["abuse (junk button)", "(junk) Abuse", "ABUSE; q=1"])
def test_the_type_of_a_feedback_report_may_have_comments(kind: str) -> None:
    report = parse_report(arf(kind))
    assert (report.feedback, report.is_complaint) == ("abuse", True)


def test_a_feedback_report_may_have_several_fields_and_blank_lines() -> None:
    more = (
        "Original-Rcpt-To: <ann@example.com>\nOriginal-Rcpt-To: bob@example.com\n\nRemoval-Recipient: carl@example.com"
    )
    report = parse_report(arf(more=more))
    assert report.recipients[0].addresses == (ANN, "bob@example.com", "carl@example.com")


def test_the_recipient_of_a_redacted_complaint_is_read_from_microsofts_field() -> None:
    returned = f"Message-ID: <{MESSAGE_ID}>\nTo: [redacted]\nX-HmXmrOriginalRecipient: {ANN}"
    assert parse_report(arf(more="Source-IP: 192.0.2.1", returned=returned)).recipients[0].addresses == (ANN,)


def test_microsofts_junk_reports_without_a_report_part_are_complaints() -> None:
    raw = mail(
        f"""
        From: staff@hotmail.com
        Subject: complaint about message from 192.0.2.1
        Content-Type: multipart/mixed; boundary=b

        --b
        Content-Type: message/rfc822

        X-HmXmrOriginalRecipient: {ANN}
        Return-Path: {TOKEN}

        Hello
        --b--
        """
    )
    report = parse_report(raw)
    assert (report.is_complaint, report.recipients[0].addresses, report.returned_to) == (True, (ANN,), (TOKEN,))
    with pytest.raises(NotABounce):
        parse_report(raw.replace(b"complaint about message from", b"FW:"))


def test_actions_that_are_no_failure_are_read() -> None:
    for action in ("delayed", "relayed", "expanded", "delivered"):
        [recipient] = parse_report(dsn(GONE.replace("failed", action))).recipients
        assert (recipient.action, recipient.is_gone) == (Action(action), False)
