"""WeChat targets: a user of an Official Account or of a mini program of the operator."""

import re
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Literal, Self

from pydantic import model_validator

from bellwire.formats.matching import Matching
from bellwire.formats.web_urls import parse_web_url
from bellwire.models import skip_when_trusted
from bellwire.targets.accounts import DEFAULT_ACCOUNT, AccountName, account_key
from bellwire.targets.channel import Channel, ChannelSpec, ChannelTarget


class WechatKind(StrEnum):
    """What kind of message WeChat sends."""

    #: A template message of an Official Account, to its followers.
    TEMPLATE = "template"
    #: A subscription notification of an Official Account, to users who agreed to it.
    SUBSCRIPTION = "subscription"
    #: A subscribe message of a mini program, to users who agreed to it.
    MINIPROGRAM = "miniprogram"

    @property
    def needs_grant(self) -> bool:
        """Whether the user has to agree to each message, or once to all of a template."""
        return self is not WechatKind.TEMPLATE


_LETTERS = ": up to 64 letters, digits, dashes and underscores"
_PAGE = "must be a page without spaces and without a slash at its start, such as pages/order?id=7"


def _check_page(value: str) -> str:
    if re.match("[A-Za-z]+://", value):
        raise ValueError("is a URL; write a page of the mini program, such as pages/order?id=7, or give url instead")
    return value


def _check_url(value: str) -> str:
    parse_web_url(value, example="https://shop.example/orders/7")
    return value


class WechatTarget(ChannelTarget):
    channel: Literal[Channel.WECHAT] = Channel.WECHAT
    #: The id of the user with the account's app; the same user has another one with every app.
    openid: Annotated[str, Matching(r"^[A-Za-z0-9_-]{1,64}$", f"must be an openid{_LETTERS}")]
    #: The operator's account: an Official Account or a mini program.
    account: AccountName = DEFAULT_ACCOUNT
    kind: WechatKind = WechatKind.TEMPLATE
    #: The id that WeChat gave the template.
    template_id: Annotated[str, Matching(r"^[A-Za-z0-9_-]{1,64}$", f"must be the id of a template{_LETTERS}")]
    #: What a tap opens: a page of the mini program that the message comes from, such as pages/order?id=7.
    page: (
        Annotated[str, Matching(r"^[^\s/\x00-\x1f][^\s\x00-\x1f]{0,1023}$", _PAGE), skip_when_trusted(_check_page)]
        | None
    ) = None
    #: What a tap on a message of an Official Account opens.
    url: (
        Annotated[
            str,
            Matching(r"^https?://[^\s]{1,2000}$", "must be an http or https URL without spaces"),
            skip_when_trusted(_check_url),
        ]
        | None
    ) = None
    #: Whether the user agrees once to all messages of the template, which WeChat allows to public services.
    long_term: bool = False

    @model_validator(mode="after")
    def _opens_something(self) -> Self:
        if self.kind is WechatKind.MINIPROGRAM and self.url is not None:
            raise ValueError("url: messages of a mini program open a page of it; write page instead")
        if self.kind is WechatKind.TEMPLATE and self.page is not None:
            raise ValueError("page: template messages open a URL; write url instead")
        if self.url is not None and self.page is not None:
            raise ValueError("url, page: give one of them")
        return self

    @property
    def recipients(self) -> tuple[str, ...]:
        return (f"{self.account}/{self.openid}",)


WECHAT = ChannelSpec(
    channel=Channel.WECHAT,
    example=WechatTarget(openid="oABCD1234efgh5678", template_id="ngqIpbwh8bUfcSsECmogfXcV14J0tQlEpBO27izEYtY"),
    templates=MappingProxyType({"wechat.json": "wechat.json"}),
    # 6 attempts over 4 h 12 min: later, the message is no news.
    schedule=(10.0, 60.0, 600.0, 3600.0, 10_800.0),
    inline=True,
    receipts=True,
    address_key=account_key,
)
