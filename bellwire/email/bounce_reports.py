"""Parses bounces: delivery status notifications (DSN, RFC 3464) and feedback reports about spam (ARF, RFC 5965).

Both are mails with a machine-readable part and a part with the returned mail or its headers. Mail systems deviate from the
standards: types in another case, parts that are missing, encoded or in another order, a generic Status with the real code
in the diagnostic. The parser accepts these. It refuses reports in prose, such as qmail's, like any other mail.
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
from typing import TYPE_CHECKING

from bellwire.errors import BellwireError
from bellwire.models import Payload

#: Bytes of a report that are read. The machine-readable part comes first, and the returned mail may have any size.
MAX_BYTES = 256 * 1024
#: Parts of a report, nested or side by side. A returned mail has some of its own.
MAX_PARTS = 20
#: Depth at which the machine-readable part may be nested, and recipients of one report.
_DEPTH, _MAX_RECIPIENTS = 4, 100

if TYPE_CHECKING:
    _Mail = Message[str, str]
else:
    _Mail = Message

_DSN = {"message/delivery-status", "message/global-delivery-status"}
_ARF = {"message/feedback-report"}
_RETURNED = {"message/rfc822", "message/global", "text/rfc822-headers", "message/global-headers"}
_NESTED = re.compile(rb"boundary|message/", re.IGNORECASE)
_STATUS = re.compile(r"(?<![\d.])([245])\.(\d{1,3})\.(\d{1,3})(?![\d.])")
_ADDRESS = re.compile(r"[^\s<>,;:\"()]{1,128}@[^\s<>,;:\"()]{1,253}")
_UNITEXT = re.compile(r"\\x\{([0-9A-Fa-f]{2,6})\}")
#: The mailbox does not exist, permanently. 5.1.7 and 5.1.8 concern the sender's address (RFC 3463 §3.2).
_GONE = re.compile(r"5\.(1\.(?![78]$)\d+|2\.1)")
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


class ReportedRecipient(Payload):
    """One recipient of a report."""

    action: Action
    #: Enhanced status code (RFC 3463), such as 5.1.1; None if the report has none.
    status: str | None
    #: The original address, if the report has it, then the address where the mail failed.
    addresses: tuple[str, ...]

    @property
    def is_gone(self) -> bool:
        """Whether the mailbox does not exist, permanently."""
        return self.action is Action.FAILED and self.status is not None and bool(_GONE.fullmatch(self.status))


class Report(Payload):
    """The content of a report. It is untrusted: anyone can write a report."""

    #: The type of a feedback report: abuse, fraud, opt-out, not-spam, …; None for a delivery status notification.
    feedback: str | None = None
    recipients: tuple[ReportedRecipient, ...] = ()
    #: Message-ID of the returned mail, without its brackets.
    message_id: str | None = None
    #: Addresses that may be the return path of the returned mail.
    returned_to: tuple[str, ...] = ()

    @property
    def is_complaint(self) -> bool:
        return self.feedback in _COMPLAINTS

    @property
    def is_opt_out(self) -> bool:
        return self.feedback in _OPT_OUTS


def parse_report(raw: bytes) -> Report:
    """The report in a mail. Raises NotABounce, and nothing else, for any other bytes."""
    raw = raw[:MAX_BYTES]
    if len(_NESTED.findall(raw)) > 2 * MAX_PARTS:
        raise NotABounce(f"has more than {MAX_PARTS} nested parts")
    try:
        return _report(_read(raw.decode("utf-8", "replace")))
    except NotABounce:
        raise
    except Exception as error:
        # The standard library's parser can raise anything for a malicious mail.
        raise NotABounce(f"cannot be parsed: {type(error).__name__}") from error


def _read(text: str) -> _Mail:
    # With this policy headers are parsed only on access, so that an invalid header does not fail the whole mail.
    return message_from_string(text, policy=compat32)


def _report(mail: _Mail) -> Report:
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
            reported = ReportedRecipient(action=Action.DELIVERED, status=None, addresses=addresses)
            return Report(
                feedback=feedback.lower()[:40],
                recipients=_with_returned((reported,), returned),
                returned_to=_addresses(paths),
                **common,
            )
    raise NotABounce


def _parts(mail: _Mail, depth: int = 0) -> Iterator[tuple[str, _Mail]]:
    """The leaf parts of a mail with their types. Parts within a returned mail are not included."""
    if mail.get_content_maintype() == "multipart" and mail.is_multipart() and depth < _DEPTH:
        for part in mail.get_payload():
            if isinstance(part, Message):
                yield from _parts(part, depth + 1)
    else:
        yield mail.get_content_type(), mail


def _blocks(part: _Mail) -> list[_Mail]:
    """Groups of fields with blank lines between them. The part may be encoded, although the standard forbids it."""
    payload = part.get_payload()
    text = "\n\n".join(map(_source, payload)) if isinstance(payload, list) else str(payload or "")
    text = _decoded(part, text)
    blocks = re.split(r"\n[ \t\r]*\n+", text.replace("\r\n", "\n").strip("\n"))
    return [_read(block) for block in blocks if block]


def _source(block: object) -> str:
    """The text of a block that the parser read as a mail with headers."""
    if not isinstance(block, Message):
        return str(block)
    headers = "".join(f"{name}: {value}\n" for name, value in block.items())
    payload = block.get_payload()
    return f"{headers}\n{payload}" if isinstance(payload, str) else headers


def _returned(part: _Mail) -> _Mail | None:
    """The headers of the returned mail."""
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


def _decoded(part: _Mail, text: str) -> str:
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


def _is_recipient(block: _Mail) -> bool:
    return any(name in block for name in ("Final-Recipient", "Original-Recipient", "Action", "Status"))


def _reported(block: _Mail) -> ReportedRecipient:
    addresses = _addresses(_values([block], "Original-Recipient", "Final-Recipient", "X-Actual-Recipient"))
    status = _status(_text(block["Status"]), _text(block["Diagnostic-Code"]))
    stated = re.match(r"[a-z]+", _text(block["Action"]).lower())
    actions = {"5": Action.FAILED, "4": Action.DELAYED, "2": Action.DELIVERED}
    inferred = actions.get((status or "")[:1], Action.DELAYED)  # an unknown status suppresses no address
    action = Action(stated[0]) if stated and stated[0] in set(Action) else inferred
    return ReportedRecipient(action=action, status=status, addresses=addresses)


def _status(field: str, diagnostic: str) -> str | None:
    """The enhanced code. Some systems always report the generic 5.0.0 and put the real code into the diagnostic."""
    code, detailed = _STATUS.search(field), _STATUS.search(diagnostic)
    if detailed and (code is None or (code[1] == detailed[1] and code[2] == code[3] == "0")):
        return detailed[0]
    return code[0] if code else None


def _with_returned(recipients: tuple[ReportedRecipient, ...], returned: _Mail | None) -> tuple[ReportedRecipient, ...]:
    """The recipients, with the To address of the returned mail if there is only one recipient: it must be the same."""
    if returned is None or len(recipients) != 1:
        return recipients
    (only,) = recipients
    addresses = dict.fromkeys([*only.addresses, *_addresses(_values([returned], "To"))])
    return (only.model_copy(update={"addresses": tuple(addresses)}),)


def _message_id(mail: _Mail) -> str | None:
    found = re.search(r"<?([^\s<>]{1,250})>?", _text(mail["Message-ID"]))
    return found[1] if found else None


def _values(messages: Iterable[_Mail], *names: str) -> list[str]:
    return [_text(value) for message in messages for name in names for value in message.get_all(name, [])[:10]]


def _addresses(values: Iterable[str]) -> tuple[str, ...]:
    """The distinct addresses in field values: "rfc822; ann@example.com", "utf-8; j\\x{FC}rgen@…", or a list."""
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
    """The value of a field as one line."""
    return " ".join(str(value or "").split())[:2000]
