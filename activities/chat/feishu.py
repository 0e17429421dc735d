"""FeishuChannel: custom bots, and messages of an application, of Feishu and Lark. open.feishu.cn/document"""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from activities.chat.account_channel import AccountChannel, MessageGone, TooLate
from activities.chat.channel import HookPost
from activities.chat.content import ChatContent
from activities.providers.accounts import FeishuAccount
from activities.providers.answers import CONTENT, DELIVERED, GONE, HOOK_GONE, OPERATOR, RENEW, Meaning, busy
from activities.providers.http import ProviderResponse, object_in, provider_id_of
from activities.providers.parts import ProviderParts
from activities.providers.token_calls import ApiAnswer, answer_of, with_token
from activities.providers.token_requests import TokenRequest, tokens_by_account
from activities.rendering.text import shortened
from bellwire.sends import SendRequest
from bellwire.targets import FeishuTarget

#: Longest text, in characters: a bot's whole body may have 20 KB.
MAX_TEXT = 4_500

#: What each code of a custom bot means; others are the operator's.
BOT_CODES: Mapping[int, Meaning] = {
    0: DELIVERED,
    11232: busy(5),
    # A bad request, a wrong signature or clock, an address or a keyword that the bot does not allow.
    **dict.fromkeys((9499, 19021, 19022, 19024), OPERATOR),
    19001: HOOK_GONE,
    19036: CONTENT,
}
#: The same of an application's messages.
CODES: Mapping[int, Meaning] = {
    0: DELIVERED,
    **dict.fromkeys((99991661, 99991663, 99991668, 99991671), RENEW),
    **dict.fromkeys((230002, 230013), GONE),
    **dict.fromkeys((230001, 230025, 230028), CONTENT),
    **dict.fromkeys((230020, 99991400), busy(1)),
}
#: Codes for a card that was withdrawn or deleted, is not visible to the application, or is older than 14 days.
GONE_MESSAGES = frozenset({"230011", "230031", "230050", "230110"})
#: For a message that is taken back later than the company's administrators allow, mostly a day.
TOO_OLD = "230009"


def sign(secret: str, timestamp: int) -> str:
    """The signature of a custom bot's call: an HMAC whose key is time stamp and secret, over nothing."""
    digest = hmac.new(f"{timestamp}\n{secret}".encode(), b"", hashlib.sha256).digest()
    return base64.b64encode(digest).decode()


class FeishuChannel(AccountChannel[FeishuTarget, FeishuAccount]):
    """Posts to custom bots, and writes to users and chats by the applications of accounts."""

    name = "Feishu"

    def __init__(
        self, parts: ProviderParts, accounts: Mapping[str, FeishuAccount], *, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(parts, accounts)
        self._clock = clock
        self._tokens = tokens_by_account(parts.session, parts.registry, "feishu", accounts, _token_request)

    def hook_post(self, target: FeishuTarget, content: ChatContent) -> HookPost | None:
        if target.webhook is None:
            return None
        url, message = target.webhook.get_secret_value(), {"msg_type": "interactive", "card": card_of(content)}
        if target.secret is None:
            return HookPost(url=url, message=message)
        now = int(self._clock())
        signature = sign(target.secret.get_secret_value(), now)
        return HookPost(url=url, message={**message, "timestamp": str(now), "sign": signature}, secrets=[signature])

    def read_hook(self, response: ProviderResponse) -> ApiAnswer:
        return answer_of(response, "code", BOT_CODES, or_field="StatusCode")

    async def send(
        self, request: SendRequest, target: FeishuTarget, account: FeishuAccount, content: ChatContent
    ) -> ApiAnswer:
        message = {
            "receive_id": target.receive_id,
            "msg_type": "interactive",
            "content": json.dumps(card_of(content), ensure_ascii=False),
            # By it Feishu takes a second request within an hour for the first one. At most 50 characters.
            "uuid": request.repetition_key,
        }
        params = {"receive_id_type": target.receive_id_type}
        answer = await self._ask(target, account, "POST", "messages", message, params=params)
        return replace(answer, provider_id=provider_id_of(object_in(answer.document, "data").get("message_id")))

    async def edit(
        self, target: FeishuTarget, account: FeishuAccount, content: ChatContent, message_id: str
    ) -> ApiAnswer:
        message = {"content": json.dumps(card_of(content), ensure_ascii=False)}
        return await self._change(target, account, "PATCH", message_id, message)

    async def recall(self, target: FeishuTarget, account: FeishuAccount, message_id: str) -> ApiAnswer:
        answer = await self._change(target, account, "DELETE", message_id)
        if answer.code == TOO_OLD:
            raise TooLate
        return answer

    async def _change(
        self,
        target: FeishuTarget,
        account: FeishuAccount,
        method: str,
        message_id: str,
        message: Mapping[str, object] | None = None,
    ) -> ApiAnswer:
        """Call an API for a message that was sent."""
        answer = await self._ask(target, account, method, f"messages/{message_id}", message)
        if answer.code in GONE_MESSAGES:
            raise MessageGone
        return answer

    async def _ask(
        self,
        target: FeishuTarget,
        account: FeishuAccount,
        method: str,
        path: str,
        message: Mapping[str, object] | None = None,
        *,
        params: Mapping[str, str] | None = None,
    ) -> ApiAnswer:
        """Call an API of messages with the account's token."""
        url = f"{account.url}/open-apis/im/v1/{path}"

        async def ask(token: str) -> ApiAnswer:
            response = await self.call(account, method, url, message, params=params, bearer=token)
            answer = answer_of(response, "code", CODES)
            if answer.code == "230001" and "invalid receive_id" in str(answer.document.get("msg", "")).lower():
                return replace(answer, meaning=GONE)
            if response.status == 429 or answer.code == "99991400":
                return replace(answer, meaning=answer.meaning.after(_reset(response)))
            return answer

        return await with_token(self._tokens[target.account], ask)


def _token_request(account: FeishuAccount) -> TokenRequest:
    return TokenRequest(
        name="Feishu",
        url=f"{account.url}/open-apis/auth/v3/tenant_access_token/internal",
        codes=CODES,
        timeout=account.timeout,
        body={"app_id": account.app_id, "app_secret": account.app_secret.get_secret_value()},
        token_field="tenant_access_token",  # noqa: S106 - a name
        life_field="expire",
        code_field="code",
    )


def _reset(response: ProviderResponse) -> float | None:
    """Seconds until the limit of an application's calls is reset."""
    value = response.headers.get("x-ogw-ratelimit-reset", "")
    return float(value) if value.isascii() and value.isdecimal() and len(value) < 6 else None


def card_of(content: ChatContent) -> dict[str, object]:
    """The message as a card."""
    elements = [{"tag": "markdown", "content": shortened(content.text, MAX_TEXT)}] if content.text else []
    return {
        # Only a card that is shared by all who see it can be changed.
        "config": {"wide_screen_mode": True, "update_multi": True},
        "header": {"title": {"tag": "plain_text", "content": content.title}},
        "elements": elements or [{"tag": "markdown", "content": content.escaped_title}],
    }
