"""Suppressions by operators and tenants: add an address to the list of those that get nothing more, or lift one."""

from pydantic import ValidationError

from bellwire.errors import field_errors
from bellwire.formats.mailboxes import folded
from bellwire.formats.phone_numbers import number_key
from bellwire.registry import Registry
from bellwire.registry.db.auditing import change
from bellwire.suppressions import EVERYWHERE, Reported, Suppression, SuppressionReason
from bellwire.targets import SPECS, Channel
from starter.operations.problems import InputInvalid, Kind, OperationError


def channel_of(address: str) -> Channel:
    """The channel that an address belongs to: email if it contains an @, otherwise SMS."""
    return Channel.EMAIL if "@" in folded(address) else Channel.SMS


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
    wanted = _suppression(address, channel).model_copy(update={"subscription_id": subscription_id})
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
) -> Suppression:
    """Send to the address again, for one subscription or for all; what was lifted. Raises InputInvalid, NotSuppressed."""
    wanted = _suppression(address, channel)
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


def _suppression(address: str, channel: Channel | None) -> Suppression:
    """Raises InputInvalid if no target of the channel can have the address."""
    channel = channel or channel_of(address)
    spec = SPECS[channel]
    if not spec.example.recipients:
        raise InputInvalid(f"a {channel} has no address to suppress", field="channel", remedy="pause its subscription")
    try:
        to = number_key(address) if channel is Channel.SMS else address.strip()
        target = spec.target.model_validate({"channel": channel, "to": to})
    except ValidationError as error:
        raise InputInvalid(field_errors(error)[0][1], field="address") from error
    return Suppression(channel=channel, address=target.recipients[0], reason=SuppressionReason.OPERATOR)
