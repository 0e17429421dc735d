"""Suppressions by operators and tenants: add an address to the list of those that get nothing more, or lift one."""

from bellwire.registry import Registry
from bellwire.registry.db.auditing import change
from bellwire.suppressions import EVERYWHERE, Reported, Suppression, SuppressionReason
from bellwire.targets import Channel
from starter.operations.platform.recipients import Recipient
from starter.operations.problems import InputInvalid, Kind, OperationError


def listed_address(address: str | None, channel: Channel | None) -> str | None:
    """The address to list by: of a channel, if one is named, otherwise of every channel. Raises InputInvalid."""
    return address if address is None or channel is None else Recipient.parse(address, channel).address


class NotSuppressed(OperationError):
    """The address is not suppressed; nothing was changed."""

    kind = Kind.NOT_FOUND


async def suppress(
    registry: Registry,
    address: str,
    channel: Channel | None = None,
    *,
    subscription_id: str = EVERYWHERE,
    tenant: str | None = None,
) -> Suppression:
    """Send nothing more to the address, for one subscription or for any. An existing suppression keeps its reason.

    `tenant` is that of the subscription, for the audit log. Raises InputInvalid.
    """
    to = Recipient.parse(address, channel)
    wanted = Suppression(
        channel=to.channel, address=to.address, reason=SuppressionReason.OPERATOR, subscription_id=subscription_id
    )
    with change("suppression.added", subscription_id or str(wanted.channel), tenant=tenant):
        await registry.suppressions.add(wanted)
    (found,) = await registry.suppressions.page(
        subscription_id=subscription_id, channel=wanted.channel, address=wanted.address
    )
    return found.suppression


async def lift(
    registry: Registry,
    address: str,
    channel: Channel | None = None,
    *,
    subscription_id: str | None = None,
    tenant: str | None = None,
) -> Recipient:
    """Send to the address again, for one subscription or for all; what was lifted. Raises InputInvalid, NotSuppressed."""
    wanted = Recipient.parse(address, channel)
    with change("suppression.lifted", subscription_id or str(wanted.channel), tenant=tenant):
        lifted = await registry.suppressions.lift(wanted.channel, wanted.address, subscription_id=subscription_id)
    if not lifted:
        raise NotSuppressed(
            f"{wanted.address} is not suppressed on {wanted.channel}; nothing was changed", field="address"
        )
    return wanted


async def lift_reported(registry: Registry, reported: Reported, *, dry_run: bool) -> int:
    """Lift all suppressions with a cause or a reason; return how many. With `dry_run`, only count them. Raises InputInvalid."""
    if reported.cause is None and reported.reason is None:
        raise InputInvalid("is missing", field="address", remedy="give an address, or --cause or --reason for many")
    if dry_run:
        return await registry.suppressions.lift_reported(reported, dry_run=True)
    with change("suppressions.lifted", reported.cause or str(reported.reason)):
        return await registry.suppressions.lift_reported(reported, dry_run=False)
