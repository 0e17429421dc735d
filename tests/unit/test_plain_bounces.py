"""Bounces of qmail and older Exim, which have no machine-readable part."""

import pytest

from bellwire.email.bounce_reports import Action, NotABounce, parse_report
from tests.reports import MESSAGE_ID, mail

ANN = "ann@example.com"


def qmail(*paragraphs: str) -> bytes:
    text = "\n\n".join(
        [
            "To: bounces+t@example.net\nSubject: failure notice\n",
            "Hi. This is the qmail-send program at mx.example.com.\nI'm afraid I wasn't able to deliver your message.",
            *paragraphs,
            "--- Below this line is a copy of the message.",
            f"Return-Path: <bounces+t@example.net>\nMessage-ID: <{MESSAGE_ID}>\n\n<bob@example.com>:\n550 5.1.1 quoted",
        ]
    )
    return text.replace("\n\n\n", "\n\n").replace("\n", "\r\n").encode()


@pytest.mark.parametrize(
    ("said", "status", "gone"),
    [
        ("Sorry, no mailbox here by that name. (#5.1.1)", "5.1.1", True),
        (
            "192.0.2.1 does not like recipient.\nRemote host said: 550 5.1.1 User unknown\nGiving up on 192.0.2.1.",
            "5.1.1",
            True,
        ),
        ("Remote host said: 550-5.2.1 The user gets mail at a rate that prevents more", "5.2.1", False),
        ("Remote host said: 554 5.7.1 refused, see 5.1.1", "5.7.1", False),
        ("The user's mailbox is full. (#5.2.2)", "5.2.2", False),
        ("I said 5.1.1 in prose.", None, False),
    ],
)
def test_a_bounce_of_qmail_is_read_by_its_paragraphs(said: str, status: str | None, gone: bool) -> None:
    report = parse_report(qmail(f"<{ANN}>:\n{said}"))
    [recipient] = report.recipients
    assert (recipient.addresses, recipient.status, recipient.is_gone) == ((ANN,), status, gone)
    assert recipient.action is (Action.FAILED if status else Action.DELAYED)
    assert (report.message_id, report.returned_to) == (MESSAGE_ID, ("bounces+t@example.net",))


def test_each_paragraph_of_qmail_is_a_recipient() -> None:
    report = parse_report(qmail(f"<{ANN}>:\nno mailbox (#5.1.1)", "<carl@example.com>:\nfull (#5.2.2)"))
    assert [each.is_gone for each in report.recipients] == [True, False]
    with pytest.raises(NotABounce):
        parse_report(qmail("Nothing about anybody. (#5.1.1)"))


@pytest.mark.parametrize(
    ("reply", "gone"),
    [
        ("550 5.1.1 User unknown", True),
        ("host mx.example.com [192.0.2.1]: 550 5.1.1 User unknown", True),
        ("550 5.7.1 blocked", False),
        ("550 User unknown", False),
    ],
)
def test_a_bounce_of_exim_is_read_by_its_header_and_lines(reply: str, gone: bool) -> None:
    raw = mail(
        f"""
        To: bounces+t@example.net
        X-Failed-Recipients: {ANN}
        Subject: Mail delivery failed: returning message to sender

        This message was created automatically by mail delivery software.

          {ANN}
            SMTP error from remote mail server after RCPT TO:<{ANN}>:
            {reply}

        ------ This is a copy of the message, including all the headers. ------

        Message-ID: <{MESSAGE_ID}>

          {ANN}
            550 5.1.1 quoted
        """
    )
    report = parse_report(raw)
    assert (report.recipients[0].is_gone, report.message_id) == (gone, MESSAGE_ID)
