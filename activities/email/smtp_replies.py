"""SMTP replies and errors: two tables that say what each means for a delivery."""

import re
import ssl
from enum import Enum

import aiosmtplib

from activities.egress.causes import cause_of
from activities.email.smtp_pool import NoRelayAvailable, ReplyLost
from bellwire.deliveries import MAX_RESPONSE, Fault, Outcome, OutcomeKind


class Meaning(Enum):
    """What a reply or an error means for the delivery."""

    #: Deferred: the next attempt may succeed.
    LATER = "later"
    #: Deferred and logged as an error: the operator has to fix the relay or the configuration.
    OPERATOR = "operator"
    #: Rejected: the relay or the recipient's mail system refuses this mail.
    REFUSED = "refused"
    #: Rejected, and the address is suppressed: the mailbox does not exist.
    GONE = "gone"
    #: The relay may have accepted the mail.
    UNKNOWN = "unknown"


class FailureScope(Enum):
    """What an error concerns: the mail, the relay, or one of the two."""

    #: This mail or its recipient: another relay would reply the same.
    MAIL = "mail"
    #: The relay, or the sender at this relay: another relay may accept the mail.
    RELAY = "relay"
    #: Either of them.
    EITHER = "either"


#: Meanings of replies to RCPT and DATA. The first pattern that matches the codes, "550 5.1.1", applies (RFC 5321 §4.2,
#: RFC 3463).
_REPLIES = tuple(
    (re.compile(pattern), meaning)
    for pattern, meaning in (
        (r"4..\b.*", Meaning.LATER),
        (r"53[0458]\b.*", Meaning.OPERATOR),  # authentication
        (r"5.. 5\.7\..*", Meaning.OPERATOR),  # policy: a blocked sender, no SPF, no DKIM
        (r"5.. 5\.1\.[78]", Meaning.OPERATOR),  # the sender's address; many relays check it only at RCPT
        (r"5.. 4\..*", Meaning.LATER),
        (r"5.. 5\.2\.2", Meaning.LATER),  # mailbox full
        (r"5.. 5\.(1\..*|2\.1)", Meaning.GONE),
        (r"5..\b.*", Meaning.REFUSED),  # including 552 and 5.3.4, too large
        (r".*", Meaning.LATER),
    )
)

#: Meanings and reasons of errors without a reply, by class. The most derived class applies.
FAILURES: dict[type[BaseException], tuple[Meaning, str]] = {
    ReplyLost: (Meaning.UNKNOWN, "SMTP reply lost after DATA"),
    NoRelayAvailable: (Meaning.LATER, "no SMTP relay available"),
    aiosmtplib.SMTPNotSupported: (Meaning.REFUSED, "address needs SMTPUTF8, which the relay lacks"),
    aiosmtplib.SMTPConnectTimeoutError: (Meaning.LATER, "SMTP connect timeout"),
    aiosmtplib.SMTPConnectError: (Meaning.LATER, "SMTP connect error"),
    aiosmtplib.SMTPReadTimeoutError: (Meaning.LATER, "SMTP timeout"),
    aiosmtplib.SMTPTimeoutError: (Meaning.LATER, "SMTP timeout"),
    aiosmtplib.SMTPServerDisconnected: (Meaning.LATER, "SMTP connection lost"),
    ssl.SSLError: (Meaning.OPERATOR, "SMTP TLS handshake failed"),
    OSError: (Meaning.LATER, "SMTP connection error"),
    # aiosmtplib raises the bare class if the relay offers no STARTTLS, no AUTH or no AUTH method that it supports.
    aiosmtplib.SMTPException: (Meaning.OPERATOR, "SMTP relay lacks STARTTLS or AUTH"),
}
#: What `SmtpPool.send` and `Relays.send` raise.
ERRORS = (aiosmtplib.SMTPException, ReplyLost, NoRelayAvailable, OSError)

_KINDS = {
    Meaning.LATER: OutcomeKind.DEFERRED,
    Meaning.OPERATOR: OutcomeKind.DEFERRED,
    Meaning.REFUSED: OutcomeKind.REJECTED,
    Meaning.GONE: OutcomeKind.REJECTED,
    Meaning.UNKNOWN: OutcomeKind.UNKNOWN,
}
#: Authentication required, failed or too weak (RFC 4954).
_AUTHENTICATION = re.compile(r"(454|53[0458])\b")
#: The state of a mail system (RFC 3463, class X.3), not of a mailbox.
_SYSTEM = re.compile(r"... [245]\.3\.")
#: Errors with a reply to RCPT or DATA: the relay knows the recipient.
_ABOUT_RECIPIENT = (aiosmtplib.SMTPRecipientRefused, aiosmtplib.SMTPDataError)
_ENHANCED = re.compile(r"\s*([245]\.\d{1,3}\.\d{1,3})\b")


def classify_smtp_error(error: BaseException) -> tuple[Meaning, Outcome]:
    """What an error of `SmtpPool.send` means, and its outcome."""
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
        error = error.recipients[0]
    fault, cause = Fault.PROVIDER, None
    if isinstance(error, aiosmtplib.SMTPResponseException):
        meaning, reason = _classify_reply(error)
        if meaning is not Meaning.OPERATOR and _caused_by_recipient(error):
            fault = Fault.RECEIVER
        reply: str | None = f"{error.code} {error.message}"[:MAX_RESPONSE]
    else:
        known = error.__cause__ if isinstance(error.__cause__, ssl.SSLError) else error
        meaning, reason = next(FAILURES[kind] for kind in type(known).__mro__ if kind in FAILURES)
        reply, cause = None, cause_of(error)
    if meaning is Meaning.OPERATOR:
        fault = Fault.OPERATOR
    disable = meaning is Meaning.GONE
    return meaning, Outcome(
        kind=_KINDS[meaning], reason=reason, cause=cause, disable=disable, fault=fault, response=reply
    )


def failure_scope(error: BaseException) -> FailureScope:
    """What an error of `SmtpPool.send` concerns.

    A temporary reply before RCPT concerns the relay. From RCPT on only 4.3.x, the system's own state, may concern the
    relay, since recipients greylist with 4.7.x.
    """
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
        error = error.recipients[0]
    if isinstance(error, aiosmtplib.SMTPNotSupported):
        return FailureScope.MAIL
    if not isinstance(error, aiosmtplib.SMTPResponseException) or not 200 <= error.code < 600 or error.code == 421:
        return FailureScope.RELAY
    codes = reply_codes(error.code, error.message)
    if _AUTHENTICATION.match(codes):
        return FailureScope.RELAY
    if isinstance(error, _ABOUT_RECIPIENT):
        return FailureScope.EITHER if error.code < 500 and _SYSTEM.match(codes) else FailureScope.MAIL
    return FailureScope.MAIL if _too_large(codes) else FailureScope.RELAY


def reply_codes(code: int, message: str) -> str:
    """The codes of a reply without its text: "550 5.1.1"."""
    enhanced = _ENHANCED.match(message)
    return f"{code} {enhanced[1]}" if enhanced else str(code)


def _classify_reply(error: aiosmtplib.SMTPResponseException) -> tuple[Meaning, str]:
    if not 200 <= error.code < 600:
        return Meaning.LATER, "SMTP invalid reply"
    codes = reply_codes(error.code, error.message)
    meaning = next(meaning for pattern, meaning in _REPLIES if pattern.fullmatch(codes))
    if not isinstance(error, _ABOUT_RECIPIENT) and not _too_large(codes) and meaning is not Meaning.LATER:
        # A reply to the greeting, HELO, STARTTLS, AUTH or MAIL: the relay does not know the recipient yet.
        meaning = Meaning.OPERATOR
    return meaning, f"SMTP {codes}"


def _caused_by_recipient(error: aiosmtplib.SMTPResponseException) -> bool:
    """Whether the recipient's side caused the reply, and not the relay or the sender."""
    return (
        isinstance(error, _ABOUT_RECIPIENT)
        and failure_scope(error) is FailureScope.MAIL
        and not _SYSTEM.match(reply_codes(error.code, error.message))
    )


def _too_large(codes: str) -> bool:
    return codes.startswith("552") or codes.endswith(" 5.3.4")
