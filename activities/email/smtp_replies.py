"""SMTP replies and errors: two tables that say what each means for a delivery."""

import re
import ssl
from enum import Enum

import aiosmtplib

from activities.egress.causes import cause_of
from activities.email.smtp_pool import NoRelayAvailable, ReplyLost
from bellwire.deliveries import MAX_RESPONSE, Fault, Outcome, OutcomeKind
from bellwire.email.status_codes import code_at_start, is_temporary, says_nobody_is_there


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
        (r"5.. 5\.1\.(20|90)", Meaning.OPERATOR),  # Exchange Online: From without Sender, quota of recipients used up
        (r"5.. 5\.2\.252", Meaning.OPERATOR),  # Exchange Online: the login may not send as this sender
        (r"5.. 5\.3\.4", Meaning.OPERATOR),  # larger than the relay allows
        (r"5.. 4\..*", Meaning.LATER),
        (r"5.. 5\.2\.2", Meaning.LATER),  # mailbox full
        (r"5.. 5\.2\.3", Meaning.REFUSED),  # larger than the recipient allows
        (r"[23]..\b.*|[^5].*", Meaning.LATER),
    )
)

#: What permanent replies say that concern the login, the sender, a quota or a policy of the relay, if no code tells. Providers
#: reply so to each mail until the operator acts, so a wrong guess defers a mail, and a missed one loses all.
_OPERATOR_TEXT = re.compile(
    r"authenticat|unauthori[sz]ed|not (authori[sz]ed|allowed|permitted) to (send|relay)|credentials|"
    r"relay(ing)?\b.{0,20}\b(denied|disallowed|prohibited|not (permitted|allowed))|rcpthosts|send ?as ?denied|"
    r"\b(sender|from)\b.{0,40}\b(reject|denied|verified|verif|not (allowed|match)|does not match|unknown|invalid)|not verified|"
    r"\b(sending|daily|hourly|monthly|submission|smtp relay)\b.{0,30}\b(limit|quota|rate)|"
    r"too many (messages|mails|emails|recipients)|credits|unusual sending|account (is )?(suspended|on hold)|"
    r"polic(y|ies)|bl[oa]c?k ?list|blacklist|spamhaus|reputation|too (large|big)|"
    r"(message|mail|size)\b.{0,30}\b(size|limit|maximum)",
    re.IGNORECASE,
)
_STORAGE = re.compile(r"mailbox|inbox|quota|storage|\bfull\b", re.IGNORECASE)

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
    enhanced = code_at_start(message)
    return f"{code} {enhanced}" if enhanced else str(code)


def _classify_reply(error: aiosmtplib.SMTPResponseException) -> tuple[Meaning, str]:
    if not 200 <= error.code < 600:
        return Meaning.LATER, "SMTP invalid reply"
    codes = reply_codes(error.code, error.message)
    meaning = next((meaning for pattern, meaning in _REPLIES if pattern.fullmatch(codes)), None)
    if meaning is None:
        meaning = _classify_permanent(codes.partition(" ")[2], error.message, full=error.code == 552)
    if not isinstance(error, _ABOUT_RECIPIENT) and meaning is not Meaning.LATER:
        # A reply to the greeting, HELO, STARTTLS, AUTH or MAIL: the relay does not know the recipient yet.
        meaning = Meaning.OPERATOR
    return meaning, f"SMTP {codes}"


def _classify_permanent(enhanced: str, text: str, *, full: bool) -> Meaning:
    """What a permanent reply to RCPT or DATA means. `full`: its code is for a mailbox or a relay without space for the mail."""
    if says_nobody_is_there(enhanced, text):
        return Meaning.GONE
    mailbox = enhanced.startswith(("5.1.", "5.2.")) or (full and _STORAGE.search(text))
    if mailbox and is_temporary(text):
        return Meaning.LATER
    return Meaning.OPERATOR if full or _OPERATOR_TEXT.search(text) else Meaning.REFUSED


def _caused_by_recipient(error: aiosmtplib.SMTPResponseException) -> bool:
    """Whether the recipient's side caused the reply, and not the relay or the sender."""
    return (
        isinstance(error, _ABOUT_RECIPIENT)
        and failure_scope(error) is FailureScope.MAIL
        and not _SYSTEM.match(reply_codes(error.code, error.message))
    )


def _too_large(codes: str) -> bool:
    return codes.startswith("552") or codes.endswith(" 5.3.4")
