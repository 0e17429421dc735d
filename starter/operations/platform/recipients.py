"""Recipient: a person on a channel, by the address that an operator or a tenant wrote."""

from typing import NamedTuple, Self

from bellwire.formats.mailboxes import folded
from bellwire.targets import SPECS, Channel
from bellwire.targets.recipients import recipient_at
from starter.operations.problems import InputInvalid

#: The channels whose targets are addresses of people.
CHANNELS = tuple(channel for channel in Channel if SPECS[channel].example.recipients)


class Recipient(NamedTuple):
    """Who is suppressed or erased."""

    channel: Channel
    #: As `recipients` of a target has it.
    address: str

    @classmethod
    def parse(cls, address: str, channel: Channel | None = None) -> Self:
        """Without a channel: email for an address with an @, otherwise SMS. Raises InputInvalid, without the address."""
        to = channel or (Channel.EMAIL if "@" in folded(address) else Channel.SMS)
        if to not in CHANNELS:
            raise InputInvalid(
                f"a {to} has no address of a person",
                field="channel",
                remedy=f"pause or delete the subscription, or write one of {', '.join(CHANNELS)}",
            )
        try:
            return cls(to, recipient_at(to, address))
        except ValueError as error:
            others = ", ".join(each for each in CHANNELS if each not in {Channel.EMAIL, Channel.SMS})
            remedy = "" if channel else f"or name the channel of another address: {others}"
            raise InputInvalid(str(error), field="address", remedy=remedy) from None
