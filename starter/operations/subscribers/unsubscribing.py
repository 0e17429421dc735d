"""Unsubscribing: the recipient of a mail opts out of one subscription by the link in it."""

from bellwire.email.unsubscribe_links import UnsubscribeRequest
from bellwire.errors import SubscriptionNotFound
from bellwire.registry import Registry
from bellwire.suppressions import Suppression, SuppressionReason
from bellwire.targets import Channel, EmailTarget


async def unsubscribe(registry: Registry, request: UnsubscribeRequest) -> bool:
    """Suppress the recipient for the subscription; False if it is not among the subscription's recipients any more.

    Raises RegistryUnavailable.
    """
    try:
        target = (await registry.subscriptions.get(request.subscription_id)).target
    except SubscriptionNotFound:
        return False
    address = request.match(target.recipients) if isinstance(target, EmailTarget) else None
    if address is None:
        return False
    await registry.suppressions.add(
        Suppression(
            channel=Channel.EMAIL,
            address=address,
            reason=SuppressionReason.UNSUBSCRIBED,
            subscription_id=request.subscription_id,
        )
    )
    return True
