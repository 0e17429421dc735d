"""Bounces: reads reports of mail systems, and suppresses addresses that are dead or complained.

A report counts only if it holds a return path that Bellwire signed: everything else in it can be computed or invented.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from bellwire.deliveries import DeliveryKey, delivery_id, parse_delivery_id
from bellwire.email.bounce_reports import NotABounce, Report, ReportedRecipient, parse_report
from bellwire.email.return_path import ReturnPath, ReturnPathToken, normalized
from bellwire.errors import SubscriptionNotFound
from bellwire.registry import Registry
from bellwire.registry.db.auditing import change
from bellwire.suppressions import Suppression, SuppressionReason
from bellwire.targets import Channel, EmailTarget

#: Deliveries that are read at a time to find the one of a token that names only the event.
_PAGE = 1000


class Result(StrEnum):
    #: The recipient is suppressed.
    SUPPRESSED = "suppressed"
    #: The report is about a delivery of Bellwire's, and no reason to suppress its recipient.
    NOTED = "noted"
    #: The mail is a report, but no signed return path in it proves that it is about a delivery of Bellwire's.
    UNPROVEN = "unproven"
    #: The mail is not a report that can be read.
    UNREAD = "unread"

    @property
    def is_kept(self) -> bool:
        """Whether the mail has had no effect, so that it is kept for the operator."""
        return self in {Result.UNPROVEN, Result.UNREAD}


@dataclass(frozen=True)
class ReportedDelivery:
    """The delivery that a report is about."""

    event_key: str
    subscription_id: str
    recipient: str


@dataclass(frozen=True)
class Processed:
    """What became of one mail."""

    #: Where it was read from.
    mail: str
    result: Result
    #: What the report says, or why it has no effect.
    report: str
    address: str | None = None
    #: Why the address is suppressed.
    reason: str | None = None
    delivery: str | None = None
    #: The file that the mail was kept in.
    kept: str | None = None


async def process_report(registry: Registry, path: ReturnPath | None, place: str, raw: bytes) -> Processed:
    """Read one mail and suppress its recipient if it says so. Processing a mail twice changes nothing.

    Raises RegistryUnavailable, NotSetUp.
    """
    try:
        report = parse_report(raw)
    except NotABounce as error:
        return Processed(place, Result.UNREAD, str(error))
    if path is None:
        why = "BELLWIRE_EMAIL_RETURN_PATH is not set, so nothing proves a delivery"
        return Processed(place, Result.UNPROVEN, f"{_summary(report, report.recipients)}, but {why}")
    found = await find_delivery(registry, path, report)
    if found is None:
        why = "no valid return path proves a delivery of Bellwire's"
        return Processed(place, Result.UNPROVEN, f"{_summary(report, report.recipients)}, but {why}")
    about = _about(report, found.recipient)
    processed = Processed(
        place,
        Result.NOTED,
        _summary(report, about),
        address=found.recipient,
        delivery=delivery_id(found.event_key, found.subscription_id),
    )
    reason = _reason(report, about)
    if reason is None:
        return processed
    with change("suppression.added", str(Channel.EMAIL)):
        await registry.suppressions.add(
            Suppression(
                channel=Channel.EMAIL, address=found.recipient, reason=reason, cause=report.feedback or about[0].status
            )
        )
    return replace(processed, result=Result.SUPPRESSED, reason=str(reason))


async def find_delivery(registry: Registry, path: ReturnPath, report: Report) -> ReportedDelivery | None:
    """The delivery that a signed return path in the report proves; None without one."""
    reported = list(dict.fromkeys(address for each in report.recipients for address in each.addresses))
    named = parse_delivery_id((report.message_id or "").rpartition("@")[0])
    for token in filter(None, map(path.read, report.returned_to)):
        # The report usually has the address. If the mail was forwarded, it is one of the subscription's recipients.
        for stored in (False, True):
            async for subscription_id in _subscription_ids(registry, token, named):
                recipients = await _recipients(registry, subscription_id) if stored else reported
                if any(path.verifies(token, subscription_id, address) for address in recipients):
                    known = [*await _recipients(registry, subscription_id), *reported]
                    address = next(each for each in known if path.verifies(token, subscription_id, each))
                    return ReportedDelivery(token.event_key, subscription_id, address)
    if named:
        # A mail system has changed the case of the token, so only the Message-ID says what it must have been.
        for recipient in [*await _recipients(registry, named.subscription_id), *reported]:
            if any(path.is_sender(address, *named, recipient) for address in report.returned_to):
                return ReportedDelivery(*named, recipient)
    return None


async def _subscription_ids(
    registry: Registry, token: ReturnPathToken, named: DeliveryKey | None
) -> AsyncIterator[str]:
    """The subscriptions that a token may be of. A long id is not in it: then those that have got a mail about the event."""
    if token.subscription_id is not None:
        yield token.subscription_id
        return
    if named and named.event_key == token.event_key:
        yield named.subscription_id
    after = ""
    while page := await registry.deliveries.list(
        event_key=token.event_key, channel=Channel.EMAIL, after=after, limit=_PAGE
    ):
        for delivery in page:
            yield delivery.subscription_id
        after = page[-1].id


async def _recipients(registry: Registry, subscription_id: str) -> tuple[str, ...]:
    try:
        target = (await registry.subscriptions.get(subscription_id)).target
    except SubscriptionNotFound:
        return ()
    return target.recipients if isinstance(target, EmailTarget) else ()


def _about(report: Report, recipient: str) -> Sequence[ReportedRecipient]:
    """The parts of the report that are about the recipient: under this address, or else the only part there is.

    An address that expands to several mailboxes has a part for each.
    """
    own = [each for each in report.recipients if normalized(recipient) in map(normalized, each.addresses)]
    return own or (report.recipients if len(report.recipients) == 1 else [])


def _reason(report: Report, about: Sequence[ReportedRecipient]) -> SuppressionReason | None:
    if report.is_complaint:
        return SuppressionReason.COMPLAINED
    if report.is_opt_out:
        return SuppressionReason.UNSUBSCRIBED
    gone = report.feedback is None and about and all(each.is_gone for each in about)
    return SuppressionReason.BOUNCED if gone else None


def _summary(report: Report, about: Sequence[ReportedRecipient]) -> str:
    if report.feedback is not None:
        return f"feedback: {report.feedback}"
    said = dict.fromkeys(f"{each.action} {each.status or ''}".strip() for each in about or report.recipients)
    return ", ".join([*said][:5])
