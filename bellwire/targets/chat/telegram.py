"""Telegram targets: a chat that a bot of the operator writes to."""

from types import MappingProxyType
from typing import Annotated, Literal

from bellwire.formats.matching import Matching
from bellwire.targets.accounts import DEFAULT_ACCOUNT, AccountName, folded_account_key
from bellwire.targets.channel import Channel, ChannelSpec, ChannelTarget

_ID = "must be the id of a chat, such as -1001234567890, or the @name of a public channel or group"


class TelegramTarget(ChannelTarget):
    channel: Literal[Channel.TELEGRAM] = Channel.TELEGRAM
    #: The id of a chat (-1001234567890), or the @name of a public channel or group.
    chat_id: Annotated[str, Matching(r"^(-?[0-9]{1,20}|@[A-Za-z0-9_]{4,32})$", _ID)]
    #: The operator's account whose bot writes.
    account: AccountName = DEFAULT_ACCOUNT

    @property
    def recipients(self) -> tuple[str, ...]:
        return (f"{self.account}/{self.chat_id}",)


TELEGRAM = ChannelSpec(
    channel=Channel.TELEGRAM,
    example=TelegramTarget(chat_id="-1001234567890"),
    templates=MappingProxyType({"telegram.title": "chat.title.txt", "telegram.text": "chat.txt"}),
    # 6 attempts over 4 h 12 min: later, the chat has moved on.
    schedule=(10.0, 60.0, 600.0, 3600.0, 10_800.0),
    inline=True,
    edits=True,
    recalls=True,
    # The names of public channels and groups have no case.
    address_key=folded_account_key,
)
