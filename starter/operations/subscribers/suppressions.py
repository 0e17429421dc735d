"""Suppressions by operators: add an address to the list of those that get nothing more, or lift one."""

from pydantic import ValidationError

from bellwire.errors import field_errors
from bellwire.formats.mailboxes import folded
from bellwire.formats.phone_numbers import number_key
from bellwire.registry import Registry
from bellwire.suppressions import EVERYWHERE, Reported, Suppression, SuppressionReason
from bellwire.targets import SPECS, Channel
from starter.operations.problems import InputInvalid, OperationError


def channel_of(address: str) -> Channel:
    """The channel that an address belongs to: email if it contains an @, otherwise SMS."""
    return Channel.EMAIL if "@" in folded(address) else Channel.SMS


async def suppress(registry: Registry, address: str, channel: Channel | None = None) -> Suppression:
    """Send nothing more to the address, for any subscription. An existing suppression keeps its reason. Raises InputInvalid."""
    wanted = _suppression(address, channel)
    await registry.suppressions.add(wanted)
    found = await registry.suppressions.list(channel=wanted.channel, address=wanted.address, limit=1000)
    (stored,) = (each for each in found if each.subscription_id == EVERYWHERE)
    return stored


async def lift(registry: Registry, address: str, channel: Channel | None = None) -> Suppression:
    """Send to the address again, for all subscriptions; what was lifted. Raises InputInvalid, OperationError."""
    wanted = _suppression(address, channel)
    if not await registry.suppressions.lift(wanted.channel, wanted.address):
        raise OperationError(
            f"{wanted.address} is not suppressed on {wanted.channel}; nothing was changed", field="address"
        )
    return wanted


async def lift_reported(registry: Registry, reported: Reported, *, dry_run: bool) -> int:
    """Lift all suppressions with a cause or a reason; return how many. With `dry_run`, only count them. Raises InputInvalid."""
    if reported.cause is None and reported.reason is None:
        raise InputInvalid("is missing", field="address", remedy="give an address, or --cause or --reason for many")
    return await registry.suppressions.lift_reported(reported, dry_run=dry_run)


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
