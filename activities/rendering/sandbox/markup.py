"""The markup of chat providers: how a value is written into text of each, so that it neither formats, links nor pings.

Templates are written in the provider's own markup; what their expressions write goes through `escape`. It has no imports of
`bellwire`, which the child process must not load.
"""

import re
from collections.abc import Callable, Mapping
from html import escape as _html

#: Characters that look the same and mean nothing.
_LOOKALIKES = str.maketrans({"<": "\uff1c", ">": "\uff1e", "[": "\uff3b", "]": "\uff3d", "`": "\u02cb"})
_MENTION = re.compile(r"(?<!\w)@")
#: The & of an entity of HTML, which some of their clients decode.
_ENTITY = re.compile(r"&(?=#?\w{1,10};)")
_MARKDOWN = re.compile(r"([\\`*_~\[\]()<>#|!])")


def _slack(text: str) -> str:
    """Slack's mrkdwn: <@U1>, <!here> and links are in angle brackets, and only these three characters are escaped."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _telegram(text: str) -> str:
    """Telegram's HTML. A name after @ is a mention in any text, unless a character that is not seen divides them."""
    return _MENTION.sub("@\u2060", _html(text, quote=True))


def _feishu(text: str) -> str:
    """The markdown of Feishu's cards, in which <at id=all></at> pings everybody. It takes numeric entities."""
    return re.sub(r"[&<>\[\]*_~`]", lambda found: f"&#{ord(found[0])};", text)


def _teams(text: str) -> str:
    """The markdown of Adaptive Cards."""
    return _MARKDOWN.sub(r"\\\1", text)


def _lookalikes(text: str) -> str:
    """The markdown of WeCom and DingTalk, which has no escapes: <@user> and links become text."""
    return _ENTITY.sub("\uff06", text).translate(_LOOKALIKES)


#: By the name of a template, as subscriptions use it.
MARKUPS: Mapping[str, Callable[[str], str]] = {
    "slack.text": _slack,
    "telegram.text": _telegram,
    "feishu.text": _feishu,
    "teams.text": _teams,
    "wecom.text": _lookalikes,
    "dingtalk.text": _lookalikes,
}
