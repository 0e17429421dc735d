"""What SMS providers call back with: delivery receipts, and STOP or START from recipients."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from bellwire.errors import DeliveryNotFound, SubscriptionNotFound
from bellwire.formats.phone_numbers import number_key
from bellwire.registry import Registry
from bellwire.sms.mainland import NUMBERS_GONE
from bellwire.sms.receipts import SmsReceipt, SmsReceiptStatus
from bellwire.sms.twilio_codes import BY_CODE
from bellwire.suppressions import EVERYWHERE, Suppression, SuppressionReason, by_sender
from bellwire.targets import Channel, SmsTarget


@dataclass(frozen=True, kw_only=True)
class SmsReport:
    """What a provider reports of one SMS."""

    status: SmsReceiptStatus
    #: The carrier's code of a failure.
    code: str | None = None
    segments: int | None = None


async def record_receipt(registry: Registry, receipt: SmsReceipt, *, number: str, sender: str) -> bool:
    """Record a delivery receipt, and suppress the number if its error code says so; False if it tells nothing new.

    Raises DeliveryNotFound, RegistryUnavailable.
    """
    return await registry.sms_receipts.record(receipt, suppression=_suppression(receipt, number, sender))


async def record_report(
    registry: Registry, ids: Sequence[str], number: str, report: SmsReport, *, provider: str
) -> bool | None:
    """Record a report that nobody signed, if one of `ids` is recorded with a delivery to `number`; None if none is.

    Otherwise as `record_receipt`. Raises RegistryUnavailable.
    """
    found = await registry.attempts.by_provider_ids(ids)
    for provider_id, key in ((each, key) for each in ids for key in found.get(each, ())):
        try:
            target = (await registry.subscriptions.get(key.subscription_id)).target
        except SubscriptionNotFound:
            continue
        if not isinstance(target, SmsTarget) or number_key(target.to) != number:
            continue
        receipt = SmsReceipt(
            event_key=key.event_key,
            subscription_id=key.subscription_id,
            provider_id=provider_id,
            status=report.status,
            code=report.code,
            segments=report.segments,
            received_at=datetime.now(UTC),
        )
        gone = report.code in NUMBERS_GONE
        suppression = Suppression(
            channel=Channel.SMS, address=number, reason=SuppressionReason.BOUNCED, cause=f"{provider} {report.code}"
        )
        try:
            return await registry.sms_receipts.record(receipt, suppression=suppression if gone else None)
        except DeliveryNotFound:
            continue
    return None


async def opt_out(registry: Registry, number: str, senders: Sequence[str]) -> None:
    """STOP: suppress the number for the senders it was written to."""
    for sender in senders:
        await registry.suppressions.add(_unsubscribed(number, sender))


async def opt_in(registry: Registry, number: str, senders: Sequence[str]) -> None:
    """START: lift what STOP has suppressed."""
    for sender in senders:
        await registry.suppressions.lift(
            Channel.SMS, number, subscription_id=by_sender(sender), reason=SuppressionReason.UNSUBSCRIBED
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


def _unsubscribed(number: str, sender: str) -> Suppression:
    scope = by_sender(sender) if sender else EVERYWHERE
    return Suppression(
        channel=Channel.SMS, address=number_key(number), reason=SuppressionReason.UNSUBSCRIBED, subscription_id=scope
    )
