"""SMS targets: one E.164 number, and optionally the sender and the length limit."""

import re
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import Field

from bellwire.formats.phone_numbers import is_number, number_key
from bellwire.models import skip_when_trusted
from bellwire.targets.channel import Channel, ChannelSpec, ChannelTarget

#: Maximum segments of one SMS; the header that joins them counts in one byte.
MAX_SEGMENTS = 255

#: A number, a short code, a Twilio messaging service, or a name of at most 11 characters with a letter in it.
_SMS_SENDER = re.compile(
    r"\+[1-9][0-9]{6,14}|[0-9]{3,8}|MG[0-9a-f]{32}|(?=.*[A-Za-z])[A-Za-z0-9](?:[A-Za-z0-9 &_+-]{0,9}[A-Za-z0-9])?"
)


def _e164(value: str) -> str:
    if not is_number(value):
        raise ValueError("is not an E.164 number; write + and the country code, digits only, such as +14155550123")
    return value


def sms_sender(value: str) -> str:
    """The sender of an SMS, if it is a valid one. Raises ValueError."""
    if not _SMS_SENDER.fullmatch(value):
        raise ValueError(
            "is not a sender, which is a number (+14155550100), a short code (24555), a messaging service (MG and 32 digits) "
            "or a name of up to 11 letters and digits (Acme Shop)"
        )
    return value


class SmsTarget(ChannelTarget):
    channel: Literal[Channel.SMS] = Channel.SMS
    #: An E.164 number: +14155550123.
    to: Annotated[str, skip_when_trusted(_e164)]
    #: The sender: one of the operator's numbers, short codes, names or messaging services (MG…); None: the operator's choice.
    sender: Annotated[str, skip_when_trusted(sms_sender)] | None = None
    #: Maximum segments of one SMS; a longer text is rejected before it is sent. None: the operator's limit.
    max_segments: Annotated[int, Field(ge=1, le=MAX_SEGMENTS)] | None = None

    @property
    def recipients(self) -> tuple[str, ...]:
        return (self.to,)


SMS = ChannelSpec(
    channel=Channel.SMS,
    example=SmsTarget(to="+14155550123"),
    templates=MappingProxyType({"sms.text": "sms.txt"}),
    # 6 attempts over 5 h 13 min: a text message is of little use after that.
    schedule=(30.0, 120.0, 600.0, 3600.0, 14_400.0),
    # Each SMS costs money, and providers do not deduplicate.
    inline=False,
    intent=True,
    receipts=True,
    address_key=number_key,
    fields_of=lambda address: {"to": number_key(address)},
)
