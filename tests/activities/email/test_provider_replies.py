"""What mail providers reply, as a table: whom each reply is about, the same in an SMTP reply and in a bounce."""

import aiosmtplib
import pytest

from activities.email.smtp_replies import Meaning, classify_smtp_error
from bellwire.deliveries import Fault
from bellwire.email.bounce_reports import parse_report
from tests.reports import dsn

ANN = "ann@example.com"
GONE, LATER, OPERATOR, REFUSED = Meaning.GONE, Meaning.LATER, Meaning.OPERATOR, Meaning.REFUSED

REPLIES = [
    # Nobody is there.
    ("550 5.1.1 The email account that you tried to reach does not exist. Please try double-checking", GONE),
    ("550 5.1.1 <ann@example.com>: Recipient address rejected: User unknown in virtual mailbox table", GONE),
    ("550 5.1.1 <ann@example.com> User unknown; rejecting", GONE),
    ("550 5.1.1 <quota-full@example.com>... User unknown", GONE),
    ("550 5.1.1 sorry, no mailbox here by that name", GONE),
    ("550 #5.1.1 bad address", GONE),
    ("550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup", GONE),
    ("556 5.1.10 Recipient address has null MX", GONE),
    ("501 5.1.3 Bad recipient address syntax", GONE),
    ("553 5.1.3 The recipient address is not a valid RFC-5321 address", GONE),
    ("551 5.1.6 Recipient no longer on server", GONE),
    ("550 5.1.2 <ann@nowhere.example>... Host unknown (Name server: nowhere.example: host not found)", GONE),
    ("553 5.1.2 We weren't able to find the recipient domain. Please check for any spelling errors", GONE),
    ("550 5.1.2 <ann@example.com>: Recipient address rejected: Domain not found", GONE),
    (
        "550 5.2.1 The email account that you tried to reach is disabled. https://support.google.com/mail/?p=DisabledUser",
        GONE,
    ),
    ("550 5.2.1 The email account that you tried to reach is inactive.", GONE),
    ("550 5.2.1 Mailbox disabled, not accepting messages", GONE),
    ("554 5.2.1 <ann@example.com>: account closed", GONE),
    # The mailbox, at the moment.
    ("550 5.2.1 The user you are trying to contact is receiving mail at a rate that prevents delivery", LATER),
    ("550 5.2.1 The user you are trying to contact is receiving mail too quickly. Please resend later", LATER),
    ("550 5.2.1 mailbox temporarily disabled, try again later", LATER),
    ("552 5.2.2 The recipient's inbox is out of storage space. https://support.google.com/?p=OverQuotaPerm", LATER),
    ("554 5.2.2 mailbox full; STOREDRV.Deliver.Exception:QuotaExceededException", LATER),
    ("550 5.1.1 <ann@example.com>: mailbox quota exceeded", LATER),
    ("552 Mailbox full", LATER),
    ("452 4.2.2 The email account that you tried to reach is over quota", LATER),
    ("450 4.1.1 <ann@example.com>: Recipient address rejected: unverified address", LATER),
    ("550 4.4.7 QUEUE.Expired; message expired", LATER),
    ("451 5.1.1 muddled", LATER),
    # The sender, its login, its quota, its reputation: each mail gets the same reply until the operator acts.
    ("550 5.1.90 Your message can't be sent because you've reached your daily limit for message recipients", OPERATOR),
    ("550 5.1.20 Multiple From addresses are not allowed without Sender address", OPERATOR),
    ("550 5.1.8 Access denied, bad outbound sender AS(42004)", OPERATOR),
    ("553 5.1.7 The sender's address was invalid", OPERATOR),
    ("550 5.1.8 <bell@example.net>: Sender address rejected: Domain not found", OPERATOR),
    ("550 5.1.1 <bell@example.net>: Sender address rejected: User unknown", OPERATOR),
    ("554 5.2.252 SendAsDenied; bell@example.net not allowed to send as other@example.net", OPERATOR),
    ("554 5.2.0 STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied", OPERATOR),
    ("550 5.4.5 Daily user sending limit exceeded. https://support.google.com/a/answer/166852", OPERATOR),
    ("550 5.4.5 Daily SMTP relay limit exceeded for customer", OPERATOR),
    ("550 5.7.1 Unauthenticated email from example.net is not accepted due to domain's DMARC policy", OPERATOR),
    ("550 5.7.708 Service unavailable. Access denied, traffic not accepted from this IP", OPERATOR),
    ("554 Message rejected: Email address is not verified. The following identities failed the check", OPERATOR),
    ("550 The from address does not match a verified Sender Identity. Mail cannot be sent until", OPERATOR),
    ("553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)", OPERATOR),
    ("550 relay not permitted", OPERATOR),
    ("554 5.7.1 <ann@example.com>: Relay access denied", OPERATOR),
    ("550 5.4.6 Unusual sending activity detected", OPERATOR),
    ("530 5.5.1 Authentication Required", OPERATOR),
    ("550 Authentication is required for relay", OPERATOR),
    ("535 5.7.8 Username and Password not accepted", OPERATOR),
    ("552 5.3.4 Message size exceeds fixed limit", OPERATOR),
    ("552 message size exceeds maximum", OPERATOR),
    ("554 Your IP is listed on a block list, see spamhaus.org", OPERATOR),
    # This mail or this recipient, but not because nobody is there.
    ("550 5.1.0 <ann@example.com>: address unknown", REFUSED),
    ("550 5.1.4 ambiguous mailbox", REFUSED),
    ("550 5.1.9 relays only to a system that is not compliant", REFUSED),
    ("550 5.1.2 something is odd", REFUSED),
    ("550 5.2.1 mailbox unavailable", REFUSED),
    ("550 5.2.3 message length exceeds administrative limit", REFUSED),
    ("550 5.4.1 Recipient address rejected: Access denied. AS(201806281)", REFUSED),
    ("550 5.5.0 Requested action not taken: mailbox unavailable", REFUSED),
    ("550 No such user here", REFUSED),
    # A code counts at its place, not in prose.
    ("550 <ann@example.com>: 5.1.1 unknown", REFUSED),
    ("554 5.4.4 relay 192.5.1.1 said: 550 5.1.1 unknown", REFUSED),
    ("550 5.1.1.9 version of the software", REFUSED),
    ("554 5.6.0 see RFC 5.1.1", REFUSED),
]


@pytest.mark.parametrize(("reply", "meaning"), REPLIES, ids=[reply for reply, _ in REPLIES])
def test_a_reply_means_the_same_in_smtp_and_in_a_bounce(reply: str, meaning: Meaning) -> None:
    code, _, message = reply.partition(" ")
    found, outcome = classify_smtp_error(aiosmtplib.SMTPRecipientRefused(int(code), message, ANN))
    assert found is meaning
    assert outcome.disable == (meaning is GONE)
    assert (outcome.fault is Fault.OPERATOR) == (meaning is OPERATOR)
    [recipient] = parse_report(
        dsn(f"Final-Recipient: rfc822; {ANN}\nAction: failed\nDiagnostic-Code: smtp; {reply}")
    ).recipients
    assert recipient.is_gone == (meaning is GONE)
    enhanced = outcome.reason.removeprefix(f"SMTP {code}").strip()
    status = (
        f"Final-Recipient: rfc822; {ANN}\nAction: failed\nStatus: {enhanced or '5.0.0'}\nDiagnostic-Code: smtp; {reply}"
    )
    assert parse_report(dsn(status)).recipients[0].is_gone == (meaning is GONE)
    several_lines = status.replace(f"Status: {enhanced}", "Status: 5.0.0").replace(f"smtp; {code} ", f"smtp;{code}-")
    assert parse_report(dsn(several_lines)).recipients[0].is_gone == (meaning is GONE)


@pytest.mark.parametrize("code", [0, *range(4, 6), *range(7, 10), *range(11, 30), 90, 100])
def test_other_codes_of_5_1_suppress_nobody_whatever_the_text_says(code: int) -> None:
    for text in ("", " user unknown", " the mailbox does not exist"):
        [recipient] = parse_report(
            dsn(f"Final-Recipient: rfc822; {ANN}\nAction: failed\nStatus: 5.1.{code}{text and f' ({text})'}")
        ).recipients
        assert not recipient.is_gone
        meaning, _ = classify_smtp_error(aiosmtplib.SMTPRecipientRefused(550, f"5.1.{code}{text}", ANN))
        assert meaning is not GONE
