"""Bounces: reads reports of mail systems, and suppresses addresses that are dead or complained.

A report counts if it holds a return path that Bellwire signed, or else if it names a delivery that exists and one of its
recipients. So an invented report suppresses nothing.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from bellwire.deliveries import delivery_id, parse_delivery_id
from bellwire.email.bounce_reports import NotABounce, Report, ReportedRecipient, parse_report
from bellwire.email.return_path import ReturnPath, normalized
from bellwire.errors import SubscriptionNotFound
from bellwire.registry import Registry
from bellwire.suppressions import Suppression, SuppressionReason
from bellwire.targets import Channel, EmailTarget


class Result(StrEnum):
    #: The recipient is suppressed.
    SUPPRESSED = "suppressed"
    #: The report is about a delivery of Bellwire's, and no reason to suppress its recipient.
    NOTED = "noted"
    #: The mail is not a report, or not about a delivery of Bellwire's.
    IGNORED = "ignored"


@dataclass(frozen=True)
class ReportedDelivery:
    """The delivery that a report is about."""

    event_key: str
    subscription_id: str
    recipient: str
    #: Whether a signed return path proves it.
    signed: bool


@dataclass(frozen=True)
class Processed:
    """What became of one mail."""

    #: Where it was read from.
    mail: str
    result: Result
    #: What the report says, or why it is ignored.
    report: str
    address: str | None = None
    #: Why the address is suppressed.
    reason: str | None = None
    delivery: str | None = None
    signed: bool = False


async def process_report(registry: Registry, path: ReturnPath | None, place: str, raw: bytes) -> Processed:
    """Read one mail and suppress its recipient if it says so. Processing a mail twice changes nothing.

    Raises RegistryUnavailable, NotSetUp.
    """
    try:
        report = parse_report(raw)
    except NotABounce as error:
        return Processed(place, Result.IGNORED, str(error))
    found = await find_delivery(registry, path, report)
    about = _about(report, found.recipient) if found else None
    if found is None or about is None:
        return Processed(place, Result.IGNORED, f"{_summary(report, about)}, but it proves no delivery of Bellwire's")
    processed = Processed(
        place,
        Result.NOTED,
        _summary(report, about),
        address=found.recipient,
        delivery=delivery_id(found.event_key, found.subscription_id),
        signed=found.signed,
    )
    reason = _reason(report, about)
    if reason is None:
        return processed
    await registry.suppressions.add(Suppression(channel=Channel.EMAIL, address=found.recipient, reason=reason))
    return replace(processed, result=Result.SUPPRESSED, reason=str(reason))


async def find_delivery(registry: Registry, path: ReturnPath | None, report: Report) -> ReportedDelivery | None:
    """The delivery that a report is about: by a signed return path, else by its Message-ID; None if neither proves one."""
    reported = list(dict.fromkeys(address for each in report.recipients for address in each.addresses))
    named = parse_delivery_id((report.message_id or "").rpartition("@")[0])
    tokens = [token for address in report.returned_to if path and (token := path.read(address))]
    for token in tokens:
        subscription_id = token.subscription_id
        if subscription_id is None and named and named.event_key == token.event_key:
            subscription_id = named.subscription_id
        if path is None or subscription_id is None:
            continue
        for address in [*await _recipients(registry, subscription_id), *reported]:
            if path.verifies(token, subscription_id, address):
                return ReportedDelivery(token.event_key, subscription_id, address, signed=True)
    if named and await registry.deliveries.list(
        event_key=named.event_key, subscription_id=named.subscription_id, limit=1
    ):
        normalized_reported = {normalized(address) for address in reported}
        for address in await _recipients(registry, named.subscription_id):
            if normalized(address) in normalized_reported:
                return ReportedDelivery(named.event_key, named.subscription_id, address, signed=False)
    return None


async def _recipients(registry: Registry, subscription_id: str) -> tuple[str, ...]:
    try:
        target = (await registry.subscriptions.get(subscription_id)).target
    except SubscriptionNotFound:
        return ()
    return target.recipients if isinstance(target, EmailTarget) else ()


def _about(report: Report, recipient: str) -> ReportedRecipient | None:
    """The part of the report that is about the recipient: under this address, or the only part there is."""
    for each in report.recipients:
        if normalized(recipient) in map(normalized, each.addresses):
            return each
    return report.recipients[0] if len(report.recipients) == 1 else None


def _reason(report: Report, about: ReportedRecipient) -> SuppressionReason | None:
    if report.is_complaint:
        return SuppressionReason.COMPLAINED
    if report.is_opt_out:
        return SuppressionReason.UNSUBSCRIBED
    return SuppressionReason.BOUNCED if report.feedback is None and about.is_gone else None


def _summary(report: Report, about: ReportedRecipient | None) -> str:
    if report.feedback is not None:
        return f"feedback: {report.feedback}"
    each = about or report.recipients[0]
    return f"{each.action} {each.status or ''}".strip()
