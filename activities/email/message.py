"""Mail: what is handed to a relay, byte for byte: headers, text and HTML, files, the way out, the signature.

It is put together so that the strictest receiver accepts it: seven bits, lines that are short enough, one of each header,
and no character of anybody's data that could end a header and begin another.
"""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email import policy
from email.header import Header
from email.message import EmailMessage
from email.utils import format_datetime, formataddr, parseaddr

from pydantic import TypeAdapter, ValidationError

from activities.email.dkim import DkimSigner
from activities.rendering.html import inlined
from activities.rendering.renderer import EmailText
from activities.rendering.sandbox.filters import one_line, printable
from bellwire.email.unsubscribe_links import ONE_CLICK, Links
from bellwire.subscriptions import EmailAddress

#: Longest subject, name of a sender and name of a file, in characters: the lines they stand in stay below the 998 of
#: RFC 5322 §2.1.1 however they are encoded.
MAX_SUBJECT, MAX_NAME, MAX_FILE_NAME = 500, 100, 100
#: Bytes from which a mail is put together and signed in a thread: a millisecond's work.
LARGE = 16 * 1024

#: 7-bit bodies, so that any relay takes them.
_POLICY = policy.SMTP.clone(cte_type="7bit")
_TYPE = re.compile(r"([a-z0-9][a-z0-9.+-]{0,63})/([a-z0-9][a-z0-9.+-]{0,99})")
#: Types that are structure and not content.
_STRUCTURE = frozenset({"multipart", "message"})
_NOT_VISIBLE = re.compile(r"[^\x21-\x7e]")
_NOT_IN_FILE_NAMES = re.compile(r"[\\/:*?\"<>|]+")
_CRLF = "\r\n"
#: Longest name that stands in its line as it is, with quotes and each of its letters escaped.
_SHORT_NAME = 34
#: Name and address that do not fit into one line of 78 characters.
_LONG = 70


@dataclass(frozen=True, kw_only=True)
class File:
    """A file that goes with a mail. `type` is a media type without parameters."""

    name: str
    type: str
    content: bytes


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A mail as it is for all its recipients."""

    subscription_id: str
    head: bytes
    #: MIME headers, an empty line, the body.
    body: bytes


class Composer:
    """Composes mails from `sender` ("Name <address>"), with links to unsubscribe and signed, if those are given.

    Raises ValueError at once if `sender` is not an address that a header can hold.
    """

    def __init__(self, sender: str, *, links: Links | None = None, signer: DkimSigner | None = None) -> None:
        self._links, self._signer = links, signer
        name, address = parseaddr(_visible(_whole(sender)))
        try:
            #: The bare address, in ASCII.
            self.address = ascii_domain(TypeAdapter(EmailAddress).validate_python(address))
        except ValidationError as error:
            raise ValueError(f"sender: {sender!r} is not an address; write Name <address>") from error
        if not self.address.isascii():
            raise ValueError(f"sender: {sender!r} has letters before the @ that are not ASCII")
        #: What Message-IDs end in.
        self.domain = self.address.rpartition("@")[2]
        self._from = _mailbox(one_line(name, limit=MAX_NAME), self.address)

    async def draft(
        self, text: EmailText, *, message_id: str, subscription_id: str, files: Sequence[File] = ()
    ) -> Draft:
        """What all recipients get alike. `message_id` is in angle brackets."""
        head = (
            f"From: {self._from}",
            f"Subject: {_subject(text.subject)}",
            f"Date: {format_datetime(datetime.now(UTC))}",
            f"Message-ID: {_NOT_VISIBLE.sub('', message_id)}",
            "Auto-Submitted: auto-generated",
        )
        size = len(text.plain) + len(text.html or "") + sum(len(file.content) for file in files)
        body = await asyncio.to_thread(_body, text, files) if size > LARGE else _body(text, files)
        return Draft(subscription_id=subscription_id, head=_lines(head), body=body)

    async def compose(self, draft: Draft, recipient: str) -> bytes:
        """The whole mail for one recipient, whose address is as the subscription has it."""
        head = [f"To: {_visible(ascii_domain(recipient))}"]
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
    """The address with its domain in ASCII (IDNA), so that only a local part that is not ASCII needs SMTPUTF8."""
    local, _, domain = address.rpartition("@")
    try:
        return f"{local}@{domain.encode('idna').decode()}"
    except UnicodeError:
        return address


def file_name(text: str) -> str:
    """A name that is one, and only that, on every system: no folder, no control character, no dot at either end."""
    last = _visible(_whole(text)).replace("\\", "/").rstrip("/").rpartition("/")[2]
    name = _NOT_IN_FILE_NAMES.sub("_", last).strip(" .")
    if len(name) > MAX_FILE_NAME:
        stem, dot, ending = name.rpartition(".")
        name = (
            stem[: MAX_FILE_NAME - 1 - len(ending)] + dot + ending
            if dot and len(ending) <= 10
            else name[:MAX_FILE_NAME]
        )
    return name.strip(" .") or "file"


def media_type(text: str | None) -> str:
    """A media type without its parameters; application/octet-stream for what is none, or is structure."""
    found = _TYPE.fullmatch((text or "").partition(";")[0].strip().lower())
    return found[0] if found and found[1] not in _STRUCTURE else "application/octet-stream"


def _body(text: EmailText, files: Sequence[File]) -> bytes:
    body = EmailMessage(policy=_POLICY)
    body.set_content(printable(_whole(text.plain)))
    if text.html is not None:
        body.add_alternative(printable(inlined(_whole(text.html))), subtype="html")
    for file in files:
        main, _, sub = media_type(file.type).partition("/")
        body.add_attachment(file.content, maintype=main, subtype=sub, filename=file_name(file.name))
    return body.as_bytes()


def _subject(text: str) -> str:
    line = one_line(_whole(text), limit=MAX_SUBJECT)
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


def _whole(text: str) -> str:
    """The text with pairs of surrogates joined, and lone ones, which no encoding has, replaced."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _visible(text: str) -> str:
    """The text without control characters, line ends of any script, and marks that change its direction."""
    return "".join(character for character in text if character.isprintable())


def _lines(fields: Sequence[str]) -> bytes:
    return "".join(f"{field}\r\n" for field in fields).encode()
