"""Operating subscriptions: show, pause, resume and delete one, and rotate its signing secret."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from bellwire.endpoint_health import EndpointHealth
from bellwire.keys.signing import KeyKind
from bellwire.registry import Registry
from bellwire.registry.db.auditing import change
from bellwire.registry.signing_secrets import MAX_OVERLAP, OVERLAP, KeyInUse
from bellwire.registry.upkeep.results import Deleted
from bellwire.subscriptions import Subscription, SubscriptionState
from starter.operations.problems import InputInvalid, OperationError
from starter.operations.subscribers.subscribing import credentials_of


@dataclass(frozen=True, kw_only=True)
class SubscriptionDetails:
    """A subscription with its health and the keys that sign its requests."""

    subscription: Subscription
    health: EndpointHealth
    keys: Sequence[KeyInUse]


@dataclass(frozen=True, kw_only=True)
class Rotated:
    """A new signing secret, and all keys in use, the new one first."""

    secret: str
    keys: Sequence[KeyInUse]

    @property
    def credentials(self) -> dict[str, str]:
        return credentials_of(self.secret)


async def show_subscription(registry: Registry, subscription_id: str) -> SubscriptionDetails:
    """Raises SubscriptionNotFound."""
    subscription, _, health = await registry.subscriptions.context(subscription_id)
    keys = await registry.signing_secrets.in_use(subscription_id)
    return SubscriptionDetails(subscription=subscription, health=health, keys=keys)


async def pause_subscription(registry: Registry, subscription_id: str, *, reason: str | None) -> SubscriptionDetails:
    """Match no more events. Events published during the pause are not delivered later. Raises SubscriptionNotFound."""
    with change("subscription.paused", subscription_id, tenant=await _tenant(registry, subscription_id)):
        await registry.subscriptions.set_state(subscription_id, SubscriptionState.PAUSED, reason=reason)
    return await show_subscription(registry, subscription_id)


async def resume_subscription(registry: Registry, subscription_id: str) -> SubscriptionDetails:
    """Match events again, with a clean record of health. Raises SubscriptionNotFound, SubscriptionInvalid."""
    with change("subscription.resumed", subscription_id, tenant=await _tenant(registry, subscription_id)):
        await registry.subscriptions.set_state(subscription_id, SubscriptionState.ACTIVE)
    return await show_subscription(registry, subscription_id)


async def delete_subscription(registry: Registry, subscription_id: str, *, cancel: bool) -> Deleted:
    """Delete a subscription with its deliveries and attempts; `cancel` cancels unsettled deliveries first.

    Raises SubscriptionNotFound, and OperationError if a delivery is unsettled and `cancel` is false.
    """
    with change("subscription.deleted", subscription_id, tenant=await _tenant(registry, subscription_id)):
        deleted = await registry.retention.delete(subscription_id, cancel=cancel)
    if not deleted.gone:
        raise OperationError(
            f"{subscription_id}: {deleted.unsettled:,} of its deliveries are unsettled",
            remedy="wait until they settle (`subscriptions pause` stops new ones), or cancel them with --force",
        )
    return deleted


async def rotate_secret(
    registry: Registry,
    subscription_id: str,
    *,
    overlap: timedelta | None = None,
    secret: str | None = None,
    kind: KeyKind | None = None,
    revoke: bool = False,
) -> Rotated:
    """Sign with another secret. The old ones sign as well during the overlap; with `revoke` they stop at once.

    `kind` is that of a generated secret; None: as before. Raises InputInvalid, SubscriptionInvalid, SubscriptionNotFound.
    """
    if revoke and overlap is not None:
        raise InputInvalid("cannot be combined with --overlap", field="revoke", remedy="omit one of the two")
    lasting = timedelta() if revoke else OVERLAP if overlap is None else overlap
    if not timedelta() <= lasting <= MAX_OVERLAP:
        raise InputInvalid(
            f"must be 0 to {MAX_OVERLAP.days} days; with 0 the old secrets stop at once", field="overlap"
        )
    with change("subscription.secret_rotated", subscription_id, tenant=await _tenant(registry, subscription_id)):
        new = await registry.signing_secrets.rotate(subscription_id, overlap=lasting, secret=secret, kind=kind)
    keys = await registry.signing_secrets.in_use(subscription_id)
    return Rotated(secret=new.get_secret_value(), keys=keys)


async def _tenant(registry: Registry, subscription_id: str) -> str:
    """The tenant of a subscription. Raises SubscriptionNotFound."""
    return (await registry.subscriptions.get(subscription_id)).tenant
