"""Feishu and Lark targets: the custom bot of a group, or a user or chat that an application of the operator writes to."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, model_validator

from bellwire.formats.matching import Matching
from bellwire.models import TRUSTED
from bellwire.targets.accounts import DEFAULT_ACCOUNT, AccountName, account_key, folded_account_key
from bellwire.targets.channel import Channel, ChannelSpec, ChannelTarget
from bellwire.targets.chat.hook_urls import HookSecret, hook_of
from bellwire.targets.stored_secret import StoredSecret

_ID = "must be one id of up to 254 characters without spaces, such as ou_7d8a6e6df7621556ce0d21922b676706"
ReceiveIdType = Literal["open_id", "user_id", "union_id", "email", "chat_id"]
#: What ids of these kinds begin with. Those of other kinds have no form of their own.
_PREFIXES: Mapping[str, ReceiveIdType] = {"ou_": "open_id", "on_": "union_id", "oc_": "chat_id"}


def _kind_of(receive_id: str) -> ReceiveIdType | None:
    """What kind of id it is, as far as its form tells."""
    is_address = receive_id.strip("@").count("@") == 1
    return next(
        (kind for prefix, kind in _PREFIXES.items() if receive_id.startswith(prefix)), "email" if is_address else None
    )


def _fields_of(address: str) -> dict[str, Any]:
    account, _, receive_id = account_key(address).partition("/")
    return {"account": account, "receive_id": receive_id, "receive_id_type": _kind_of(receive_id) or "open_id"}


class FeishuTarget(ChannelTarget):
    """Give `webhook` and, if the bot checks signatures, its `secret`; or `receive_id`, and the `account`."""

    channel: Literal[Channel.FEISHU] = Channel.FEISHU
    #: The URL of a group's custom bot, of Feishu or Lark. Its path is a credential, so JSON shows stars instead.
    webhook: Annotated[StoredSecret, Field(max_length=2048), hook_of(Channel.FEISHU)] | None = None
    #: The secret with which calls of the bot are signed.
    secret: HookSecret | None = None
    #: The id of a user or chat.
    receive_id: Annotated[str, Matching(r"^[^\s\x00-\x1f]{1,254}$", _ID)] | None = None
    #: What kind of id it is.
    receive_id_type: ReceiveIdType = "open_id"
    #: The operator's account whose application writes.
    account: AccountName = DEFAULT_ACCOUNT

    @model_validator(mode="after")
    def _one_address(self) -> Self:
        if (self.webhook is None) == (self.receive_id is None):
            raise ValueError("webhook, receive_id: give one of them")
        if self.secret is not None and self.webhook is None:
            raise ValueError("secret: belongs to a webhook; leave it out")
        return self

    @model_validator(mode="after")
    def _of_its_type(self, info: ValidationInfo) -> Self:
        if info.context == TRUSTED or self.receive_id is None:
            return self
        given, kind = self.receive_id_type, _kind_of(self.receive_id)
        if kind not in {None, given} and (given, kind) != ("user_id", "email"):
            raise ValueError(f"receive_id_type: is {given}, and the id is one of {kind}; write {kind}")
        if given == "email" and kind is None:
            raise ValueError("receive_id: is not an email address; write one, such as ann@example.com")
        return self

    @property
    def recipients(self) -> tuple[str, ...]:
        return () if self.receive_id is None else (f"{self.account}/{self.receive_id}",)

    @property
    def address(self) -> str:
        if self.webhook is not None:
            return f"a bot of {urlsplit(self.webhook.get_secret_value()).hostname}"
        return f"{self.account}/{self.receive_id}"


FEISHU = ChannelSpec(
    channel=Channel.FEISHU,
    example=FeishuTarget(receive_id="ou_7d8a6e6df7621556ce0d21922b676706"),
    templates=MappingProxyType({"feishu.title": "chat.title.txt", "feishu.text": "chat.txt"}),
    # 6 attempts over 4 h 12 min: later, the conversation has moved on.
    schedule=(10.0, 60.0, 600.0, 3600.0, 10_800.0),
    inline=True,
    edits=True,
    recalls=True,
    # An id has case, an email address has none.
    address_key=lambda address: (folded_account_key if "@" in address else account_key)(address),
    fields_of=_fields_of,
)
