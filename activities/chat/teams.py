"""TeamsChannel: posts Adaptive Cards to workflows of Microsoft Teams. A 202 says only that the workflow was triggered."""

import json
from collections.abc import Mapping

from activities.chat.channel import ChatChannel, HookPost
from activities.chat.content import ChatContent
from activities.providers.answers import CONTENT, DELIVERED, HOOK_GONE, OPERATOR, Meaning, busy
from activities.providers.http import ProviderResponse
from activities.providers.token_calls import ApiAnswer, answer_of_status
from activities.rendering.text import shortened_bytes
from bellwire.targets import TeamsTarget

#: Bytes of the text, so that the whole card stays below the 28 KB that Teams takes.
MAX_TEXT_BYTES = 20_000
#: What each status means; all others are deferred.
STATUSES: Mapping[int, Meaning] = {
    **dict.fromkeys((200, 201, 202, 204), DELIVERED),
    **dict.fromkeys((400, 413), CONTENT),
    429: busy(1),
}
#: Words of a refusal that says that the workflow is gone. 401, 403 and 404 without them may be a fault that passes.
_GONE = ("disabled", "not found", "notfound", "deleted", "could not be found")


class TeamsChannel(ChatChannel[TeamsTarget]):
    """Posts cards to workflows."""

    name = "Teams"

    def hook_post(self, target: TeamsTarget, content: ChatContent) -> HookPost:
        return HookPost(url=target.url.get_secret_value(), message=message_of(content))

    def read_hook(self, response: ProviderResponse) -> ApiAnswer:
        says_so = any(word in response.text.lower() for word in _GONE)
        refused = dict.fromkeys((401, 403, 404), HOOK_GONE if says_so else OPERATOR)
        return answer_of_status(response, {**STATUSES, **refused})


def message_of(content: ChatContent) -> dict[str, object]:
    """The message as an Adaptive Card."""
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.5",
        # What notices and screen readers get in place of the card.
        "fallbackText": shortened_bytes(f"{content.title}\n{content.text}", 2_000),
        "body": [
            # A text run has no markup.
            {
                "type": "RichTextBlock",
                "inlines": [{"type": "TextRun", "text": content.title, "weight": "Bolder", "size": "Medium"}],
            },
            {"type": "TextBlock", "text": _fitting(content.text), "wrap": True},
        ],
    }
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "content": card}
    return {"type": "message", "attachments": [attachment]}


def _fitting(text: str) -> str:
    """The text in at most MAX_TEXT_BYTES of JSON. A single line end would be a space, so each becomes two."""
    text = text.replace("\n", "\n\n")
    while len(json.dumps(text, ensure_ascii=False).encode()) > MAX_TEXT_BYTES:
        text = shortened_bytes(text, len(text.encode()) * 9 // 10)
    return text
