"""Classification of SMTP replies and errors."""

import ssl
from typing import Any

import aiosmtplib
import pytest

from activities.email.smtp_pool import ReplyLost
from activities.email.smtp_replies import FAILURES, classify_smtp_error
from bellwire.deliveries import MAX_REASON, OutcomeKind

ANN = "ann@example.com"
DELIVERED, REJECTED, DEFERRED, UNKNOWN = OutcomeKind
RCPT, DATA = aiosmtplib.SMTPRecipientRefused, aiosmtplib.SMTPDataError
MAIL, AUTH, HELO = aiosmtplib.SMTPSenderRefused, aiosmtplib.SMTPAuthenticationError, aiosmtplib.SMTPHeloError
GREETING, OTHER = aiosmtplib.SMTPConnectResponseError, aiosmtplib.SMTPResponseException


def smtp_error(kind: type[aiosmtplib.SMTPResponseException], code: int, message: str) -> Exception:
    refused = (aiosmtplib.SMTPSenderRefused, aiosmtplib.SMTPRecipientRefused)
    return kind(code, message, ANN) if issubclass(kind, refused) else kind(code, message)


@pytest.mark.parametrize(
    ("stage", "code", "message", "kind", "disable"),
    [
        (RCPT, 421, "4.3.2 busy", DEFERRED, False),
        (RCPT, 450, "greylisted", DEFERRED, False),
        (RCPT, 452, "4.2.2 full", DEFERRED, False),
        (RCPT, 550, "5.1.1 unknown", REJECTED, True),
        (RCPT, 550, "5.1.2 no such domain", REJECTED, True),
        (RCPT, 556, "5.1.10 null MX", REJECTED, True),
        (RCPT, 550, "5.2.1 disabled", REJECTED, True),
        (RCPT, 552, "5.2.2 mailbox full", DEFERRED, False),
        (RCPT, 550, "5.1.8 sender's domain not found", DEFERRED, False),
        (RCPT, 550, "5.7.1 blocked", DEFERRED, False),
        (RCPT, 530, "authenticate first", DEFERRED, False),
        (RCPT, 550, "no such user", REJECTED, False),
        (RCPT, 550, "4.4.1 muddled", DEFERRED, False),
        (RCPT, 553, "5.5.4 syntax", REJECTED, False),
        (DATA, 451, "4.3.0 try again", DEFERRED, False),
        (DATA, 552, "too large", DEFERRED, False),
        (DATA, 552, "5.3.4 too large", DEFERRED, False),
        (DATA, 554, "5.6.0 content", REJECTED, False),
        (DATA, 554, "5.7.26 no DMARC", DEFERRED, False),
        (MAIL, 451, "4.0.0", DEFERRED, False),
        (MAIL, 550, "5.1.1 you again", DEFERRED, False),
        (MAIL, 552, "5.3.4 SIZE", DEFERRED, False),
        (AUTH, 535, "5.7.8 wrong", DEFERRED, False),
        (AUTH, 454, "4.7.0 later", DEFERRED, False),
        (HELO, 501, "bad name", DEFERRED, False),
        (GREETING, 554, "no SMTP here", DEFERRED, False),
        (GREETING, 421, "busy", DEFERRED, False),
        (OTHER, 502, "no STARTTLS", DEFERRED, False),
        (OTHER, -1, "Malformed SMTP response line: xyz", DEFERRED, False),
    ],
)
def test_each_reply_is_classified(
    stage: type[aiosmtplib.SMTPResponseException], code: int, message: str, kind: OutcomeKind, disable: bool
) -> None:
    _, outcome = classify_smtp_error(smtp_error(stage, code, message))
    assert (outcome.kind, outcome.disable) == (kind, disable)
    assert outcome.reason.startswith("SMTP ")
    assert len(outcome.reason) <= len("SMTP invalid reply")


def exception_classes() -> list[type[BaseException]]:
    exported = (getattr(aiosmtplib.errors, name) for name in dir(aiosmtplib.errors))
    return [one for one in exported if isinstance(one, type) and issubclass(one, BaseException)]


@pytest.mark.parametrize("kind", exception_classes(), ids=lambda kind: kind.__name__)
def test_every_exception_of_the_library_is_classified(kind: Any) -> None:
    if issubclass(kind, aiosmtplib.SMTPResponseException):
        error = smtp_error(kind, 450, "later")
    elif kind is aiosmtplib.SMTPRecipientsRefused:
        error = kind([aiosmtplib.SMTPRecipientRefused(450, "later", ANN)])
    else:
        assert kind in FAILURES or kind is TimeoutError
        error = kind("ann@example.com caused this")
    _, outcome = classify_smtp_error(error)
    assert outcome.kind is (REJECTED if kind is aiosmtplib.SMTPNotSupported else DEFERRED)
    assert outcome.reason
    assert "ann@" not in outcome.reason


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ReplyLost(), "SMTP reply lost after DATA"),
        (ssl.SSLError("x"), "SMTP TLS handshake failed"),
        (ConnectionResetError(), "SMTP connection error"),
        (TimeoutError(), "SMTP connection error"),
    ],
    ids=repr,
)
def test_errors_from_below_the_library_are_classified(error: Exception, reason: str) -> None:
    assert classify_smtp_error(error)[1].reason == reason


def test_no_reason_exceeds_the_limit() -> None:
    assert all(len(reason) <= MAX_REASON for _, reason in FAILURES.values())
