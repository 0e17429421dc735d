"""SlackChannel: incoming webhooks, and chat.postMessage of a bot. docs.slack.dev/apis/web-api/rate-limits"""

import json
import re
from collections.abc import Mapping

import aiohttp

from activities.chat.content import ChatContent, chat_content
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
    blocked,
    busy,
    is_page,
    outcome_of,
    suppressed_outcome,
)
from activities.providers.hooks import HookFailed, Hooks
from activities.providers.http import NotSent, ResponseLost, call, limits, parse_object
from activities.rendering.renderer import Renderer
from activities.rendering.text import shortened
from bellwire.deliveries import Outcome
from bellwire.errors import TemplateInvalid
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
#: What each status of an incoming webhook means.
STATUSES: Mapping[int, Meaning] = {
    200: DELIVERED,
    400: CONTENT,
    **dict.fromkeys((403, 404, 410), HOOK_GONE),
    429: busy(1),
}


class SlackChannel:
    """Posts to incoming webhooks through `hooks`, and to conversations by the bots of `accounts`."""

    def __init__(
        self,
        hooks: Hooks,
        session: aiohttp.ClientSession,
        renderer: Renderer,
        accounts: Mapping[str, SlackAccount],
    ) -> None:
        self._hooks, self._session, self._renderer, self._accounts = hooks, session, renderer, accounts

    async def attempt(self, request: SendRequest) -> Outcome:
        """Post the message once. Whatever Slack does is an outcome, never an exception."""
        target = request.subscription.target
        assert isinstance(target, SlackTarget)
        if outcome := suppressed_outcome(request):
            return outcome
        try:
            content = await chat_content(self._renderer, request)
        except TemplateInvalid as error:
            return blocked(str(error))
        message = _message(content)
        if target.webhook is not None:
            return await self._post_hook(request, target.webhook.get_secret_value(), message)
        return await self._post_message(request, target, message)

    async def _post_hook(self, request: SendRequest, url: str, message: Mapping[str, object]) -> Outcome:
        try:
            response = await self._hooks.post(url, message, delivery=request.id)
        except HookFailed as failure:
            return failure.outcome
        code = response.status
        meaning = STATUSES.get(code, TRANSIENT)
        if code < 300 and response.text.strip() != "ok":
            meaning = UNKNOWN  # Slack says ok; others, such as a proxy, may say anything
        elif meaning is HOOK_GONE and is_page(response.text):
            meaning = OPERATOR
        return outcome_of(meaning.after(response.retry_after), f"Slack {code}", request, response=response.shown)

    async def _post_message(self, request: SendRequest, target: SlackTarget, message: Mapping[str, object]) -> Outcome:
        account = self._accounts.get(target.account)
        if account is None:
            return blocked(f"no Slack account {target.account}", f"add [slack.{target.account}] to BELLWIRE_ACCOUNTS")
        try:
            response = await call(
                self._session,
                "POST",
                f"{account.url}/chat.postMessage",
                timeout=limits(account.timeout),
                headers={
                    "Authorization": f"Bearer {account.token.get_secret_value()}",
                    "Content-Type": "application/json; charset=utf-8",
                },
                data=json.dumps({"channel": target.conversation, **message}).encode(),
            )
        except NotSent as error:
            return outcome_of(TRANSIENT, f"Slack unreachable: {error}", request)
        except ResponseLost as error:
            return outcome_of(UNKNOWN, f"Slack: {error}", request)
        answer = parse_object(response.text)
        if response.status == 200 and answer.get("ok") is True:
            # Conversation and time stamp: what chat.update and chat.delete need.
            conversation, ts = answer.get("channel"), answer.get("ts")
            sent = f"{conversation}/{ts}" if isinstance(conversation, str) and isinstance(ts, str) else None
            return outcome_of(DELIVERED, "Slack ok", request, provider_id=sent)
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
        return outcome_of(meaning.after(response.retry_after), f"Slack {code}", request, response=response.shown)


def _message(content: ChatContent) -> dict[str, object]:
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
