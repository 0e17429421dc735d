"""Outbox: the mails, SMS and webhooks that were caught, in memory; the oldest go when it is full."""

import itertools
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage, MIMEPart
from enum import StrEnum

#: Messages that are kept, and the bytes of all of them.
MAX_MESSAGES, MAX_BYTES = 500, 64 * 1024 * 1024


class Kind(StrEnum):
    EMAIL = "email"
    SMS = "sms"
    WEBHOOK = "webhook"


@dataclass(frozen=True, kw_only=True)
class Attachment:
    name: str
    media_type: str
    content: bytes


@dataclass(frozen=True, kw_only=True)
class Caught:
    """One mail, SMS or webhook, as it arrived."""

    kind: Kind
    sender: str
    #: The recipients of the envelope, the number, or the path.
    to: tuple[str, ...]
    #: The subject of a mail, the start of an SMS, the type of a webhook's event.
    title: str
    text: str
    #: None: there is no HTML.
    html: str | None = None
    #: Of a mail, decoded; or of a webhook.
    headers: tuple[tuple[str, str], ...] = ()
    #: Of a mail or a webhook: the bytes that arrived.
    source: bytes = b""
    at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def size(self) -> int:
        return len(self.source) + len(self.text) + len(self.html or "")

    @property
    def attachments(self) -> tuple[Attachment, ...]:
        """Of a mail; read from its source each time, so that they are not in memory twice."""
        if self.kind is not Kind.EMAIL:
            return ()
        return tuple(_attachments(_parsed(self.source)))


class Outbox:
    """What was caught, by id; the ids of dropped messages are not used again."""

    def __init__(self, *, max_messages: int = MAX_MESSAGES, max_bytes: int = MAX_BYTES) -> None:
        self._max_messages, self._max_bytes = max_messages, max_bytes
        self._caught: deque[tuple[int, Caught]] = deque()
        self._ids = itertools.count(1)
        self._bytes = 0
        #: Messages that were caught and dropped since.
        self.dropped = 0

    def add(self, caught: Caught) -> int:
        """Keep a message and return its id. Drops the oldest ones if there are too many."""
        number = next(self._ids)
        self._caught.append((number, caught))
        self._bytes += caught.size
        while len(self._caught) > self._max_messages or (self._bytes > self._max_bytes and len(self._caught) > 1):
            self._bytes -= self._caught.popleft()[1].size
            self.dropped += 1
        return number

    def get(self, number: int) -> Caught | None:
        return next((caught for each, caught in self._caught if each == number), None)

    def list(self, *, kind: Kind | None = None, to: str | None = None) -> list[tuple[int, Caught]]:
        """Ids and messages, newest first."""
        return [
            (number, caught)
            for number, caught in reversed(self._caught)
            if (kind is None or caught.kind is kind) and (to is None or to in caught.to)
        ]

    def clear(self) -> None:
        self._caught.clear()
        self._bytes = self.dropped = 0


def mail(envelope_from: str, recipients: tuple[str, ...], source: bytes) -> Caught:
    """A mail. Whatever is wrong with it, its source can be shown."""
    message = _parsed(source)
    headers = tuple((name, str(value)) for name, value in message.items())
    subject = next((value for name, value in headers if name.lower() == "subject"), "")
    return Caught(
        kind=Kind.EMAIL,
        sender=envelope_from,
        to=recipients,
        title=subject,
        text=_body(message, "plain") or "",
        html=_body(message, "html"),
        headers=headers,
        source=source,
    )


def _parsed(source: bytes) -> EmailMessage:
    message = message_from_bytes(source, policy=policy.default)
    try:
        for value in message.values():
            str(value)
        message.get_body(("plain",))
    except Exception:  # the parser of headers raises many kinds for what is not a mail
        return message_from_bytes(b"\n" + source, policy=policy.default)
    return message


def _body(message: EmailMessage, kind: str) -> str | None:
    part = message.get_body((kind,))
    return None if part is None else _text_of(part)


def _text_of(part: MIMEPart) -> str:
    try:
        return str(part.get_content()).replace("\r\n", "\n")
    except (LookupError, ValueError):  # an unknown charset
        raw = part.get_payload(decode=True)
        return raw.decode("latin-1") if isinstance(raw, bytes) else ""


def _attachments(message: EmailMessage) -> Iterator[Attachment]:
    for number, part in enumerate(message.iter_attachments(), start=1):
        raw = part.get_payload(decode=True)
        content = raw if isinstance(raw, bytes) else part.as_bytes()
        yield Attachment(
            name=part.get_filename() or f"attachment-{number}", media_type=part.get_content_type(), content=content
        )
