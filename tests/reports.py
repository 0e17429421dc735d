"""Bounce reports as mail systems write them, with invented names and numbers."""

from textwrap import dedent

MESSAGE_ID = "dlv_n4ypg3apad27hlys46lynl4eqm_sub@example.net"


def mail(text: str) -> bytes:
    return dedent(text).lstrip().replace("\n", "\r\n").encode()


def dsn(
    fields: str,
    *,
    to: str = "bounces@example.net",
    returned: str = f"Message-ID: <{MESSAGE_ID}>\nTo: ann@example.com\nSubject: Hi",
    kind: str = "message/delivery-status",
    returned_as: str = "message/rfc822",
) -> bytes:
    """A delivery status notification with these fields for one recipient, and the headers of the returned mail."""
    lines = [
        "From: MAILER-DAEMON@mx.example.com",
        f"To: {to}",
        "Subject: Undelivered Mail Returned to Sender",
        "MIME-Version: 1.0",
        'Content-Type: multipart/report; report-type=delivery-status;\n\tboundary="B1/mx"',
        "",
        "This is a MIME-encapsulated message.",
        "",
        "--B1/mx",
        "Content-Type: text/plain; charset=us-ascii",
        "",
        "I'm sorry to have to inform you that your message could not be delivered.",
        "",
        "--B1/mx",
        f"Content-Type: {kind}",
        "",
        "Reporting-MTA: dns; mx.example.com",
        "Arrival-Date: Mon, 23 Nov 2026 08:00:00 +0000",
        "",
        fields.strip(),
        "",
        "--B1/mx",
        f"Content-Type: {returned_as}",
        "",
        returned,
        "",
        "Hello",
        "",
        "--B1/mx--",
        "",
    ]
    return "\n".join(lines).replace("\n", "\r\n").encode()


def arf(
    feedback: str = "abuse",
    *,
    more: str = "Original-Rcpt-To: ann@example.com",
    returned: str = f"Message-ID: <{MESSAGE_ID}>\nTo: ann@example.com",
) -> bytes:
    """A feedback report (RFC 5965)."""
    lines = [
        "From: fbl@isp.example",
        "To: abuse@example.net",
        "Subject: FW: Hi",
        'Content-Type: multipart/report; report-type=feedback-report; boundary="B2"',
        "",
        "--B2",
        "Content-Type: text/plain",
        "",
        "This is an email abuse report.",
        "--B2",
        "Content-Type: message/feedback-report",
        "",
        f"Feedback-Type: {feedback}",
        "User-Agent: SomeGenerator/1.0",
        "Version: 1",
        more,
        "",
        "--B2",
        "Content-Type: message/rfc822",
        "",
        returned,
        "",
        "Hello",
        "--B2--",
        "",
    ]
    return "\n".join(lines).replace("\n", "\r\n").encode()
