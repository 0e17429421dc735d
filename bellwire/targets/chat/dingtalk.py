"""DingTalk targets: the robot of a group, or the users or departments that get work notices of an application."""

from types import MappingProxyType
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from bellwire.formats.matching import Matching
from bellwire.models import skip_when_trusted
from bellwire.targets.accounts import DEFAULT_ACCOUNT, AccountName, account_key
from bellwire.targets.channel import Channel, ChannelSpec, ChannelTarget
from bellwire.targets.chat.hook_urls import HookSecret, hook_of, not_everybody
from bellwire.targets.stored_secret import StoredSecret

_Id = Annotated[
    str,
    Matching(r"^[^\s,\x00-\x1f]{1,64}$", "must be one id of up to 64 characters without spaces, such as manager42"),
    skip_when_trusted(not_everybody),
]


class DingtalkTarget(ChannelTarget):
    """Give `webhook` and, if the robot checks signatures, its `secret`; or one of `user` and `department`, and the `account`."""

    channel: Literal[Channel.DINGTALK] = Channel.DINGTALK
    #: The URL of a group's robot. Its token is a credential, so JSON shows stars instead.
    webhook: Annotated[StoredSecret, Field(max_length=2048), hook_of(Channel.DINGTALK)] | None = None
    #: The secret with which calls of the robot are signed: SEC….
    secret: HookSecret | None = None
    #: The id of a user in the company.
    user: _Id | None = None
    #: The id of a department.
    department: _Id | None = None
    #: The operator's account whose application sends.
    account: AccountName = DEFAULT_ACCOUNT

    @model_validator(mode="after")
    def _one_address(self) -> Self:
        if sum(each is not None for each in (self.webhook, self.user, self.department)) != 1:
            raise ValueError("webhook, user, department: give one of them")
        if self.secret is not None and self.webhook is None:
            raise ValueError("secret: belongs to a webhook; leave it out")
        return self

    @property
    def recipients(self) -> tuple[str, ...]:
        return () if self.user is None else (f"{self.account}/{self.user}",)

    @property
    def address(self) -> str:
        if self.webhook is not None:
            return f"a robot of {urlsplit(self.webhook.get_secret_value()).hostname}"
        return f"{self.account}/{self.user}" if self.user else f"{self.account}/department/{self.department}"


DINGTALK = ChannelSpec(
    channel=Channel.DINGTALK,
    example=DingtalkTarget(user="manager42"),
    templates=MappingProxyType({"dingtalk.title": "chat.title.txt", "dingtalk.text": "chat.txt"}),
    # 7 attempts over 4 h 22 min. A robot that gets more than 20 messages a minute refuses all for 10 minutes, and the result of a
    # work notice is asked for after half a minute.
    schedule=(30.0, 60.0, 600.0, 600.0, 3600.0, 10_800.0),
    inline=True,
    recalls=True,
    address_key=account_key,
)
