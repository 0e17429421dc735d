"""SlackChannel: incoming webhooks, and chat.postMessage of a bot. docs.slack.dev/apis/web-api/rate-limits"""

import re
from collections.abc import Mapping
from dataclasses import replace

from activities.chat.account_channel import AccountChannel, MessageGone
from activities.chat.channel import HookPost
from activities.chat.content import ChatContent
from activities.providers.accounts import SlackAccount
from activities.providers.answers import (
    CONTENT,
    DELIVERED,
    GONE,
    HOOK_GONE,
    OPERATOR,
    TRANSIENT,
    UNKNOWN,
    Meaning,
    busy,
    by_server,
)
from activities.providers.http import ProviderResponse, parse_object
from activities.providers.token_calls import ApiAnswer, answer_of_status
from activities.rendering.text import shortened
from bellwire.deliveries import OutcomeKind
from bellwire.sends import SendRequest
from bellwire.targets import SlackTarget

#: Limits of a message, in characters.
MAX_TEXT, MAX_SECTION = 4_000, 3_000

#: What each error of the Web API means; others are the operator's.
ERRORS: Mapping[str, Meaning] = {
    **dict.fromkeys(("channel_not_found", "not_in_channel", "is_archived", "user_not_found"), GONE),
    **dict.fromkeys(("msg_too_long", "invalid_blocks", "no_text", "invalid_blocks_format"), CONTENT),
    **dict.fromkeys(("ratelimited", "rate_limited"), busy(1)),
    # A part of the message may have been posted.
    **dict.fromkeys(("fatal_error", "internal_error"), UNKNOWN),
    **dict.fromkeys(("service_unavailable", "request_timeout", "team_added_to_org"), TRANSIENT),
}
#: The errors that a reason may show.
_ERROR = re.compile(r"[a-z_]{2,60}", re.ASCII)
#: Errors of chat.update and chat.delete for a message that is not there, or that cannot be changed any more.
GONE_MESSAGES = frozenset({"message_not_found", "edit_window_closed", "cant_update_message"})
#: What each status of an incoming webhook means.
STATUSES: Mapping[int, Meaning] = {
    200: DELIVERED,
    400: CONTENT,
    **dict.fromkeys((403, 404, 410), HOOK_GONE),
    429: busy(1),
}


class SlackChannel(AccountChannel[SlackTarget, SlackAccount]):
    """Posts to incoming webhooks, and to conversations by the bots of accounts."""

    name = "Slack"

    def hook_post(self, target: SlackTarget, content: ChatContent) -> HookPost | None:
        return HookPost(url=target.webhook.get_secret_value(), message=message_of(content)) if target.webhook else None

    def read_hook(self, response: ProviderResponse) -> ApiAnswer:
        answer = answer_of_status(response, STATUSES)
        if response.status < 300 and response.text.strip() != "ok":
            return replace(answer, meaning=UNKNOWN)  # Slack says ok; others, such as a proxy, may say anything
        if answer.meaning.kind is OutcomeKind.REJECTED and answer.document:
            return replace(answer, meaning=OPERATOR)  # a gateway's JSON: Slack answers hooks with a word
        return answer

    async def send(
        self,
        request: SendRequest,  # noqa: ARG002 - for other channels
        target: SlackTarget,
        account: SlackAccount,
        content: ChatContent,
    ) -> ApiAnswer:
        message = {"channel": target.conversation, **message_of(content)}
        answer = await self._ask(account, "chat.postMessage", message)
        if answer.meaning is not DELIVERED:
            return answer
        # Conversation and time stamp: what chat.update and chat.delete need.
        channel, ts = answer.document.get("channel"), answer.document.get("ts")
        sent = f"{channel}/{ts}" if isinstance(channel, str) and isinstance(ts, str) else None
        return replace(answer, provider_id=sent)

    async def edit(
        self,
        target: SlackTarget,  # noqa: ARG002 - the id of the message has the conversation
        account: SlackAccount,
        content: ChatContent,
        message_id: str,
    ) -> ApiAnswer:
        return await self._change(account, "chat.update", message_id, message_of(content))

    async def recall(
        self,
        target: SlackTarget,  # noqa: ARG002 - the id of the message has the conversation
        account: SlackAccount,
        message_id: str,
    ) -> ApiAnswer:
        return await self._change(account, "chat.delete", message_id, {})

    async def _change(
        self, account: SlackAccount, api_method: str, message_id: str, fields: Mapping[str, object]
    ) -> ApiAnswer:
        """Call a method for a message that was posted."""
        conversation, _, ts = message_id.partition("/")
        answer = await self._ask(account, api_method, {"channel": conversation, "ts": ts, **fields})
        if answer.code in GONE_MESSAGES:
            raise MessageGone
        return answer

    async def _ask(self, account: SlackAccount, api_method: str, message: Mapping[str, object]) -> ApiAnswer:
        """Call a method of the Web API."""
        url, token = f"{account.url}/{api_method}", account.token.get_secret_value()
        response = await self.call(account, "POST", url, message, bearer=token)
        answer = parse_object(response.text)
        if response.status == 200 and answer.get("ok") is True:
            return ApiAnswer(meaning=DELIVERED, code="ok", document=answer)
        found = answer.get("error")
        code = found if isinstance(found, str) and _ERROR.fullmatch(found) else str(response.status)
        if response.status == 429:
            meaning = busy(1)
        elif code in ERRORS:
            meaning = ERRORS[code]
        elif answer.get("ok") is not False and response.status < 300:
            meaning = UNKNOWN  # not an answer of Slack
        else:
            meaning = TRANSIENT if response.status >= 500 or not answer else OPERATOR
        meaning = by_server(meaning, response.status).after(response.retry_after)
        return ApiAnswer(meaning=meaning, code=code, text=response.shown)


def message_of(content: ChatContent) -> dict[str, object]:
    """The message as blocks, and as text where blocks are not shown, such as in notices of a phone."""
    blocks: list[dict[str, object]] = [
        {"type": "header", "text": {"type": "plain_text", "text": content.title, "emoji": False}}
    ]
    if content.text:
        section = {"type": "mrkdwn", "text": shortened(content.text, MAX_SECTION), "verbatim": True}
        blocks.append({"type": "section", "text": section})
    return {
        "text": shortened(content.whole, MAX_TEXT),
        "blocks": blocks,
        "unfurl_links": False,
        "unfurl_media": False,
    }
