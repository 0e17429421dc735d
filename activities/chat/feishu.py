"""FeishuChannel: custom bots, and messages of an application, of Feishu and Lark. open.feishu.cn/document"""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping
from functools import partial

import aiohttp

from activities.chat.content import ChatContent, chat_content
from activities.providers.accounts import FeishuAccount
from activities.providers.answers import (
    CONTENT,
    DELIVERED,
    GONE,
    HOOK_GONE,
    OPERATOR,
    RENEW,
    Meaning,
    blocked,
    busy,
    outcome_of,
    suppressed_outcome,
)
from activities.providers.hooks import HookFailed, Hooks
from activities.providers.http import ProviderResponse, call, limits, parse_object
from activities.providers.token_calls import ApiAnswer, answer_of, outcome_of_call, with_token
from activities.providers.tokens import IssuedToken, Tokens, issued_token, no_token
from activities.rendering.renderer import Renderer
from activities.rendering.text import shortened
from bellwire.deliveries import Outcome
from bellwire.errors import TemplateInvalid
from bellwire.registry import Registry
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
    **dict.fromkeys((19001,), HOOK_GONE),
    19036: CONTENT,
}
#: The same of an application's messages.
CODES: Mapping[int, Meaning] = {
    0: DELIVERED,
    **dict.fromkeys((99991661, 99991663, 99991668, 99991671), RENEW),
    **dict.fromkeys((230002, 230013), GONE),
    230001: CONTENT,
    230020: busy(1),
    99991400: busy(1),
    **dict.fromkeys((230025, 230028), CONTENT),
}


def sign(secret: str, timestamp: int) -> str:
    """The signature of a custom bot's call: an HMAC whose key is time stamp and secret, over nothing."""
    digest = hmac.new(f"{timestamp}\n{secret}".encode(), b"", hashlib.sha256).digest()
    return base64.b64encode(digest).decode()


class FeishuChannel:
    """Posts to custom bots through `hooks`, and writes to users and chats by the applications of `accounts`."""

    def __init__(
        self,
        hooks: Hooks,
        session: aiohttp.ClientSession,
        renderer: Renderer,
        accounts: Mapping[str, FeishuAccount],
        registry: Registry,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._hooks, self._session, self._renderer, self._accounts = hooks, session, renderer, accounts
        self._clock = clock
        self._tokens = {
            name: Tokens(registry, "feishu", name, partial(self._issue, account)) for name, account in accounts.items()
        }

    async def attempt(self, request: SendRequest) -> Outcome:
        """Send the card once. Whatever Feishu does is an outcome, never an exception."""
        target = request.subscription.target
        assert isinstance(target, FeishuTarget)
        if outcome := suppressed_outcome(request):
            return outcome
        try:
            content = await chat_content(self._renderer, request)
        except TemplateInvalid as error:
            return blocked(str(error))
        if target.webhook is not None:
            return await self._post_bot(request, target, content)
        account = self._accounts.get(target.account)
        if account is None:
            remedy = f"add [feishu.{target.account}] to BELLWIRE_ACCOUNTS"
            return blocked(f"no Feishu account {target.account}", remedy)
        message = {
            "receive_id": target.receive_id,
            "msg_type": "interactive",
            "content": json.dumps(_card(content), ensure_ascii=False),
            # By it Feishu takes a second request within an hour for the first one. At most 50 characters.
            "uuid": hashlib.sha256(f"{request.id}/{request.delivery.schedule_from}".encode()).hexdigest()[:40],
        }
        send = partial(self._send, account, target, message)
        return await outcome_of_call("Feishu", request, lambda: with_token(self._tokens[target.account], send))

    async def _post_bot(self, request: SendRequest, target: FeishuTarget, content: ChatContent) -> Outcome:
        assert target.webhook is not None
        message: dict[str, object] = {"msg_type": "interactive", "card": _card(content)}
        if target.secret is not None:
            now = int(self._clock())
            message |= {"timestamp": str(now), "sign": sign(target.secret.get_secret_value(), now)}
        try:
            response = await self._hooks.post(target.webhook.get_secret_value(), message, delivery=request.id)
        except HookFailed as failure:
            return failure.outcome
        answer = answer_of(response, "code", BOT_CODES, OPERATOR, or_field="StatusCode")
        code = answer.code
        return outcome_of(answer.meaning, f"Feishu {code}", request, response=answer.text)

    async def _send(
        self, account: FeishuAccount, target: FeishuTarget, message: Mapping[str, object], token: str
    ) -> ApiAnswer:
        response = await call(
            self._session,
            "POST",
            f"{account.url}/open-apis/im/v1/messages",
            timeout=limits(account.timeout),
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json; charset=utf-8"},
            params={"receive_id_type": target.receive_id_type},
            data=json.dumps(message, ensure_ascii=False).encode(),
        )
        answer = answer_of(response, "code", CODES, OPERATOR)
        meaning, sent = answer.meaning, None
        if answer.code == "230001" and "invalid receive_id" in str(answer.document.get("msg", "")).lower():
            meaning = GONE
        elif response.status == 429 or answer.code == "99991400":
            meaning = meaning.after(_reset(response))
        data = answer.document.get("data")
        if isinstance(data, dict) and isinstance(data.get("message_id"), str):
            sent = data["message_id"]
        return ApiAnswer(meaning=meaning, code=answer.code, text=answer.text, provider_id=sent)

    async def _issue(self, account: FeishuAccount) -> IssuedToken:
        response = await call(
            self._session,
            "POST",
            f"{account.url}/open-apis/auth/v3/tenant_access_token/internal",
            timeout=limits(account.timeout),
            headers={"Content-Type": "application/json; charset=utf-8"},
            data=json.dumps({"app_id": account.app_id, "app_secret": account.app_secret.get_secret_value()}).encode(),
        )
        document = parse_object(response.text)
        code, issued = document.get("code"), issued_token(document.get("tenant_access_token"), document.get("expire"))
        if issued is None or code != 0:
            raise no_token("Feishu", code if response.status < 500 else None, response)
        return issued


def _reset(response: ProviderResponse) -> float | None:
    """Seconds until the limit of an application's calls is reset."""
    value = response.headers.get("x-ogw-ratelimit-reset", "")
    return float(value) if value.isascii() and value.isdecimal() and len(value) < 6 else None


def _card(content: ChatContent) -> dict[str, object]:
    elements = [{"tag": "markdown", "content": shortened(content.text, MAX_TEXT)}] if content.text else []
    return {
        "config": {"wide_screen_mode": True},
        "header": {"title": {"tag": "plain_text", "content": content.title}},
        "elements": elements or [{"tag": "markdown", "content": content.escaped_title}],
    }
