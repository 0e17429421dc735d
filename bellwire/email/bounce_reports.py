"""Bounces: what mail systems report about a mail that did not arrive (DSN, RFC 3464) or was not wanted (ARF, RFC 5965).

Both are mails of which one part is meant for machines, and another holds the mail in question or its headers. Systems
deviate: types in another case, parts missing, encoded or in the wrong order, a Status that says nothing beside a diagnostic
that says all. What can be read is read. Reports in prose, as of qmail, are none: they are refused as other mails are.
"""

import base64
import quopri
import re
from collections.abc import Iterable, Iterator
from email import message_from_string
from email.message import Message
from email.policy import compat32
from email.utils import getaddresses
from enum import StrEnum

from bellwire.errors import BellwireError
from bellwire.models import Payload

#: Bytes of a report that are read. What is for machines comes first; a returned mail may be as long as it likes.
MAX_BYTES = 256 * 1024
#: Parts, within parts or beside them, that a report may announce; a mail returned within has some of its own.
MAX_PARTS = 20
#: How deep the part for machines may lie, and recipients of one report.
_DEPTH, _MAX_RECIPIENTS = 4, 100

_DSN = {"message/delivery-status", "message/global-delivery-status"}
_ARF = {"message/feedback-report"}
_RETURNED = {"message/rfc822", "message/global", "text/rfc822-headers", "message/global-headers"}
_NESTED = re.compile(rb"boundary|message/", re.IGNORECASE)
_STATUS = re.compile(r"(?<![\d.])([245])\.(\d{1,3})\.(\d{1,3})(?![\d.])")
_ADDRESS = re.compile(r"[^\s<>,;:\"()]{1,128}@[^\s<>,;:\"()]{1,253}")
_UNITEXT = re.compile(r"\\x\{([0-9A-Fa-f]{2,6})\}")
#: Nobody is at the address, for good. 5.1.7 and 5.1.8 are about the sender's address (RFC 3463 §3.2).
_DEAD = re.compile(r"5\.(1\.(?![78]$)\d+|2\.1)")
_COMPLAINTS = {"abuse", "fraud"}
_OPT_OUTS = {"opt-out", "opt-out-list"}


class NotABounce(BellwireError, ValueError):
    """The mail is neither a delivery status notification (RFC 3464) nor a feedback report (RFC 5965)."""


class Action(StrEnum):
    """What a mail system did with a mail (RFC 3464 §2.3.3)."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"
    EXPANDED = "expanded"


class Reported(Payload):
    """One recipient of a report."""

    action: Action
    #: Enhanced status code (RFC 3463), such as 5.1.1; None if the report has none.
    status: str | None
    #: As the sender wrote it, if the report says so, then as it was when the mail stopped.
    addresses: tuple[str, ...]

    @property
    def dead(self) -> bool:
        """Whether nobody is at the address, for good."""
        return self.action is Action.FAILED and self.status is not None and bool(_DEAD.fullmatch(self.status))


class Report(Payload):
    """What a report says. Nothing of it is to be believed by itself: anybody can write one."""

    #: Of a feedback report: abuse, fraud, opt-out, not-spam, …; None for a delivery status notification.
    feedback: str | None = None
    recipients: tuple[Reported, ...] = ()
    #: Message-ID of the mail in question, without its brackets.
    message_id: str | None = None
    #: Addresses that may be the return path of the mail in question.
    returned_to: tuple[str, ...] = ()

    @property
    def complaint(self) -> bool:
        return self.feedback in _COMPLAINTS

    @property
    def opt_out(self) -> bool:
        return self.feedback in _OPT_OUTS


def parse(raw: bytes) -> Report:
    """The report in a mail. Raises NotABounce, and nothing else, whatever the bytes are."""
    raw = raw[:MAX_BYTES]
    if len(_NESTED.findall(raw)) > 2 * MAX_PARTS:
        raise NotABounce(f"announces more than {MAX_PARTS} parts within each other")
    try:
        return _report(_read(raw.decode("utf-8", "replace")))
    except NotABounce:
        raise
    except Exception as error:
        # The standard library's parser promises nothing about mails that were made to break it.
        raise NotABounce(f"cannot be read: {type(error).__name__}") from error


def _read(text: str) -> "Message[str, str]":
    # The policy that parses no header before it is asked to, and so trips over none.
    return message_from_string(text, policy=compat32)


def _report(mail: "Message[str, str]") -> Report:
    parts = list(_parts(mail))
    returned = next((found for kind, part in parts if kind in _RETURNED and (found := _returned(part))), None)
    paths = [*_values([mail], "To", "Delivered-To", "X-Original-To", "Envelope-To", "X-Envelope-To")]
    if returned is not None:
        paths += _values([returned], "Return-Path", "X-Envelope-From")
    common = {
        "message_id": _message_id(returned) if returned is not None else None,
    }
    for kind, part in parts:
        if kind in _DSN:
            blocks = _blocks(part)
            recipients = tuple(_reported(block) for block in blocks if _is_recipient(block))[:_MAX_RECIPIENTS]
            if recipients:
                recipients = _with_returned(recipients, returned)
                return Report(recipients=recipients, returned_to=_addresses(paths), **common)
        elif kind in _ARF and (blocks := _blocks(part)) and (feedback := _text(blocks[0]["Feedback-Type"])):
            paths += _values(blocks, "Original-Mail-From")
            addresses = _addresses(_values(blocks, "Original-Rcpt-To", "Removal-Recipient"))
            reported = Reported(action=Action.DELIVERED, status=None, addresses=addresses)
            return Report(
                feedback=feedback.lower()[:40],
                recipients=_with_returned((reported,), returned),
                returned_to=_addresses(paths),
                **common,
            )
    raise NotABounce


def _parts(mail: "Message[str, str]", depth: int = 0) -> Iterator[tuple[str, "Message[str, str]"]]:
    """The leaves of a mail with their types; what lies within a returned mail is its own affair."""
    if mail.get_content_maintype() == "multipart" and mail.is_multipart() and depth < _DEPTH:
        for part in mail.get_payload():
            if isinstance(part, Message):
                yield from _parts(part, depth + 1)
    else:
        yield mail.get_content_type(), mail


def _blocks(part: "Message[str, str]") -> list["Message[str, str]"]:
    """Groups of fields with blank lines between them; the part may be encoded, though it must not be."""
    payload = part.get_payload()
    text = "\n\n".join(map(_source, payload)) if isinstance(payload, list) else str(payload or "")
    text = _decoded(part, text)
    blocks = re.split(r"\n[ \t\r]*\n+", text.replace("\r\n", "\n").strip("\n"))
    return [_read(block) for block in blocks if block]


def _source(block: object) -> str:
    """What the parser made this block of, if it took it for a mail with headers."""
    if not isinstance(block, Message):
        return str(block)
    headers = "".join(f"{name}: {value}\n" for name, value in block.items())
    payload = block.get_payload()
    return f"{headers}\n{payload}" if isinstance(payload, str) else headers


def _returned(part: "Message[str, str]") -> "Message[str, str] | None":
    """The headers of the mail in question."""
    payload = part.get_payload()
    if isinstance(payload, list):
        payload = payload[0] if payload else ""
    if isinstance(payload, Message):
        if payload.keys():
            return payload
        payload = str(payload.get_payload())
    text = _decoded(part, str(payload or "")).lstrip("\r\n")
    found = _read(text)
    return found if found.keys() else None


def _decoded(part: "Message[str, str]", text: str) -> str:
    encoding = str(part.get("Content-Transfer-Encoding", "")).strip().lower()
    if encoding == "base64":
        try:
            raw = base64.b64decode(text)
        except ValueError:
            return text
    elif encoding == "quoted-printable":
        raw = quopri.decodestring(text.encode())
    else:
        return text
    return raw.decode("utf-8", "replace")


def _is_recipient(block: "Message[str, str]") -> bool:
    return any(name in block for name in ("Final-Recipient", "Original-Recipient", "Action", "Status"))


def _reported(block: "Message[str, str]") -> Reported:
    addresses = _addresses(_values([block], "Original-Recipient", "Final-Recipient", "X-Actual-Recipient"))
    status = _status(_text(block["Status"]), _text(block["Diagnostic-Code"]))
    said = re.match(r"[a-z]+", _text(block["Action"]).lower())
    actions = {"5": Action.FAILED, "4": Action.DELAYED, "2": Action.DELIVERED}
    inferred = actions.get((status or "")[:1], Action.DELAYED)  # what is not understood suppresses nobody
    action = Action(said[0]) if said and said[0] in set(Action) else inferred
    return Reported(action=action, status=status, addresses=addresses)


def _status(field: str, diagnostic: str) -> str | None:
    """The enhanced code. Some systems always say 5.0.0, which means nothing, and leave the code in the diagnostic."""
    said, more = _STATUS.search(field), _STATUS.search(diagnostic)
    if more and (said is None or (said[1] == more[1] and said[2] == said[3] == "0")):
        return more[0]
    return said[0] if said else None


def _with_returned(recipients: tuple[Reported, ...], returned: "Message[str, str] | None") -> tuple[Reported, ...]:
    """With whom the mail in question was for, if there is one recipient only, so that it must be the same."""
    if returned is None or len(recipients) != 1:
        return recipients
    (only,) = recipients
    addresses = dict.fromkeys([*only.addresses, *_addresses(_values([returned], "To"))])
    return (only.model_copy(update={"addresses": tuple(addresses)}),)


def _message_id(mail: "Message[str, str]") -> str | None:
    found = re.search(r"<?([^\s<>]{1,250})>?", _text(mail["Message-ID"]))
    return found[1] if found else None


def _values(messages: "Iterable[Message[str, str]]", *names: str) -> list[str]:
    return [_text(value) for message in messages for name in names for value in message.get_all(name, [])[:10]]


def _addresses(values: Iterable[str]) -> tuple[str, ...]:
    """The addresses in the values of fields, each once: "rfc822; ann@example.com", "utf-8; j\\x{FC}rgen@…", or a list."""
    found: dict[str, None] = {}
    for value in values:
        text = _UNITEXT.sub(_character, value)
        _, _, typed = text.rpartition(";")
        for address in [each for _, each in getaddresses([typed])] or [typed]:
            if match := _ADDRESS.search(address):
                found.setdefault(match[0])
    return tuple(found)[:20]


def _character(match: re.Match[str]) -> str:
    number = int(match[1], 16)
    return chr(number) if number < 0x110000 and not 0xD800 <= number < 0xE000 else match[0]


def _text(value: object) -> str:
    """A field as one line."""
    return " ".join(str(value or "").split())[:2000]
