"""What a mail relay's answers and failures mean: translated here, once, by the two tables below."""

import re
import ssl
from enum import Enum

import aiosmtplib

from activities.email.smtp_pool import AnswerLost, NoRelay
from bellwire.deliveries import MAX_ANSWER, Outcome, OutcomeKind

GONE = "gone"  # rejected, and the subscription disabled
_REFUSED = "refused"  # rejected
_LATER = "later"  # deferred
OURS = "ours"  # deferred, and the operator is told: not the recipient's fault

#: What an answer to RCPT or DATA means: the first pattern that matches "550 5.1.1" (RFC 5321 §4.2, RFC 3463).
_ANSWERS = tuple(
    (re.compile(pattern), meaning)
    for pattern, meaning in (
        (r"4..\b.*", _LATER),
        (r"53[0458]\b.*", OURS),  # authentication
        (r"5.. 5\.7\..*", OURS),  # policy: a blocked sender, no SPF, no DKIM
        (r"5.. 5\.1\.[78]", OURS),  # the sender's address; many relays say so only after RCPT
        (r"5.. 4\..*", _LATER),
        (r"5.. 5\.2\.2", _LATER),  # mailbox full
        (r"5.. 5\.(1\..*|2\.1)", GONE),
        (r"5..\b.*", _REFUSED),  # with 552 and 5.3.4, too large, among them
        (r".*", _LATER),
    )
)

#: What an error means that carries no answer. Looked up by the error's classes, the most derived first.
FAILURES: dict[type[BaseException], tuple[str, str]] = {
    AnswerLost: ("unknown", "SMTP answer lost after DATA"),
    NoRelay: (_LATER, "every SMTP relay is passed over"),
    aiosmtplib.SMTPNotSupported: (_REFUSED, "address needs SMTPUTF8, which the relay lacks"),
    aiosmtplib.SMTPConnectTimeoutError: (_LATER, "SMTP connect timeout"),
    aiosmtplib.SMTPConnectError: (_LATER, "SMTP connect error"),
    aiosmtplib.SMTPReadTimeoutError: (_LATER, "SMTP timeout"),
    aiosmtplib.SMTPTimeoutError: (_LATER, "SMTP timeout"),
    aiosmtplib.SMTPServerDisconnected: (_LATER, "SMTP connection lost"),
    ssl.SSLError: (OURS, "SMTP TLS handshake failed"),
    OSError: (_LATER, "SMTP connection error"),
    # aiosmtplib raises the bare class if the relay offers no STARTTLS, no AUTH or no method of AUTH that it knows.
    aiosmtplib.SMTPException: (OURS, "SMTP relay lacks STARTTLS or AUTH"),
}
ERRORS = (aiosmtplib.SMTPException, AnswerLost, NoRelay, OSError)

_KINDS = {GONE: OutcomeKind.REJECTED, _REFUSED: OutcomeKind.REJECTED, "unknown": OutcomeKind.UNKNOWN}
#: Authentication: wanted, failed or too weak (RFC 4954).
_LOGIN = re.compile(r"(454|53[0458])\b")
#: The state of a mail system (RFC 3463, class X.3), and not of a mailbox.
_SYSTEM = re.compile(r"... [245]\.3\.")
#: Errors that carry an answer to RCPT or DATA, when the relay has heard of the recipient.
_ABOUT_RECIPIENT = (aiosmtplib.SMTPRecipientRefused, aiosmtplib.SMTPDataError)
_ENHANCED = re.compile(r"\s*([245]\.\d{1,3}\.\d{1,3})\b")


def outcome_of(error: BaseException) -> Outcome:
    """What an error of `SmtpPool.send` means for the delivery."""
    return judge(error)[1]


class FailureScope(Enum):
    """Whom an error of sending is about."""

    #: This mail or its recipient: no other relay would say otherwise.
    MAIL = "mail"
    #: The relay, or us at this relay: another may take the mail.
    RELAY = "relay"
    #: One or the other.
    EITHER = "either"


def concern_of(error: BaseException) -> FailureScope:
    """Whom an error of `SmtpPool.send` is about.

    A temporary answer is about the relay until it has heard of the recipient; from then on only 4.3.x (its own state) may
    be, since 4.7.x is how recipients greylist.
    """
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
        error = error.recipients[0]
    if isinstance(error, aiosmtplib.SMTPNotSupported):
        return FailureScope.MAIL
    if not isinstance(error, aiosmtplib.SMTPResponseException) or not 200 <= error.code < 600 or error.code == 421:
        return FailureScope.RELAY
    line = line_of(error.code, error.message)
    if _LOGIN.match(line):
        return FailureScope.RELAY
    if isinstance(error, _ABOUT_RECIPIENT):
        return FailureScope.EITHER if error.code < 500 and _SYSTEM.match(line) else FailureScope.MAIL
    return FailureScope.MAIL if _too_large(line) else FailureScope.RELAY


def judge(error: BaseException) -> tuple[str, Outcome]:
    """What an error means, in one word of this module, and for the delivery."""
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
        error = error.recipients[0]
    theirs = False
    if isinstance(error, aiosmtplib.SMTPResponseException):
        meaning, reason = _meaning(error)
        theirs = meaning != OURS and _theirs(error)
        answer: str | None = f"{error.code} {error.message}"[:MAX_ANSWER]
    else:
        cause = error.__cause__ if isinstance(error.__cause__, ssl.SSLError) else error
        meaning, reason = next(FAILURES[kind] for kind in type(cause).__mro__ if kind in FAILURES)
        answer = None
    kind = _KINDS.get(meaning, OutcomeKind.DEFERRED)
    return meaning, Outcome(kind=kind, reason=reason, disable=meaning == GONE, ours=not theirs, answer=answer)


def _theirs(error: aiosmtplib.SMTPResponseException) -> bool:
    """Whether an answer is of the recipient's doing, rather than of the relay's or ours."""
    return (
        isinstance(error, _ABOUT_RECIPIENT)
        and concern_of(error) is FailureScope.MAIL
        and not _SYSTEM.match(line_of(error.code, error.message))
    )


def _meaning(error: aiosmtplib.SMTPResponseException) -> tuple[str, str]:
    if not 200 <= error.code < 600:
        return _LATER, "SMTP malformed answer"
    line = line_of(error.code, error.message)
    meaning = next(meaning for pattern, meaning in _ANSWERS if pattern.fullmatch(line))
    if not isinstance(error, _ABOUT_RECIPIENT) and not _too_large(line) and meaning != _LATER:
        meaning = OURS  # greeting, HELO, STARTTLS, AUTH, MAIL: the relay has not heard of the recipient yet
    return meaning, f"SMTP {line}"


def _too_large(line: str) -> bool:
    return line.startswith("552") or line.endswith(" 5.3.4")


def line_of(code: int, message: str) -> str:
    """An answer without its words: "550 5.1.1"."""
    enhanced = _ENHANCED.match(message)
    return f"{code} {enhanced[1]}" if enhanced else str(code)
