"""What SMS providers call back with: delivery receipts, and STOP or START from recipients."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from bellwire.formats.phone_numbers import number_key
from bellwire.registry import Registry
from bellwire.sms.keywords import Keyword, keyword_of
from bellwire.sms.mainland import NUMBERS_GONE
from bellwire.sms.receipts import SmsReceipt, SmsReceiptStatus
from bellwire.sms.twilio_codes import BY_CODE
from bellwire.suppressions import EVERYWHERE, Suppression, SuppressionReason, by_sender
from bellwire.targets import Channel, SmsTarget


@dataclass(frozen=True, kw_only=True)
class SmsReport:
    """What a provider reports of one SMS. Nobody signed it."""

    #: What the SMS may be recorded by, the provider's own id first.
    ids: tuple[str, ...]
    #: As `number_key` has it.
    number: str
    status: SmsReceiptStatus
    #: The carrier's code of a failure.
    code: str | None = None
    segments: int | None = None


@dataclass(frozen=True, kw_only=True)
class SmsReply:
    """What a recipient in mainland China answered to an SMS."""

    #: In E.164.
    number: str
    text: str
    #: The sign name of the SMS; empty if the provider does not say it.
    sender: str
    #: By the provider's clock.
    sent_at: datetime


async def record_receipt(registry: Registry, receipt: SmsReceipt, *, number: str, sender: str) -> bool:
    """Record a delivery receipt, and suppress the number if its error code says so; False if it tells nothing new.

    Raises DeliveryNotFound, RegistryUnavailable.
    """
    return await registry.sms_receipts.record(receipt, suppression=_suppression(receipt, number, sender))


async def record_reports(registry: Registry, reports: Sequence[SmsReport], *, provider: str) -> Sequence[bool | None]:
    """Record each report if one of its ids is recorded with a delivery to its number; None for one of which none is.

    Otherwise as `record_receipt`. Raises RegistryUnavailable, and then nothing is recorded.
    """
    keys = await registry.attempts.by_provider_ids([each for report in reports for each in report.ids])
    known = await registry.subscriptions.existing([key.subscription_id for each in keys.values() for key in each])
    now = datetime.now(UTC)
    matched = list[tuple[int, SmsReceipt, Suppression | None]]()
    for place, report in enumerate(reports):
        for provider_id, key in ((each, key) for each in report.ids for key in keys.get(each, ())):
            target = known[key.subscription_id].target if key.subscription_id in known else None
            if not isinstance(target, SmsTarget) or number_key(target.to) != report.number:
                continue
            receipt = SmsReceipt(
                event_key=key.event_key,
                subscription_id=key.subscription_id,
                provider_id=provider_id,
                status=report.status,
                code=report.code,
                segments=report.segments,
                received_at=now,
            )
            matched.append((place, receipt, _gone(report, provider) if report.code in NUMBERS_GONE else None))
            break
    results: list[bool | None] = [None] * len(reports)
    if not matched:
        return results
    recorded = await registry.sms_receipts.record_all([(receipt, gone) for _, receipt, gone in matched])
    for (place, _, _), new in zip(matched, recorded, strict=True):
        results[place] = new
    return results


async def obey(registry: Registry, reply: SmsReply) -> Keyword | None:
    """Suppress the number for the sender it answered, or lift that, if the reply is such a word; return which."""
    match keyword := keyword_of(reply.text, mainland=True):
        case Keyword.STOP:
            await opt_out(registry, reply.number, [reply.sender], sent_at=reply.sent_at)
        case Keyword.START:
            await opt_in(registry, reply.number, [reply.sender], sent_at=reply.sent_at)
    return keyword


async def opt_out(registry: Registry, number: str, senders: Sequence[str], *, sent_at: datetime | None = None) -> None:
    """STOP, sent at this time: suppress the number for the senders it was written to."""
    for sender in senders:
        await registry.suppressions.add(_unsubscribed(number, sender, sent_at))


async def opt_in(registry: Registry, number: str, senders: Sequence[str], *, sent_at: datetime | None = None) -> None:
    """START, sent at this time: lift what STOP has suppressed before. A provider may repeat an earlier START after it."""
    for sender in senders:
        await registry.suppressions.lift(
            Channel.SMS,
            number,
            subscription_id=_scope(sender),
            reason=SuppressionReason.UNSUBSCRIBED,
            until=sent_at,
        )


def _suppression(receipt: SmsReceipt, number: str, sender: str) -> Suppression | None:
    meaning = None if receipt.code is None else BY_CODE.get(int(receipt.code))
    if meaning is None or meaning.suppress is None or not number:
        return None
    if meaning.suppress is SuppressionReason.UNSUBSCRIBED:
        return _unsubscribed(number, sender)
    return Suppression(
        channel=Channel.SMS, address=number_key(number), reason=meaning.suppress, cause=f"Twilio {receipt.code}"
    )


def _gone(report: SmsReport, provider: str) -> Suppression:
    return Suppression(
        channel=Channel.SMS, address=report.number, reason=SuppressionReason.BOUNCED, cause=f"{provider} {report.code}"
    )


def _unsubscribed(number: str, sender: str, sent_at: datetime | None = None) -> Suppression:
    return Suppression(
        channel=Channel.SMS,
        address=number_key(number),
        reason=SuppressionReason.UNSUBSCRIBED,
        subscription_id=_scope(sender),
        created_at=sent_at,
    )


def _scope(sender: str) -> str:
    return by_sender(sender) if sender else EVERYWHERE
