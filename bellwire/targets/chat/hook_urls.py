"""URLs of hooks: a URL at a provider's own host must be the whole URL of a hook of that provider.

URLs at other hosts, such as those of a proxy, may have any path.
"""

import re
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Annotated, NamedTuple
from urllib.parse import parse_qs

from pydantic import AfterValidator, Field, SecretStr

from bellwire.formats.web_urls import parse_web_url
from bellwire.models import skip_when_trusted
from bellwire.targets.channel import Channel
from bellwire.targets.stored_secret import StoredSecret


class HookForm(NamedTuple):
    """What the URLs of one provider's hooks look like."""

    #: What it is called there.
    name: str
    example: str
    #: The provider's domains.
    domains: tuple[str, ...]
    #: Host and path.
    place: re.Pattern[str]
    #: The field of the query that is the credential; None: it is in the path.
    credential: str | None = None


FORMS: Mapping[Channel, HookForm] = MappingProxyType(
    {
        Channel.SLACK: HookForm(
            "an incoming webhook",
            "https://hooks.slack.com/services/T0/B0/x",
            ("slack.com", "slack-gov.com"),
            re.compile(r"hooks\.slack(-gov)?\.com/services(/[^/]+){3}"),
        ),
        Channel.TEAMS: HookForm(
            "a workflow's trigger",
            "https://prod-1.westeurope.logic.azure.com/workflows/…?sig=…",
            (
                *("logic.azure.com", "logic.azure.us", "logic.azure.cn", "powerplatform.com", "powerautomate.com"),
                *("powerplatform.microsoft.us", "office.com", "teams.microsoft.com", "teams.live.com"),
            ),
            re.compile(r"[^/]+\.(logic\.azure|powerplatform|powerautomate)\.[a-z.]+/(.+/)?workflows/.+"),
            "sig",
        ),
        Channel.WECOM: HookForm(
            "a group's bot",
            "https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=…",
            ("weixin.qq.com",),
            re.compile(r"qyapi\.weixin\.qq\.com/cgi-bin/webhook/send"),
            "key",
        ),
        Channel.DINGTALK: HookForm(
            "a group's robot",
            "https://oapi.dingtalk.com/robot/send?access_token=…",
            ("dingtalk.com",),
            re.compile(r"oapi\.dingtalk\.com/robot/send"),
            "access_token",
        ),
        Channel.FEISHU: HookForm(
            "a custom bot",
            "https://open.feishu.cn/open-apis/bot/v2/hook/…",
            ("feishu.cn", "larksuite.com", "larkoffice.com"),
            re.compile(r"open\.(feishu\.cn|larksuite\.com|larkoffice\.com)/open-apis/bot/v2/hook/[^/]+"),
        ),
    }
)


def check_hook(channel: Channel, value: SecretStr) -> SecretStr:
    """Check the URL of a hook of this channel. Raises ValueError, which does not repeat it."""
    form = FORMS[channel]
    parts = parse_web_url(value.get_secret_value(), example=form.example)
    host = (parts.hostname or "").lower().removesuffix(".")
    owner = next((each for each, its in FORMS.items() if _is_within(host, its.domains)), None)
    if owner is None:
        return value
    if owner is not channel:
        raise ValueError(f"is a URL of the channel {owner}; give one of {channel}, such as {form.example}")
    is_whole = form.place.fullmatch(f"{host}{parts.path}") and (
        form.credential is None or form.credential in parse_qs(parts.query)
    )
    if not is_whole:
        raise ValueError(f"is not the whole URL of {form.name}; copy it again: it looks like {form.example}")
    if parts.scheme != "https":
        raise ValueError("begins with http, with which others can read its secret on the way; write https")
    return value


def hook_of(channel: Channel) -> AfterValidator:
    """The validator of the URL of a hook of this channel."""
    return skip_when_trusted(partial(check_hook, channel))


def _check_secret(value: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[!-~]+", value.get_secret_value()):
        raise ValueError(
            "must be the secret that the provider shows for the bot, without spaces; leave it out if it has none"
        )
    return value


#: The secret with which calls of a hook are signed.
HookSecret = Annotated[StoredSecret, Field(max_length=200), skip_when_trusted(_check_secret)]


def not_everybody(value: str) -> str:
    """The id, unless it is the one that stands for everybody whom an application may write to. Raises ValueError."""
    if value.lower() == "@all":
        raise ValueError("is everybody whom the application may write to; name one user, or a department")
    return value


def _is_within(host: str, domains: tuple[str, ...]) -> bool:
    return any(host == domain or host.endswith(f".{domain}") for domain in domains)
