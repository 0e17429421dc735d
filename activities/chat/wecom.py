"""WecomChannel: the bots of groups, and messages of an application. developer.work.weixin.qq.com/document/path/90236"""

import json
import re
from collections.abc import Mapping
from functools import partial

import aiohttp

from activities.chat.content import ChatContent, chat_content
from activities.providers.accounts import WecomAccount
from activities.providers.answers import (
    CONTENT,
    DELIVERED,
    GONE,
    HOOK_GONE,
    OPERATOR,
    RENEW,
    TRANSIENT,
    Meaning,
    blocked,
    busy,
    outcome_of,
    suppressed_outcome,
)
from activities.providers.hooks import HookFailed, Hooks
from activities.providers.http import call, limits, parse_object
from activities.providers.token_calls import ApiAnswer, answer_of, outcome_of_call, with_token
from activities.providers.tokens import IssuedToken, Tokens, issued_token, no_token
from activities.rendering.renderer import Renderer
from activities.rendering.text import shortened_bytes
from bellwire.deliveries import Outcome
from bellwire.errors import TemplateInvalid
from bellwire.registry import Registry
from bellwire.sends import SendRequest
from bellwire.targets import WecomTarget

#: Bytes of a bot's markdown, and of an application's text.
MAX_MARKDOWN, MAX_TEXT = 4_096, 2_048
#: Seconds in which WeCom does not send the same request twice.
DUPLICATE_SECONDS = 4 * 3600

#: What each errcode means; others are the operator's. developer.work.weixin.qq.com/document/path/90313
CODES: Mapping[int, Meaning] = {
    0: DELIVERED,
    -1: TRANSIENT,
    **dict.fromkeys((40014, 42001), RENEW),
    **dict.fromkeys((40003, 50002, 60111, 81013, 82001), GONE),
    **dict.fromkeys((45002, 40008, 44004), CONTENT),
    # Calls within a minute, and calls at a time.
    **dict.fromkeys((45009, 45033), busy(65)),
}
#: The same for bots: their key is the whole credential.
BOT_CODES: Mapping[int, Meaning] = {**CODES, 93000: HOOK_GONE, 40014: OPERATOR, 42001: OPERATOR}


class WecomChannel:
    """Posts to bots through `hooks`, and writes to members by the applications of `accounts`."""

    def __init__(
        self,
        hooks: Hooks,
        session: aiohttp.ClientSession,
        renderer: Renderer,
        accounts: Mapping[str, WecomAccount],
        registry: Registry,
    ) -> None:
        self._hooks, self._session, self._renderer, self._accounts = hooks, session, renderer, accounts
        self._tokens = {
            name: Tokens(registry, "wecom", name, partial(self._issue, account)) for name, account in accounts.items()
        }

    async def attempt(self, request: SendRequest) -> Outcome:
        """Send the message once. Whatever WeCom does is an outcome, never an exception."""
        target = request.subscription.target
        assert isinstance(target, WecomTarget)
        if outcome := suppressed_outcome(request):
            return outcome
        try:
            content = await chat_content(self._renderer, request)
        except TemplateInvalid as error:
            return blocked(str(error))
        if target.webhook is not None:
            return await self._post_bot(request, target.webhook.get_secret_value(), content)
        account = self._accounts.get(target.account)
        if account is None:
            return blocked(f"no WeCom account {target.account}", f"add [wecom.{target.account}] to BELLWIRE_ACCOUNTS")
        message = _message(request, target, account, content)
        send = partial(self._send, account, target, message)
        return await outcome_of_call("WeCom", request, lambda: with_token(self._tokens[target.account], send))

    async def _post_bot(self, request: SendRequest, url: str, content: ChatContent) -> Outcome:
        text = shortened_bytes(f"**{content.escaped_title}**\n{content.text}", MAX_MARKDOWN)
        try:
            response = await self._hooks.post(
                url, {"msgtype": "markdown", "markdown": {"content": text}}, delivery=request.id
            )
        except HookFailed as failure:
            return failure.outcome
        answer = answer_of(response, "errcode", BOT_CODES, OPERATOR)
        code = answer.code
        return outcome_of(answer.meaning, f"WeCom {code}", request, response=answer.text)

    async def _send(
        self, account: WecomAccount, target: WecomTarget, message: Mapping[str, object], token: str
    ) -> ApiAnswer:
        response = await call(
            self._session,
            "POST",
            f"{account.url}/cgi-bin/message/send",
            timeout=limits(account.timeout),
            headers={"Content-Type": "application/json"},
            params={"access_token": token},
            data=json.dumps(message, ensure_ascii=False).encode(),
        )
        answer = answer_of(response, "errcode", CODES, OPERATOR)
        if answer.meaning is not DELIVERED:
            return answer
        # It says 0 also if the one member that it was for does not exist, or has no licence.
        for field, given, meaning in (
            ("invaliduser", target.user, GONE),
            ("unlicenseduser", target.user, OPERATOR),
            ("invalidparty", target.party, HOOK_GONE),
            ("invalidtag", target.tag, HOOK_GONE),
        ):
            if given is not None and given.casefold() in _ids(answer.document.get(field)):
                return ApiAnswer(meaning=meaning, code=field, text=answer.text)
        sent = answer.document.get("msgid")
        return ApiAnswer(
            meaning=DELIVERED, code="0", text=answer.text, provider_id=sent if isinstance(sent, str) else None
        )

    async def _issue(self, account: WecomAccount) -> IssuedToken:
        response = await call(
            self._session,
            "GET",
            f"{account.url}/cgi-bin/gettoken",
            timeout=limits(account.timeout),
            headers={},
            params={"corpid": account.corp_id, "corpsecret": account.secret.get_secret_value()},
            shown=f"{account.url}/cgi-bin/gettoken",
        )
        document = parse_object(response.text)
        issued = issued_token(document.get("access_token"), document.get("expires_in"))
        if issued is None:
            raise no_token("WeCom", document.get("errcode"), response)
        return issued


def _ids(value: object) -> set[str]:
    """The ids of a list, or of a text with | between them. WeCom's ignore case."""
    found = value if isinstance(value, list) else re.split(r"[|,]", str(value or ""))
    return {str(each).strip().casefold() for each in found}


def _message(
    request: SendRequest, target: WecomTarget, account: WecomAccount, content: ChatContent
) -> dict[str, object]:
    """A text, which members read in WeCom and in WeChat. WeCom compares whole requests to find duplicates: with the delivery's
    id, two deliveries of the same text are two messages, and two attempts are one.
    """
    to = {"touser": target.user, "toparty": target.party, "totag": target.tag}
    return {
        **{name: value for name, value in to.items() if value is not None},
        "msgtype": "text",
        "agentid": account.agent_id,
        "text": {"content": shortened_bytes(f"{content.title}\n{content.text}".strip(), MAX_TEXT)},
        "enable_duplicate_check": 1,
        "duplicate_check_interval": DUPLICATE_SECONDS,
        "delivery": request.id,
    }
