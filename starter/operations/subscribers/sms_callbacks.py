"""What SMS providers call back with: delivery receipts, and STOP or START from recipients."""

from collections.abc import Sequence

from bellwire.formats.phone_numbers import number_key
from bellwire.registry import Registry
from bellwire.sms.receipts import SmsReceipt
from bellwire.sms.twilio_codes import BY_CODE
from bellwire.suppressions import EVERYWHERE, Suppression, SuppressionReason, by_sender
from bellwire.targets import Channel


async def record_receipt(registry: Registry, receipt: SmsReceipt, *, number: str, sender: str) -> bool:
    """Record a delivery receipt, and suppress the number if its error code says so; False if it tells nothing new.

    Raises DeliveryNotFound, RegistryUnavailable.
    """
    return await registry.sms_receipts.record(receipt, suppression=_suppression(receipt, number, sender))


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
