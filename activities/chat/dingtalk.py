"""DingtalkChannel: robots of groups, and work notices of an application. open.dingtalk.com/document

A work notice is only accepted when it is sent. The next attempts ask what became of it.
"""

import base64
import hashlib
import hmac
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from activities.chat.account_channel import AccountChannel
from activities.chat.channel import HookPost
from activities.chat.content import ChatContent
from activities.providers.accounts import DingtalkAccount
from activities.providers.answers import CONTENT, DELIVERED, GONE, HOOK_GONE, RENEW, TRANSIENT, Meaning, busy
from activities.providers.http import ProviderResponse, object_in, provider_id_of
from activities.providers.parts import ProviderParts
from activities.providers.token_calls import ApiAnswer, answer_of, with_token
from activities.providers.token_requests import TokenRequest, tokens_by_account
from activities.rendering.text import shortened, shortened_bytes
from bellwire.deliveries import Fault, Outcome, OutcomeKind
from bellwire.sends import SendRequest
from bellwire.targets import DingtalkTarget

#: Characters of a title, and bytes of a robot's text and of a notice's.
MAX_TITLE, MAX_TEXT = 64, 5_000
#: Seconds after which the result of a work notice is asked for.
RESULT_SECONDS = 30.0
#: Attempts, the sending one included, after which a notice whose result is not known counts as delivered.
MAX_ASKED = 4
#: What the provider id of a notice begins with.
_TASK = "task/"

#: What each errcode means; others are the operator's.
CODES: Mapping[int, Meaning] = {
    0: DELIVERED,
    **dict.fromkeys((-1, 34015), TRANSIENT),
    **dict.fromkeys((40014, 42001), RENEW),
    33012: GONE,
    34016: CONTENT,
    **dict.fromkeys((143103, 143104, 90018), busy(60)),
}
#: The same for robots. 130101: more than 20 messages in a minute, after which all are refused for ten.
ROBOT_CODES: Mapping[int, Meaning] = {0: DELIVERED, -1: TRANSIENT, 34016: CONTENT, 130101: busy(600)}
#: Lists of recipients in the result of a notice, with what it means to be in one.
RESULTS: Mapping[str, tuple[str, Meaning]] = {
    "invalid_user_id_list": ("invalid", GONE),
    "invalid_dept_id_list": ("invalid", HOOK_GONE),
    # Over the limit of a day, or the same content as an earlier notice of this day.
    "forbidden_user_id_list": ("forbidden", CONTENT),
    "forbidden_list": ("forbidden", CONTENT),
    "failed_user_id_list": ("failed", Meaning(kind=OutcomeKind.REJECTED, fault=Fault.PROVIDER)),
    "read_user_id_list": ("read", DELIVERED),
    "unread_user_id_list": ("unread", DELIVERED),
}
_ACCEPTED = Meaning(kind=OutcomeKind.DEFERRED, wait=RESULT_SECONDS)


def sign(secret: str, timestamp: int) -> str:
    """The signature of a robot's call, ready for a query. `timestamp` is in milliseconds."""
    digest = hmac.new(secret.encode(), f"{timestamp}\n{secret}".encode(), hashlib.sha256).digest()
    return quote(base64.b64encode(digest).decode(), safe="")


class DingtalkChannel(AccountChannel[DingtalkTarget, DingtalkAccount]):
    """Posts to robots, and sends work notices by the applications of accounts."""

    name = "DingTalk"
    recall_window = timedelta(hours=24)

    def __init__(
        self, parts: ProviderParts, accounts: Mapping[str, DingtalkAccount], *, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(parts, accounts)
        self._clock = clock
        self._tokens = tokens_by_account(parts.session, parts.registry, "dingtalk", accounts, _token_request)

    async def attempt(self, request: SendRequest) -> Outcome:
        """Send the message, or ask what became of it. Whatever DingTalk does is an outcome, never an exception."""
        outcome = await super().attempt(request)
        if (task := _sent(request)) is None:
            return outcome
        # Whatever came of asking, the notice was sent, and the next attempt asks again. Without one, it counts as delivered.
        if outcome.kind in {OutcomeKind.DEFERRED, OutcomeKind.UNKNOWN} and not request.seconds_left:
            outcome = Outcome(kind=OutcomeKind.DELIVERED, reason="DingTalk sent", response=outcome.response)
        return outcome.model_copy(update={"provider_id": f"{_TASK}{task}"})

    def hook_post(self, target: DingtalkTarget, content: ChatContent) -> HookPost | None:
        if target.webhook is None:
            return None
        url = target.webhook.get_secret_value()
        if target.secret is not None:
            now = int(self._clock() * 1000)
            url = f"{url}{'&' if '?' in url else '?'}timestamp={now}&sign={sign(target.secret.get_secret_value(), now)}"
        return HookPost(url=url, message=markdown_of(content))

    def read_hook(self, response: ProviderResponse) -> ApiAnswer:
        return answer_of(response, "errcode", ROBOT_CODES)

    async def send(
        self, request: SendRequest, target: DingtalkTarget, account: DingtalkAccount, content: ChatContent
    ) -> ApiAnswer:
        if task := _sent(request):
            return await self._ask_result(target, account, task, last=request.schedule_step >= MAX_ASKED)
        to = {"userid_list": target.user} if target.user else {"dept_id_list": target.department}
        answer = await self._ask(target, account, "asyncsend_v2", {**to, "msg": markdown_of(content)})
        sent = provider_id_of(answer.document.get("task_id"))
        if answer.meaning is not DELIVERED or sent is None:
            return answer
        # Without another attempt, nothing could ask what became of it.
        meaning = _ACCEPTED if request.seconds_left else DELIVERED
        return replace(answer, meaning=meaning, code="accepted", provider_id=f"{_TASK}{sent}")

    async def _ask_result(
        self, target: DingtalkTarget, account: DingtalkAccount, task: str, *, last: bool
    ) -> ApiAnswer:
        """What became of a notice. A user who has read it, or has it unread, has got it."""
        answer = await self._ask(target, account, "getsendresult", {"task_id": _number(task)})
        if answer.meaning is not DELIVERED:
            return answer
        result = object_in(answer.document, "send_result")
        to = str(target.user or target.department)
        for field, (code, meaning) in RESULTS.items():
            if to in _ids(result.get(field)):
                return replace(answer, meaning=meaning, code=code)
        known = target.department is not None and any(
            result.get(field) for field in ("read_user_id_list", "unread_user_id_list")
        )
        if known or last:
            return replace(answer, code="sent")
        return replace(answer, meaning=_ACCEPTED, code="accepted")

    async def recall(self, target: DingtalkTarget, account: DingtalkAccount, message_id: str) -> ApiAnswer:
        return await self._ask(target, account, "recall", {"msg_task_id": _number(message_id.removeprefix(_TASK))})

    async def _ask(
        self, target: DingtalkTarget, account: DingtalkAccount, what: str, content: Mapping[str, object]
    ) -> ApiAnswer:
        """Call an API of work notices with the account's token."""
        url = f"{account.url}/topapi/message/corpconversation/{what}"
        message = {"agent_id": account.agent_id, **content}

        async def ask(token: str) -> ApiAnswer:
            response = await self.call(account, "POST", url, message, params={"access_token": token})
            answer = answer_of(response, "errcode", CODES)
            if answer.code != "88":
                return answer
            # The code of the gateway in front: what it refused, such as the token, is in the sub code.
            sub = str(answer.document.get("sub_code"))
            found = CODES.get(int(sub), DELIVERED) if re.fullmatch("[0-9]{1,9}", sub, re.ASCII) else DELIVERED
            return answer if found is DELIVERED else replace(answer, meaning=found, code=f"88 {sub}")

        return await with_token(self._tokens[target.account], ask)


def _token_request(account: DingtalkAccount) -> TokenRequest:
    return TokenRequest(
        name="DingTalk",
        url=f"{account.url}/gettoken",
        codes=CODES,
        timeout=account.timeout,
        query={"appkey": account.app_key, "appsecret": account.app_secret.get_secret_value()},
    )


def _number(task: str) -> int | str:
    return int(task) if task.isdecimal() else task


def _sent(request: SendRequest) -> str | None:
    """The task of the notice that an earlier attempt sent."""
    sent = request.delivery.provider_id or ""
    # An attempt that `retry_now` asks for advances no schedule, but is a later one all the same.
    is_later = request.number > request.delivery.schedule_from + 1
    return sent.removeprefix(_TASK) if sent.startswith(_TASK) and is_later else None


def _ids(value: Any) -> set[str]:
    """The ids of a list, whose members are ids or objects that have one."""
    found = value if isinstance(value, list) else ()
    return {str(each.get("userid") if isinstance(each, dict) else each) for each in found}


def markdown_of(content: ChatContent) -> dict[str, object]:
    """The message as it is sent to robots and in notices."""
    text = f"#### {content.escaped_title}\n\n" + content.text.replace("\n", "\n\n")
    markdown = {"title": shortened(content.escaped_title, MAX_TITLE), "text": shortened_bytes(text, MAX_TEXT)}
    return {"msgtype": "markdown", "markdown": markdown}
