"""DingtalkChannel: robots of groups, and work notices of an application. open.dingtalk.com/document

A work notice is only accepted when it is sent. The next attempts ask what became of it.
"""

import base64
import hashlib
import hmac
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import quote

import aiohttp

from activities.chat.content import ChatContent, chat_content
from activities.providers.accounts import DingtalkAccount
from activities.providers.answers import (
    CONTENT,
    DELIVERED,
    GONE,
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
from activities.rendering.text import shortened, shortened_bytes
from bellwire.deliveries import Fault, Outcome, OutcomeKind
from bellwire.errors import TemplateInvalid
from bellwire.registry import Registry
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

_ACCEPTED = Meaning(kind=OutcomeKind.DEFERRED, wait=RESULT_SECONDS)


def sign(secret: str, timestamp: int) -> str:
    """The signature of a robot's call, ready for a query. `timestamp` is in milliseconds."""
    digest = hmac.new(secret.encode(), f"{timestamp}\n{secret}".encode(), hashlib.sha256).digest()
    return quote(base64.b64encode(digest).decode(), safe="")


class DingtalkChannel:
    """Posts to robots through `hooks`, and sends work notices by the applications of `accounts`."""

    def __init__(
        self,
        hooks: Hooks,
        session: aiohttp.ClientSession,
        renderer: Renderer,
        accounts: Mapping[str, DingtalkAccount],
        registry: Registry,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._hooks, self._session, self._renderer, self._accounts = hooks, session, renderer, accounts
        self._clock = clock
        self._tokens = {
            name: Tokens(registry, "dingtalk", name, partial(self._issue, account))
            for name, account in accounts.items()
        }

    async def attempt(self, request: SendRequest) -> Outcome:
        """Send the message, or ask what became of it. Whatever DingTalk does is an outcome, never an exception."""
        target = request.subscription.target
        assert isinstance(target, DingtalkTarget)
        if outcome := suppressed_outcome(request):
            return outcome
        try:
            content = await chat_content(self._renderer, request)
        except TemplateInvalid as error:
            return blocked(str(error))
        if target.webhook is not None:
            return await self._post_robot(request, target, content)
        account = self._accounts.get(target.account)
        if account is None:
            remedy = f"add [dingtalk.{target.account}] to BELLWIRE_ACCOUNTS"
            return blocked(f"no DingTalk account {target.account}", remedy)
        tokens, sent = self._tokens[target.account], request.delivery.provider_id or ""
        if sent.startswith(_TASK) and request.schedule_step:
            ask = partial(self._ask, account, target, sent.removeprefix(_TASK), last=request.schedule_step >= MAX_ASKED)
            outcome = await outcome_of_call("DingTalk", request, lambda: with_token(tokens, ask))
            # Whatever came of asking, the notice was sent, and the next attempt asks again.
            return outcome.model_copy(update={"provider_id": sent})
        schedule = request.subscription.retry_schedule
        only = schedule is not None and request.schedule_step >= len(schedule)
        send = partial(self._send, account, target, content, only=only)
        return await outcome_of_call("DingTalk", request, lambda: with_token(tokens, send))

    async def _post_robot(self, request: SendRequest, target: DingtalkTarget, content: ChatContent) -> Outcome:
        assert target.webhook is not None
        url = target.webhook.get_secret_value()
        if target.secret is not None:
            now = int(self._clock() * 1000)
            url = f"{url}&timestamp={now}&sign={sign(target.secret.get_secret_value(), now)}"
        try:
            response = await self._hooks.post(url, _markdown(content), delivery=request.id)
        except HookFailed as failure:
            return failure.outcome
        answer = answer_of(response, "errcode", ROBOT_CODES, OPERATOR)
        code = answer.code
        return outcome_of(answer.meaning, f"DingTalk {code}", request, response=answer.text)

    async def _send(
        self, account: DingtalkAccount, target: DingtalkTarget, content: ChatContent, token: str, *, only: bool
    ) -> ApiAnswer:
        """Send a notice. `only`: no attempt follows that could ask what became of it."""
        to = {"userid_list": target.user} if target.user else {"dept_id_list": target.department}
        notice = {"agent_id": account.agent_id, **to, "msg": _markdown(content)}
        answer = await self._post(account, "message/corpconversation/asyncsend_v2", notice, token)
        task = answer.document.get("task_id")
        if answer.meaning is not DELIVERED or not isinstance(task, int | str) or isinstance(task, bool):
            return answer
        meaning = DELIVERED if only else _ACCEPTED
        return ApiAnswer(meaning=meaning, code="accepted", text=answer.text, provider_id=f"{_TASK}{task}")

    async def _ask(
        self, account: DingtalkAccount, target: DingtalkTarget, task: str, token: str, *, last: bool
    ) -> ApiAnswer:
        """What became of a notice. A user who has read it, or has it unread, has got it."""
        query = {"agent_id": account.agent_id, "task_id": int(task) if task.isdecimal() else task}
        answer = await self._post(account, "message/corpconversation/getsendresult", query, token)
        found = answer.document.get("send_result")
        result: Mapping[str, Any] = found if isinstance(found, dict) else {}
        provider_id = f"{_TASK}{task}"
        if answer.meaning is not DELIVERED:
            return ApiAnswer(meaning=answer.meaning, code=answer.code, text=answer.text, provider_id=provider_id)
        to = str(target.user or target.department)
        for field, (code, meaning) in _RESULTS.items():
            if to in _ids(result.get(field)):
                return ApiAnswer(meaning=meaning, code=code, text=answer.text, provider_id=provider_id)
        known = target.department is not None and any(
            result.get(field) for field in ("read_user_id_list", "unread_user_id_list")
        )
        if known or last:
            return ApiAnswer(meaning=DELIVERED, code="sent", text=answer.text, provider_id=provider_id)
        return ApiAnswer(meaning=_ACCEPTED, code="accepted", text=answer.text, provider_id=provider_id)

    async def _post(self, account: DingtalkAccount, path: str, content: Mapping[str, object], token: str) -> ApiAnswer:
        response = await call(
            self._session,
            "POST",
            f"{account.url}/topapi/{path}",
            timeout=limits(account.timeout),
            headers={"Content-Type": "application/json"},
            params={"access_token": token},
            data=json.dumps(content, ensure_ascii=False).encode(),
        )
        answer = answer_of(response, "errcode", CODES, OPERATOR)
        if answer.code == "88":
            # The code of the gateway in front: what it refused, such as the token, is in the sub code.
            sub = str(answer.document.get("sub_code"))
            found = CODES.get(int(sub)) if re.fullmatch("[0-9]{1,9}", sub, re.ASCII) else None
            if found is not None and found is not DELIVERED:
                return replace(answer, meaning=found.after(response.retry_after), code=f"88 {sub}")
        return answer

    async def _issue(self, account: DingtalkAccount) -> IssuedToken:
        response = await call(
            self._session,
            "GET",
            f"{account.url}/gettoken",
            timeout=limits(account.timeout),
            headers={},
            params={"appkey": account.app_key, "appsecret": account.app_secret.get_secret_value()},
            shown=f"{account.url}/gettoken",
        )
        document = parse_object(response.text)
        issued = issued_token(document.get("access_token"), document.get("expires_in"))
        if issued is None:
            raise no_token("DingTalk", document.get("errcode"), response)
        return issued


#: Lists of recipients in the result of a notice, with what it means to be in one.
_RESULTS: Mapping[str, tuple[str, Meaning]] = {
    "invalid_user_id_list": ("invalid", GONE),
    "invalid_dept_id_list": ("invalid", Meaning(kind=OutcomeKind.REJECTED, fault=Fault.RECEIVER, disable=True)),
    # Over the limit of a day, or the same content as an earlier notice of this day.
    "forbidden_user_id_list": ("forbidden", CONTENT),
    "forbidden_list": ("forbidden", CONTENT),
    "failed_user_id_list": ("failed", Meaning(kind=OutcomeKind.REJECTED, fault=Fault.PROVIDER)),
    "read_user_id_list": ("read", DELIVERED),
    "unread_user_id_list": ("unread", DELIVERED),
}


def _ids(value: Any) -> set[str]:
    """The ids of a list, whose members are ids or objects that have one."""
    found = value if isinstance(value, list) else ()
    return {str(each.get("userid") if isinstance(each, dict) else each) for each in found}


def _markdown(content: ChatContent) -> dict[str, object]:
    text = f"#### {content.escaped_title}\n\n" + content.text.replace("\n", "\n\n")
    markdown = {"title": shortened(content.escaped_title, MAX_TITLE), "text": shortened_bytes(text, MAX_TEXT)}
    return {"msgtype": "markdown", "markdown": markdown}
