"""What receivers get of an event without a template of its own, whatever is in it: nobody is pinged, no limit is exceeded."""

import json
from collections.abc import AsyncIterator

import pytest

from activities.as_sent import CHATS, as_sent
from activities.rendering.renderer import Renderer
from activities.rendering.template_files import TemplateFiles
from activities.rendering.text import shortened, shortened_bytes
from bellwire.events import Event
from bellwire.sends import SendRequest
from bellwire.targets import SPECS, Channel
from bellwire.targets.chat.wechat_fields import field_type
from tests.factories import subscription

#: What mentions people or everybody, formats or links at one of the providers.
PINGS = "<!channel> <@U1> @all @ann <at id=all></at> <@zhang> &lt;@zhang&gt; [a](https://e.example) <a href='x'>x</a>"
#: What must not be left of it, by channel.
ACTIVE = {
    Channel.SLACK: ("<!", "<@"),
    # Its HTML, or text without any markup if that is too long.
    Channel.TELEGRAM: ("@all", "@ann"),
    Channel.FEISHU: ("<at", "[a]"),
    Channel.TEAMS: (" <at", " [a]"),
    Channel.WECOM: ("<@", "&lt;@", "<a", "[a]"),
    Channel.DINGTALK: ("<@", "&lt;@", "<a", "[a]"),
}
HOSTILE = {
    "pings": {PINGS: PINGS, "list": [PINGS, [PINGS]], "url": f"https://e.example/{PINGS}"},
    "long": {"v": "长" * 50_000},
    "many": {f"k{number}": "v" * 300 for number in range(200)},
    "nested": json.loads('{"k":' * 60 + "1" + "}" * 60),
    "emoji": {"v": "👨‍👩‍👧‍👦" * 2_000},
    "marks": {"a\u200bb\u202ec": "\u2066x\ufeff\u200d"},
    "text": PINGS,
    "nothing": None,
}


@pytest.fixture(scope="module")
async def renderer() -> AsyncIterator[Renderer]:
    made = Renderer()
    yield made
    await made.close()


def request_for(channel: Channel, data: object, *, locale: str, subject: str = PINGS) -> SendRequest:
    target = SPECS[channel].example.model_dump(mode="json", context="trusted")
    return SendRequest.unrecorded(
        subscription(target, locale=locale), Event(source="/shop", type="no.template", subject=subject, data=data)
    )


@pytest.mark.parametrize("locale", ["en", "zh-Hant-TW"])
@pytest.mark.parametrize("name", HOSTILE)
async def test_a_default_text_pings_nobody_and_keeps_to_the_limits(renderer: Renderer, name: str, locale: str) -> None:
    assert ACTIVE.keys() == CHATS.keys()
    for channel in (*CHATS, Channel.PUSH, Channel.WECHAT):
        sent = await as_sent(renderer, request_for(channel, HOSTILE[name], locale=locale), None)
        assert sent is not None
        assert sent.problem is None
        whole = json.dumps(sent.message, ensure_ascii=False)
        assert len(whole.encode()) < 32_000
        if channel is Channel.WECHAT:
            for field, value in json.loads(whole).items():
                kind = field_type(field)
                assert kind is not None
                assert len(value["value"]) <= kind.limit
        # Titles that are shown as plain text are not escaped.
        body = json.dumps(_without_plain_text(sent.message), ensure_ascii=False)
        assert not [each for each in ACTIVE.get(channel, ()) if each in body]


@pytest.mark.parametrize("name", TemplateFiles((Renderer()._files.folders[-1],)).names())
@pytest.mark.parametrize("locale", ["zh", "zh-CN", "ZH-hant-tw"])
async def test_every_built_in_text_is_in_chinese_too(renderer: Renderer, name: str, locale: str) -> None:
    event = Event(source="/shop", type=name, subject="7", data={"order": "7", "app": "a", "name": "n"})
    for channel, file in ((Channel.SMS, "sms.text"), (Channel.SLACK, "slack.title"), (Channel.PUSH, "push.title")):
        target = SPECS[channel].example.model_dump(mode="json", context="trusted")
        one = SendRequest.unrecorded(subscription(target, locale=locale), event)
        assert any("\u3000" <= each <= "\uffef" for each in await renderer.text(one, file))
    mail = SendRequest.unrecorded(subscription({"channel": "email", "to": "a@b.example"}, locale=locale), event)
    assert any("\u3000" <= each <= "\uffef" for each in (await renderer.email(mail)).text)


def test_no_emoji_is_cut_in_two() -> None:
    family = "👨‍👩‍👧‍👦"
    assert shortened(f"a{family}", 5) == "a…"
    assert shortened_bytes(f"a{family}", 20) == "a…"


def _without_plain_text(value: object) -> object:
    """The message without what the provider shows as plain text."""
    if isinstance(value, dict):
        if value.get("tag") == "plain_text" or value.get("type") in {"plain_text", "TextRun"}:
            return None
        return {name: _without_plain_text(each) for name, each in value.items() if name != "fallbackText"}
    return [_without_plain_text(each) for each in value] if isinstance(value, list) else value
