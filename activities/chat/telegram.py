"""TelegramChannel: sendMessage of a bot. core.telegram.org/bots/api#making-requests"""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from html import unescape
from typing import Any

import aiohttp

from activities.chat.content import ChatContent, chat_content
from activities.providers.accounts import TelegramAccount
from activities.providers.answers import (
    CONTENT,
    DELIVERED,
    GONE,
    OPERATOR,
    TRANSIENT,
    UNKNOWN,
    Meaning,
    blocked,
    busy,
    outcome_of,
    suppressed_outcome,
)
from activities.providers.http import NotSent, ResponseLost, call, limits, parse_object
from activities.rendering.renderer import Renderer
from activities.rendering.text import shortened
from bellwire.deliveries import Outcome
from bellwire.errors import SubscriptionChanged, SubscriptionNotFound, TemplateInvalid
from bellwire.exchanges import REDACTED
from bellwire.registry import Registry
from bellwire.sends import SendRequest
from bellwire.targets import TelegramTarget

#: Longest text, in characters.
MAX_TEXT = 4_096
_TAG = re.compile(r"<[^<>]{0,200}>")
#: What each error code means; other refusals are looked up by their description.
CODES: Mapping[int, Meaning] = {
    403: GONE,  # blocked by the user, kicked from the group, or never spoken to
    401: OPERATOR,
    404: OPERATOR,  # the token of no bot
    429: busy(1),
}
#: What a description of a 400 begins with, without "Bad Request: ", in lower case. Others are faults of the content.
DESCRIPTIONS: Mapping[str, Meaning] = {
    "chat not found": GONE,
    "group is deactivated": GONE,
    "user is deactivated": GONE,
    "peer_id_invalid": GONE,
    "group chat was upgraded": TRANSIENT,
    "not enough rights": OPERATOR,
    "have no rights": OPERATOR,
    "need administrator rights": OPERATOR,
}


class TelegramChannel:
    """Writes to chats by the bots of `accounts`. A group that became a supergroup is found under its new id."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        renderer: Renderer,
        accounts: Mapping[str, TelegramAccount],
        registry: Registry,
    ) -> None:
        self._session, self._renderer, self._accounts, self._registry = session, renderer, accounts, registry

    async def attempt(self, request: SendRequest) -> Outcome:
        """Send the message once. Whatever Telegram does is an outcome, never an exception."""
        target = request.subscription.target
        assert isinstance(target, TelegramTarget)
        if outcome := suppressed_outcome(request):
            return outcome
        account = self._accounts.get(target.account)
        if account is None:
            remedy = f"add [telegram.{target.account}] to BELLWIRE_ACCOUNTS"
            return blocked(f"no Telegram account {target.account}", remedy)
        try:
            content = await chat_content(self._renderer, request)
        except TemplateInvalid as error:
            return blocked(str(error))
        outcome, answer = await self._send(request, account, target.chat_id, _html(content))
        moved_to = _parameters(answer).get("migrate_to_chat_id")
        chat_id = target.chat_id
        if isinstance(moved_to, int) and not isinstance(moved_to, bool) and abs(moved_to) < 2**63:
            chat_id = str(moved_to)
            await self._move(request, target, str(moved_to))
            outcome, answer = await self._send(request, account, chat_id, _html(content))
        if "can't parse entities" in _description(answer):
            # The template's own markup is not valid: the text without any is better than none.
            outcome, _ = await self._send(request, account, chat_id, _plain(content))
        return outcome

    async def _send(
        self, request: SendRequest, account: TelegramAccount, chat_id: str, content: Mapping[str, str]
    ) -> tuple[Outcome, dict[str, Any]]:
        body = {"chat_id": chat_id, "link_preview_options": {"is_disabled": True}, **content}
        try:
            response = await call(
                self._session,
                "POST",
                f"{account.url}/bot{account.token.get_secret_value()}/sendMessage",
                timeout=limits(account.timeout),
                headers={"Content-Type": "application/json"},
                data=json.dumps(body).encode(),
                shown=f"{account.url}/bot{REDACTED}/sendMessage",
                secrets=[account.token.get_secret_value()],
            )
        except NotSent as error:
            return outcome_of(TRANSIENT, f"Telegram unreachable: {error}", request), {}
        except ResponseLost as error:
            return outcome_of(UNKNOWN, f"Telegram: {error}", request), {}
        answer = parse_object(response.text)
        if response.status == 200 and answer.get("ok") is True:
            result = answer.get("result")
            sent = result.get("message_id") if isinstance(result, dict) else None
            known = isinstance(sent, int) and not isinstance(sent, bool)
            return outcome_of(DELIVERED, "Telegram ok", request, provider_id=str(sent) if known else None), {}
        code = answer.get("error_code")
        code = code if isinstance(code, int) and 400 <= code < 600 else response.status
        if code < 300 and answer.get("ok") is not False:
            meaning = UNKNOWN  # not an answer of Telegram
        elif code == 429:
            meaning = CODES[code]
        elif code >= 500 or not answer:
            meaning = TRANSIENT
        elif code == 400:
            description = _description(answer)
            meaning = next((m for text, m in DESCRIPTIONS.items() if description.startswith(text)), CONTENT)
        else:
            meaning = CODES.get(code, OPERATOR)
        asked = _parameters(answer).get("retry_after")
        wait = float(asked) if isinstance(asked, int) and 0 <= asked < 10**6 else response.retry_after
        return outcome_of(meaning.after(wait), f"Telegram {code}", request, response=response.shown), answer

    async def _move(self, request: SendRequest, target: TelegramTarget, chat_id: str) -> None:
        """Store the new id of the chat, unless the subscription was changed meanwhile."""
        moved = request.subscription.model_copy(update={"target": target.model_copy(update={"chat_id": chat_id})})
        with suppress(SubscriptionChanged, SubscriptionNotFound):
            await self._registry.subscriptions.update([moved])


def _parameters(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a refusal says about the next request."""
    found = answer.get("parameters")
    return found if isinstance(found, dict) else {}


def _description(answer: Mapping[str, Any]) -> str:
    return str(answer.get("description", "")).lower().removeprefix("bad request: ")


def _html(content: ChatContent) -> dict[str, str]:
    """Title and text as HTML. A text that is too long is sent without markup, since a cut could fall into a tag."""
    text = f"<b>{content.escaped_title}</b>\n{content.text}".strip()
    return {"text": text, "parse_mode": "HTML"} if len(text) <= MAX_TEXT else _plain(content)


def _plain(content: ChatContent) -> dict[str, str]:
    return {"text": shortened(unescape(_TAG.sub("", f"{content.escaped_title}\n{content.text}")).strip(), MAX_TEXT)}
