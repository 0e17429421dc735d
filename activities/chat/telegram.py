"""TelegramChannel: sendMessage of a bot. core.telegram.org/bots/api#making-requests"""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from html import unescape
from typing import Any

from activities.chat.account_channel import AccountChannel, MessageGone, TooLate
from activities.chat.content import ChatContent
from activities.providers.accounts import TelegramAccount
from activities.providers.answers import (
    CONTENT,
    DELIVERED,
    GONE,
    OPERATOR,
    TRANSIENT,
    UNKNOWN,
    Meaning,
    busy,
    by_server,
)
from activities.providers.http import number_of, object_in, parse_object
from activities.providers.token_calls import ApiAnswer
from activities.rendering.text import shortened
from bellwire.errors import SubscriptionChanged, SubscriptionNotFound
from bellwire.exchanges import REDACTED
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
#: The same of a message that is not there, or that cannot be changed any more.
GONE_MESSAGES = (
    "message to edit not found",
    "message can't be edited",
    "message to delete not found",
    "message_id_invalid",
)


class TelegramChannel(AccountChannel[TelegramTarget, TelegramAccount]):
    """Writes to chats by the bots of accounts. A group that became a supergroup is found under its new id."""

    name = "Telegram"
    numbered_by_chat = True

    async def send(
        self, request: SendRequest, target: TelegramTarget, account: TelegramAccount, content: ChatContent
    ) -> ApiAnswer:
        chat = {"chat_id": target.chat_id}
        answer = await self._write(account, "sendMessage", chat, content)
        if (moved_to := _moved_to(answer)) is not None:
            await self._move(request, target, moved_to)
            answer = await self._write(account, "sendMessage", {"chat_id": moved_to}, content)
        if answer.meaning is not DELIVERED:
            return answer
        sent = object_in(answer.document, "result").get("message_id")
        is_id = isinstance(sent, int) and not isinstance(sent, bool)
        return replace(answer, provider_id=str(sent) if is_id else None)

    async def edit(
        self, target: TelegramTarget, account: TelegramAccount, content: ChatContent, message_id: str
    ) -> ApiAnswer:
        message = {"chat_id": target.chat_id, "message_id": int(message_id)}
        answer = await self._write(account, "editMessageText", message, content)
        description = _description(answer.document)
        if _moved_to(answer) or description.startswith(GONE_MESSAGES):
            raise MessageGone
        return replace(answer, meaning=DELIVERED) if description.startswith("message is not modified") else answer

    async def recall(self, target: TelegramTarget, account: TelegramAccount, message_id: str) -> ApiAnswer:
        message = {"chat_id": target.chat_id, "message_id": int(message_id)}
        answer = await self._ask(account, "deleteMessage", message)
        description = _description(answer.document)
        if description.startswith(GONE_MESSAGES):
            raise MessageGone
        if description.startswith("message can't be deleted"):
            raise TooLate
        return answer

    async def _write(
        self, account: TelegramAccount, api_method: str, message: Mapping[str, object], content: ChatContent
    ) -> ApiAnswer:
        """Call a method that writes a text."""
        message = {**message, "link_preview_options": {"is_disabled": True}}
        answer = await self._ask(account, api_method, {**message, **html_of(content)})
        if answer.meaning is not DELIVERED and "can't parse entities" in _description(answer.document):
            # The template's own markup is not valid: the text without any is better than none.
            return await self._ask(account, api_method, {**message, **_plain(content)})
        return answer

    async def _ask(self, account: TelegramAccount, api_method: str, message: Mapping[str, object]) -> ApiAnswer:
        """Call a method of the Bot API."""
        token = account.token.get_secret_value()
        url, shown = (f"{account.url}/bot{each}/{api_method}" for each in (token, REDACTED))
        response = await self.call(account, "POST", url, message, shown=shown, secrets=[token])
        answer = parse_object(response.text)
        if response.status == 200 and answer.get("ok") is True:
            return ApiAnswer(meaning=DELIVERED, code="ok", document=answer)
        found = answer.get("error_code")
        code = found if isinstance(found, int) and 400 <= found < 600 else response.status
        if code == 429:
            meaning = CODES[code]
        elif answer.get("ok") is not False:
            meaning = UNKNOWN if code < 300 else TRANSIENT  # not an answer of Telegram
        elif code >= 500:
            meaning = TRANSIENT
        elif code == 400:
            description = _description(answer)
            meaning = next((m for text, m in DESCRIPTIONS.items() if description.startswith(text)), CONTENT)
        else:
            meaning = CODES.get(code, OPERATOR)
        asked = number_of(object_in(answer, "parameters").get("retry_after"))
        wait = float(asked) if asked is not None and 0 <= asked < 10**12 else response.retry_after
        meaning = by_server(meaning, response.status).after(wait)
        return ApiAnswer(meaning=meaning, code=str(code), document=answer, text=response.shown)

    async def _move(self, request: SendRequest, target: TelegramTarget, chat_id: str) -> None:
        """Store the new id of the chat, unless the subscription was changed meanwhile."""
        moved = request.subscription.model_copy(update={"target": target.model_copy(update={"chat_id": chat_id})})
        with suppress(SubscriptionChanged, SubscriptionNotFound):
            await self._parts.registry.subscriptions.update([moved])


def _moved_to(answer: ApiAnswer) -> str | None:
    """The new id of a group that became a supergroup."""
    moved_to = number_of(object_in(answer.document, "parameters").get("migrate_to_chat_id"))
    is_id = moved_to is not None and abs(moved_to) < 2**63
    return str(moved_to) if is_id and answer.meaning is not DELIVERED else None


def _description(answer: Mapping[str, Any]) -> str:
    return str(answer.get("description", "")).lower().removeprefix("bad request: ")


def html_of(content: ChatContent) -> dict[str, str]:
    """Title and text as HTML. A text that is too long is sent without markup, since a cut could fall into a tag."""
    text = f"<b>{content.escaped_title}</b>\n{content.text}".strip()
    return {"text": text, "parse_mode": "HTML"} if len(text) <= MAX_TEXT else _plain(content)


def _plain(content: ChatContent) -> dict[str, str]:
    return {"text": shortened(unescape(_TAG.sub("", f"{content.escaped_title}\n{content.text}")).strip(), MAX_TEXT)}
