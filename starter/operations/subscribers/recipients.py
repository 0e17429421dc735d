"""Recipient: a person on a channel, by the address that an operator or a tenant wrote."""

from typing import NamedTuple, Self

from bellwire.formats.mailboxes import folded
from bellwire.formats.phone_numbers import number_key
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
        if channel is None:
            channel = _channel_of(address)
        elif channel not in CHANNELS:
            raise InputInvalid(
                f"{channel} has no addresses of people",
                field="channel",
                remedy=f"pause or delete the subscription, or write one of {', '.join(CHANNELS)}",
            )
        try:
            return cls(channel, recipient_at(channel, address))
        except ValueError as error:
            raise InputInvalid(str(error), field="address") from None


def _channel_of(address: str) -> Channel:
    if "@" in folded(address):
        return Channel.EMAIL
    if any(letter.isalpha() for letter in number_key(address)):
        others = ", ".join(channel for channel in CHANNELS if channel not in {Channel.EMAIL, Channel.SMS})
        raise InputInvalid(
            "is missing, and the address is neither of email nor of sms",
            field="channel",
            remedy=f"name one of {others}",
        )
    return Channel.SMS
