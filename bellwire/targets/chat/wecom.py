"""WeCom targets: the bot of a group, or the users, departments or tags that an application of the operator writes to."""

from types import MappingProxyType
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from bellwire.formats.matching import Matching
from bellwire.models import skip_when_trusted
from bellwire.targets.accounts import DEFAULT_ACCOUNT, AccountName, folded_account_key
from bellwire.targets.channel import Channel, ChannelSpec, ChannelTarget, Pace
from bellwire.targets.chat.hook_urls import hook_of, not_everybody
from bellwire.targets.stored_secret import StoredSecret

#: A member gets at most 30 messages a minute and 1,000 an hour of an application. WeCom drops further ones, and says that it
#: accepted them. With these numbers the limits hold even if messages go out up to 30 seconds late.
MEMBER_INTERVAL, MEMBER_BURST = 3.7, 5

_Id = Annotated[
    str,
    Matching(r"^[^\s|\x00-\x1f]{1,64}$", "must be one id of up to 64 characters without spaces, such as zhangsan"),
    skip_when_trusted(not_everybody),
]


class WecomTarget(ChannelTarget):
    """Give `webhook`, or one of `user`, `party` and `tag`, and the `account` of the application that writes to it."""

    channel: Literal[Channel.WECOM] = Channel.WECOM
    #: The URL of a group's bot. Its key is a credential, so JSON shows stars instead.
    webhook: Annotated[StoredSecret, Field(max_length=2048), hook_of(Channel.WECOM)] | None = None
    #: The id of a member.
    user: _Id | None = None
    #: The id of a department.
    party: _Id | None = None
    #: The id of a tag.
    tag: _Id | None = None
    #: The operator's account whose application writes.
    account: AccountName = DEFAULT_ACCOUNT

    @model_validator(mode="after")
    def _one_address(self) -> Self:
        if sum(each is not None for each in (self.webhook, self.user, self.party, self.tag)) != 1:
            raise ValueError("webhook, user, party, tag: give one of them")
        return self

    @property
    def recipients(self) -> tuple[str, ...]:
        return () if self.user is None else (f"{self.account}/{self.user}",)

    @property
    def pace(self) -> Pace | None:
        if self.user is None:
            return None
        return Pace(address=f"{self.account}/{self.user}", interval=MEMBER_INTERVAL, burst=MEMBER_BURST)

    @property
    def address(self) -> str:
        if self.webhook is not None:
            return f"a bot of {urlsplit(self.webhook.get_secret_value()).hostname}"
        kind, of_kind = next((kind, value) for kind in ("user", "party", "tag") if (value := getattr(self, kind)))
        return f"{self.account}/{of_kind}" if kind == "user" else f"{self.account}/{kind}/{of_kind}"


WECOM = ChannelSpec(
    channel=Channel.WECOM,
    example=WecomTarget(user="zhangsan"),
    templates=MappingProxyType({"wecom.title": "chat.title.txt", "wecom.text": "chat.txt"}),
    # 6 attempts over 4 h 12 min: later, the conversation has moved on.
    schedule=(10.0, 60.0, 600.0, 3600.0, 10_800.0),
    inline=True,
    recalls=True,
    # WeCom ignores the case of user ids.
    address_key=folded_account_key,
)
