"""Parses bounces: delivery status notifications (DSN, RFC 3464) and feedback reports about spam (ARF, RFC 5965).

Both are mails with a machine-readable part and a part with the returned mail or its headers. Mail systems deviate from the
standards: types in another case, parts that are missing, encoded, forwarded or in another order, a generic Status with the real
code in the diagnostic. The parser accepts these. It refuses reports in prose like any other mail, except those of qmail and
Exim, which have a structure (`plain_bounces`).
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum

from bellwire.email.addresses_in_text import addresses_in
from bellwire.email.mail_parts import Fields, Part, blocks, leaves, parse_mail, without_comments
from bellwire.email.plain_bounces import PlainRecipient, read_plain_bounce
from bellwire.email.status_codes import code_at_start, codes_in_diagnostic, says_nobody_is_there
from bellwire.errors import BellwireError
from bellwire.models import Payload

#: Bytes of a mail that are read. A longer one is cut: the machine-readable part rarely comes after the returned mail.
MAX_BYTES = 32 * 1024 * 1024
#: Bytes of a machine-readable part, recipients of one report, and mails around it that forward it as a file.
_MAX_REPORT, _MAX_RECIPIENTS, _MAX_FORWARDS = 1024 * 1024, 1000, 3

_DSN = {"message/delivery-status", "message/global-delivery-status"}
_ARF = {"message/feedback-report"}
_RETURNED_MAIL = {"message/rfc822", "message/global"}
_RETURNED = {*_RETURNED_MAIL, "text/rfc822-headers", "message/rfc822-headers", "message/global-headers"}
#: Where mail systems write the address that a mail was returned to, or the return path of the returned mail.
_RETURNED_TO = ("to", "delivered-to", "x-original-to", "envelope-to", "x-envelope-to")
_RETURN_PATH = ("return-path", "x-envelope-from")
#: Where a returned mail names its recipient. Microsoft's feedback reports redact To and have a field of their own.
_RETURNED_RECIPIENT = ("to", "x-hmxmroriginalrecipient", "delivered-to", "x-original-to", "envelope-to")
#: The type at the start of a field, such as "smtp;".
_TYPE = r"^[\w-]{1,40}\s*;"
_RECIPIENT_FIELDS = ("original-recipient", "final-recipient")
_COMPLAINTS = {"abuse", "fraud"}
_OPT_OUTS = {"opt-out", "opt-out-list"}
#: Microsoft's junk mail reports before it used ARF: the mail as a file, under this subject.
_JUNK_REPORT = "complaint about message from"


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
    #: Whether the mailbox does not exist, permanently.
    is_gone: bool = False


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
    try:
        report = _report(parse_mail(raw[:MAX_BYTES]), [])
    except Exception as error:
        # Whatever a malicious mail makes the parser raise: it is no report.
        raise NotABounce(f"cannot be parsed: {type(error).__name__}") from error
    if report is None:
        raise NotABounce
    return report


def _report(mail: Part, around: Sequence[Fields]) -> Report | None:
    """The report that a mail is, or that it has as a file. `around`: the headers of the mails that it is a file of."""
    parts = leaves(mail)
    headers = [mail.fields, *around]
    returned = next((fields for part in parts if part.kind in _RETURNED and (fields := part.mail.fields)), Fields([]))
    for part in parts:
        if part.kind in _DSN:
            groups = list(blocks(part.content[:_MAX_REPORT]))
            if recipients := tuple(_reported(group) for group in _recipient_groups(groups)):
                return _complete(recipients, headers, groups, returned)
        elif part.kind in _ARF:
            groups = list(blocks(part.content[:_MAX_REPORT]))
            if feedback := next(filter(None, map(_feedback, groups)), None):
                return _complete((_complained(groups),), headers, groups, returned, feedback=feedback)
    if plain := read_plain_bounce(mail, parts[0]):
        return _complete(tuple(map(_stated, plain.recipients)), headers, [], plain.returned or returned)
    if returned and mail.fields.get("subject").lower().startswith(_JUNK_REPORT):
        return _complete((_complained([]),), headers, [], returned, feedback="abuse")
    if len(around) < _MAX_FORWARDS:
        for part in parts:
            if part.kind in _RETURNED_MAIL and (found := _report(part.mail, headers)):
                return found
    return None


def _complete(
    recipients: tuple[ReportedRecipient, ...],
    headers: Sequence[Fields],
    groups: Sequence[Fields],
    returned: Fields,
    *,
    feedback: str | None = None,
) -> Report:
    """The report. A single recipient is also the recipient of the returned mail."""
    if len(recipients) == 1:
        addresses = dict.fromkeys([*recipients[0].addresses, *addresses_in(returned.all(*_RETURNED_RECIPIENT))])
        recipients = (recipients[0].model_copy(update={"addresses": tuple(addresses)}),)
    named = [value for each in headers for value in each.all(*_RETURNED_TO)]
    named += [value for each in groups for value in each.all("original-mail-from")]
    named += returned.all(*_RETURN_PATH)
    everywhere = (value for each in (*headers, *groups, returned) for _, value in each.fields)
    tagged = (address for address in addresses_in(value for value in everywhere if "+" in value) if "+" in address)
    return Report(
        feedback=feedback,
        recipients=recipients,
        message_id=_message_id(returned),
        returned_to=tuple(dict.fromkeys([*addresses_in(named), *tagged])),
    )


def _recipient_groups(groups: Iterable[Fields]) -> Iterator[Fields]:
    """The fields of each recipient. A missing blank line between two, or one too many within one, is made up for."""
    found: list[list[tuple[str, str]]] = []
    for group in groups:
        names = {name for name, _ in group.fields}
        if not names & {*_RECIPIENT_FIELDS, "action", "status"}:
            continue
        if not found or names & {*_RECIPIENT_FIELDS} or "action" in dict(found[-1]) or "status" in dict(found[-1]):
            found.append([])
        for name, value in group.fields:
            if name in _RECIPIENT_FIELDS and any(name == each for each, _ in found[-1]):
                found.append([])
            found[-1].append((name, value))
    return map(Fields, found[:_MAX_RECIPIENTS])


def _reported(group: Fields) -> ReportedRecipient:
    addresses = addresses_in(group.all(*_RECIPIENT_FIELDS, "x-actual-recipient"))
    diagnostic = group.get("diagnostic-code")
    reply, detailed = codes_in_diagnostic(diagnostic)
    code = code_at_start(without_comments(group.get("status")))
    status = code
    # Some systems always report the generic 5.0.0 and put the real code into the diagnostic.
    if detailed and (code is None or (code.endswith(".0.0") and code[0] == detailed[0])):
        status = detailed
    stated = re.match(r"\s*([a-z]+)", without_comments(group.get("action").lower()))
    actions = {"5": Action.FAILED, "4": Action.DELAYED, "2": Action.DELIVERED}
    inferred = actions.get((status or "")[:1], Action.DELAYED)  # an unknown status suppresses no address
    action = Action(stated[1]) if stated and stated[1] in set(Action) else inferred
    # The reply of the system that refused the mail counts too, where it says something else than the Status.
    codes = {each for each in (status, detailed) if each and each != "5.0.0"}
    text = f"{group.get('status')} {re.sub(_TYPE, '', diagnostic)}"
    return ReportedRecipient(
        action=action,
        status=status,
        addresses=addresses,
        is_gone=action is Action.FAILED
        and (reply is None or reply.startswith("5"))
        and bool(codes)
        and all(says_nobody_is_there(each, text) for each in codes),
    )


def _stated(plain: PlainRecipient) -> ReportedRecipient:
    """A recipient of a bounce without a machine-readable part, which mail systems send only about failures and delays."""
    permanent = plain.status is not None and plain.status.startswith("5")
    return ReportedRecipient(
        action=Action.FAILED if permanent else Action.DELAYED,
        status=plain.status,
        addresses=addresses_in([plain.address]),
        is_gone=permanent and says_nobody_is_there(plain.status or "", plain.text),
    )


def _feedback(group: Fields) -> str | None:
    found = re.match(r"\s*([\w-]{1,40})", without_comments(group.get("feedback-type")), re.ASCII)
    return found[1].lower() if found else None


def _complained(groups: Sequence[Fields]) -> ReportedRecipient:
    values = [value for group in groups for value in group.all("original-rcpt-to", "removal-recipient")]
    return ReportedRecipient(action=Action.DELIVERED, status=None, addresses=addresses_in(values))


def _message_id(returned: Fields) -> str | None:
    found = re.search(r"<?([^\s<>]{1,250})>?", returned.get("message-id"))
    return found[1] if found else None
