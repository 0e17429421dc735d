"""WecomChannel: the bots of groups, and messages of an application. developer.work.weixin.qq.com/document/path/90236"""

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

from activities.chat.account_channel import AccountChannel
from activities.chat.channel import HookPost
from activities.chat.content import ChatContent
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
    busy,
)
from activities.providers.http import ProviderResponse, provider_id_of
from activities.providers.parts import ProviderParts
from activities.providers.token_calls import ApiAnswer, answer_of, with_token
from activities.providers.token_requests import TokenRequest, tokens_by_account
from activities.rendering.text import shortened_bytes
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


class WecomChannel(AccountChannel[WecomTarget, WecomAccount]):
    """Posts to bots, and writes to members by the applications of accounts."""

    name = "WeCom"
    recall_window = timedelta(hours=24)

    def __init__(self, parts: ProviderParts, accounts: Mapping[str, WecomAccount]) -> None:
        super().__init__(parts, accounts)
        self._tokens = tokens_by_account(parts.session, parts.registry, "wecom", accounts, _token_request)

    def hook_post(self, target: WecomTarget, content: ChatContent) -> HookPost | None:
        message = written_to(target, content)
        return HookPost(url=target.webhook.get_secret_value(), message=message) if target.webhook else None

    def read_hook(self, response: ProviderResponse) -> ApiAnswer:
        return answer_of(response, "errcode", BOT_CODES)

    async def send(
        self, request: SendRequest, target: WecomTarget, account: WecomAccount, content: ChatContent
    ) -> ApiAnswer:
        answer = await self._ask(target, account, "send", _message(request, target, account, content))
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
        return replace(answer, provider_id=provider_id_of(answer.document.get("msgid")))

    async def recall(self, target: WecomTarget, account: WecomAccount, message_id: str) -> ApiAnswer:
        return await self._ask(target, account, "recall", {"msgid": message_id})

    async def _ask(
        self, target: WecomTarget, account: WecomAccount, what: str, message: Mapping[str, object]
    ) -> ApiAnswer:
        """Call an API of messages with the account's token."""

        async def ask(token: str) -> ApiAnswer:
            url, params = f"{account.url}/cgi-bin/message/{what}", {"access_token": token}
            return answer_of(await self.call(account, "POST", url, message, params=params), "errcode", CODES)

        return await with_token(self._tokens[target.account], ask)


def _token_request(account: WecomAccount) -> TokenRequest:
    return TokenRequest(
        name="WeCom",
        url=f"{account.url}/cgi-bin/gettoken",
        codes=CODES,
        timeout=account.timeout,
        query={"corpid": account.corp_id, "corpsecret": account.secret.get_secret_value()},
    )


def _ids(value: object) -> set[str]:
    """The ids of a list, or of a text with | between them. WeCom's ignore case."""
    found = value if isinstance(value, list) else re.split(r"[|,]", str(value or ""))
    return {str(each).strip().casefold() for each in found}


def written_to(target: WecomTarget, content: ChatContent) -> dict[str, object]:
    """What a bot writes, which is markdown, or an application: a text, which members read in WeCom and in WeChat."""
    if target.webhook is not None:
        text = shortened_bytes(f"**{content.escaped_title}**\n{content.text}", MAX_MARKDOWN)
        return {"msgtype": "markdown", "markdown": {"content": text}}
    return {"msgtype": "text", "text": {"content": shortened_bytes(content.whole, MAX_TEXT)}}


def _message(
    request: SendRequest, target: WecomTarget, account: WecomAccount, content: ChatContent
) -> dict[str, object]:
    """A message of an application. WeCom compares whole requests to find duplicates: with this key, two
    deliveries of the same text are two messages, and so is a redelivery, but two attempts are one.
    """
    to = {"touser": target.user, "toparty": target.party, "totag": target.tag}
    return {
        **{name: value for name, value in to.items() if value is not None},
        "agentid": account.agent_id,
        **written_to(target, content),
        "enable_duplicate_check": 1,
        "duplicate_check_interval": DUPLICATE_SECONDS,
        "delivery": request.repetition_key,
    }
