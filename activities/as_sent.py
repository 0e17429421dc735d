"""What receivers get of an event, made by the channels' own code, and where a text of it was cut: for previews."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from activities.chat import dingtalk, feishu, slack, teams, telegram, wecom
from activities.chat.content import ChatContent, chat_content
from activities.push.content import push_content
from activities.rendering.renderer import Renderer, template_name, template_values
from activities.rendering.sandbox.markup import MARKUPS
from activities.rendering.text import noting_cuts
from activities.sms.mainland.aliyun import AliyunProvider
from activities.sms.mainland.signatures import AccessKey
from activities.sms.mainland.tencent import TencentProvider
from activities.sms.provider_config import ProvidersFile
from activities.sms.providers import Sms
from activities.wechat.fields import fields_of
from bellwire.errors import TemplateInvalid
from bellwire.sends import SendRequest
from bellwire.targets import SMS, Channel, SmsTarget

#: The message of each chat.
CHATS: Mapping[Channel, Callable[[Any, ChatContent], Mapping[str, object]]] = {
    Channel.DINGTALK: lambda _, content: dingtalk.markdown_of(content),
    Channel.FEISHU: lambda _, content: feishu.card_of(content),
    Channel.SLACK: lambda _, content: slack.message_of(content),
    Channel.TEAMS: lambda _, content: teams.message_of(content),
    Channel.TELEGRAM: lambda _, content: telegram.html_of(content),
    Channel.WECOM: wecom.written_to,
}


@dataclass(frozen=True, kw_only=True)
class AsSent:
    """What the provider gets, without the address."""

    message: object = None
    #: Where in `message` a text was cut, such as blocks.1.text.text.
    cut: Sequence[str] = ()
    #: Why nothing is sent.
    problem: str | None = None


async def as_sent(renderer: Renderer, request: SendRequest, sms_providers: Path | None) -> AsSent | None:
    """What is sent for this request; None on channels that send the rendered texts as they are."""
    channel = request.subscription.channel
    with noting_cuts() as cuts:
        try:
            message = await _message(renderer, request, sms_providers)
        except TemplateInvalid as error:
            return AsSent(problem=str(error))
    if message is None:
        return None
    escaped = MARKUPS.get(f"{channel}.text", str)
    return AsSent(message=message, cut=list(_cut_at(message, {*cuts, *map(escaped, cuts)})))


async def _message(renderer: Renderer, request: SendRequest, sms_providers: Path | None) -> object:
    target, channel = request.subscription.target, request.subscription.channel
    if channel in CHATS:
        return CHATS[channel](target, await chat_content(renderer, request))
    if channel is Channel.PUSH:
        content = await push_content(renderer, request)
        names = ("title", "body", "url", "badge", "data")
        return {name: value for name in names if (value := getattr(content, name)) not in (None, "")}
    if channel is Channel.WECHAT:
        return fields_of(await renderer.text(request, "wechat.json"))
    if channel is Channel.SMS and sms_providers is not None:
        return _of_mainland(request, await renderer.text(request, "sms.text"), sms_providers)
    return None


def _of_mainland(request: SendRequest, text: str, sms_providers: Path) -> Mapping[str, object] | None:
    """By provider: the template and the parameters that it gets, or why it cannot send the SMS."""
    target = request.subscription.target
    assert isinstance(target, SmsTarget)
    try:
        file = ProvidersFile.read(sms_providers)
    except ValueError:
        # Tenants see previews, and the file is the operator's.
        raise TemplateInvalid(
            "BELLWIRE_SMS_PROVIDERS is not valid; the worker names the field when it starts"
        ) from None
    nothing, key = cast(Any, None), AccessKey(id="", secret="")  # nothing is called
    providers: list[tuple[AliyunProvider | TencentProvider, tuple[str, ...]]] = [
        *((AliyunProvider(each, nothing, nothing, key=key), each.numbers) for each in file.aliyun),
        *((TencentProvider(each, nothing, nothing, key=key), each.numbers) for each in file.tencent),
    ]
    found: dict[str, object] = {}
    for provider, numbers in providers:
        sms = Sms(
            delivery_id=request.id,
            number=1,
            # The example has no number that these providers send to.
            to=target.to if target != SMS.example else f"{numbers[0]}13800138000",
            text=text,
            sender=target.sender,
            template=template_name(request),
            values=template_values(request),
        )
        found[provider.name] = provider.cannot_send(sms) or provider.message(sms)
    return found or None


def _cut_at(value: object, cuts: set[str], path: str = "") -> Iterator[str]:
    """The places of texts that contain one of `cuts`."""
    if isinstance(value, str):
        if any(cut in value for cut in cuts):
            yield path
    elif isinstance(value, Mapping | list | tuple):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for name, item in items:
            yield from _cut_at(item, cuts, f"{path}.{name}" if path else str(name))
