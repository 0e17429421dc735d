"""Slack targets: an incoming webhook, or a conversation that a bot of the operator posts to."""

from types import MappingProxyType
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from bellwire.formats.matching import Matching
from bellwire.targets.accounts import DEFAULT_ACCOUNT, AccountName, account_key
from bellwire.targets.channel import Channel, ChannelSpec, ChannelTarget
from bellwire.targets.chat.hook_urls import hook_of
from bellwire.targets.stored_secret import StoredSecret

_ID = "must be the id of a channel, a group or a user, such as C0123456789, and not its name"


class SlackTarget(ChannelTarget):
    """Give `webhook`, or `conversation` and the `account` of the bot that posts to it."""

    channel: Literal[Channel.SLACK] = Channel.SLACK
    #: The URL of an incoming webhook. Its path is a credential, so JSON shows stars instead.
    webhook: Annotated[StoredSecret, Field(max_length=2048), hook_of(Channel.SLACK)] | None = None
    #: The id of a channel, a group or a user: C0123456789.
    conversation: Annotated[str, Matching(r"^[A-Z0-9]{2,32}$", _ID)] | None = None
    #: The operator's account whose bot posts.
    account: AccountName = DEFAULT_ACCOUNT

    @model_validator(mode="after")
    def _one_address(self) -> Self:
        if (self.webhook is None) == (self.conversation is None):
            raise ValueError("webhook, conversation: give one of them")
        return self

    @property
    def recipients(self) -> tuple[str, ...]:
        return () if self.conversation is None else (f"{self.account}/{self.conversation}",)

    @property
    def address(self) -> str:
        if self.webhook is not None:
            return f"a webhook of {urlsplit(self.webhook.get_secret_value()).hostname}"
        return f"{self.account}/{self.conversation}"


SLACK = ChannelSpec(
    channel=Channel.SLACK,
    example=SlackTarget(conversation="C0123456789"),
    templates=MappingProxyType({"slack.title": "chat.title.txt", "slack.text": "chat.txt"}),
    # 6 attempts over 4 h 12 min: later, the conversation has moved on.
    schedule=(10.0, 60.0, 600.0, 3600.0, 10_800.0),
    inline=True,
    edits=True,
    recalls=True,
    address_key=account_key,
)
