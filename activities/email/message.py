"""Composer: composes the bytes of a mail: headers, text, HTML, attached files, unsubscribe link and DKIM signature.

Strict receivers accept the result: 7-bit bodies, short lines, one of each header. Data of an event cannot end a header or
start another one.
"""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email import policy
from email.header import Header
from email.message import EmailMessage
from email.utils import format_datetime, formataddr

from activities.email.dkim import DkimSigner
from activities.email.files import File, file_name, media_type
from activities.rendering.renderer import EmailText
from activities.rendering.text import one_line, printable, valid_unicode, without_invisible
from bellwire.email.unsubscribe_links import ONE_CLICK, UnsubscribeLinks
from bellwire.formats.mailboxes import canonical_mailbox, parse_sender

#: Longest subject and sender name in characters. Encoded, they keep their header lines below the 998 characters of
#: RFC 5322 §2.1.1.
MAX_SUBJECT, MAX_NAME = 500, 100
#: Size in bytes from which a mail is composed and signed in a thread: that takes about a millisecond.
LARGE = 16 * 1024

#: 7-bit bodies, which every relay accepts.
_POLICY = policy.SMTP.clone(cte_type="7bit")
_NOT_VISIBLE = re.compile(r"[^\x21-\x7e]")
_CRLF = "\r\n"
#: Longest name that fits into its header line even if it is quoted and each character is escaped.
_SHORT_NAME = 34
#: Length from which name and address go on two lines, because of the limit of 78 characters.
_LONG = 70


@dataclass(frozen=True, kw_only=True)
class Draft:
    """The part of a mail that is the same for all recipients."""

    subscription_id: str
    head: bytes
    #: MIME headers, an empty line, the body.
    body: bytes


class Composer:
    """Composes mails from `sender` ("Name <address>"), with unsubscribe `links` and a signature of `signer`, if given.

    The constructor raises ValueError if `sender` is not a valid address.
    """

    def __init__(self, sender: str, *, links: UnsubscribeLinks | None = None, signer: DkimSigner | None = None) -> None:
        self._links, self._signer = links, signer
        try:
            #: The bare address, in ASCII.
            name, self.address = parse_sender(without_invisible(valid_unicode(sender)))
        except ValueError as error:
            raise ValueError(f"sender: {sender!r} is not an address; write Name <address>") from error
        if not self.address.isascii():
            raise ValueError(f"sender: {sender!r} has non-ASCII letters before the @")
        #: The domain of Message-IDs.
        self.domain = self.address.rpartition("@")[2]
        self._from = _mailbox(one_line(name, limit=MAX_NAME), self.address)

    async def draft(
        self, text: EmailText, *, message_id: str, subscription_id: str, files: Sequence[File] = ()
    ) -> Draft:
        """Compose the part that is the same for all recipients. `message_id` is in angle brackets."""
        head = (
            f"From: {self._from}",
            f"Subject: {_subject(text.subject)}",
            f"Date: {format_datetime(datetime.now(UTC))}",
            f"Message-ID: {_NOT_VISIBLE.sub('', message_id)}",
            "Auto-Submitted: auto-generated",
        )
        size = len(text.text) + len(text.html or "") + sum(len(file.content) for file in files)
        body = await asyncio.to_thread(_body, text, files) if size > LARGE else _body(text, files)
        return Draft(subscription_id=subscription_id, head=_lines(head), body=body)

    async def compose(self, draft: Draft, recipient: str) -> bytes:
        """Compose the whole mail for one recipient. `recipient` is the address as the subscription has it."""
        head = [f"To: {without_invisible(ascii_domain(recipient))}"]
        if self._links is not None:
            url = self._links.unsubscribe_url(draft.subscription_id, recipient)
            head += [
                f"List-Unsubscribe: <{_NOT_VISIBLE.sub('', url)}>",
                f"List-Unsubscribe-Post: {'='.join(ONE_CLICK)}",
            ]
        mail = _lines(head) + draft.head + draft.body
        if self._signer is None:
            return mail
        if len(mail) > LARGE or self._signer.slow:
            return await asyncio.to_thread(self._signer.sign, mail)
        return self._signer.sign(mail)


def ascii_domain(address: str) -> str:
    """The address with its domain in ASCII, as targets store it. Then only a non-ASCII local part needs SMTPUTF8."""
    if address.isascii():
        return address
    try:
        return canonical_mailbox(address)
    except ValueError:
        return address


def _body(text: EmailText, files: Sequence[File]) -> bytes:
    body = EmailMessage(policy=_POLICY)
    body.set_content(printable(valid_unicode(text.text)))
    if text.html is not None:
        body.add_alternative(printable(valid_unicode(text.html)), subtype="html")
    for file in files:
        main, _, sub = media_type(file.type).partition("/")
        body.add_attachment(file.content, maintype=main, subtype=sub, filename=file_name(file.name))
    return body.as_bytes()


def _subject(text: str) -> str:
    line = one_line(valid_unicode(text), limit=MAX_SUBJECT)
    plain = line.isascii() and "=?" not in line
    return Header(line, "us-ascii" if plain else "utf-8", header_name="Subject").encode(linesep=_CRLF)


def _mailbox(name: str, address: str) -> str:
    if name.isascii() and "=?" not in name and len(name) <= _SHORT_NAME:
        whole = formataddr((name, address))
    else:
        whole = f"{Header(name, 'utf-8', header_name='From').encode(linesep=_CRLF)} <{address}>"
    words, _, last = whole.rpartition(" ")
    long = len(words.rpartition("\n")[2]) + len(last) > _LONG
    return f"{words}{_CRLF} {last}" if words and long else whole


def _lines(fields: Sequence[str]) -> bytes:
    return "".join(f"{field}\r\n" for field in fields).encode()
