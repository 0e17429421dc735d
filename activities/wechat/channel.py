"""WechatChannel: messages of Official Accounts and mini programs. developers.weixin.qq.com/doc

WeChat's 0 says that a message was accepted. What became of it comes later, to the gateway.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from activities.providers.accounts import WechatAccount
from activities.providers.answers import DELIVERED, blocked, no_account, outcome_of, suppressed_outcome
from activities.providers.http import call, limits, provider_id_of
from activities.providers.parts import ProviderParts
from activities.providers.token_calls import ApiAnswer, answer_of, outcome_of_call, with_token
from activities.providers.tokens import Tokens
from activities.wechat.codes import CODES, DAY_QUOTA, NO_GRANT, NOT_GRANTED, REPEATED, until_next_day
from activities.wechat.fields import fields_of
from activities.wechat.tokens import WechatTokens
from bellwire.deliveries import DeliveryState, Outcome, OutcomeKind
from bellwire.errors import RegistryUnavailable, TemplateInvalid
from bellwire.registry.providers.wechat_grants import Grantee
from bellwire.sends import SendRequest
from bellwire.targets import WechatKind, WechatTarget

#: Where each kind is sent.
PATHS: Mapping[WechatKind, str] = {
    WechatKind.TEMPLATE: "/cgi-bin/message/template/send",
    WechatKind.SUBSCRIPTION: "/cgi-bin/message/subscribe/bizsend",
    WechatKind.MINIPROGRAM: "/cgi-bin/message/subscribe/send",
}
#: Longest client_msg_id, in bytes. WeChat drops a second message with the same one for ten minutes.
MAX_CLIENT_ID = 64
#: Reasons of attempts that may have sent the message: no response, one without a code, and a 0 with the status of a failure.
_AMBIGUOUS = re.compile(r"WeChat(:| (2[0-9]{2}|0)$)", re.ASCII)


class WechatChannel:
    """Sends by the `accounts` of the operator. `clock` says when the quotas of a day begin again."""

    def __init__(
        self,
        parts: ProviderParts,
        accounts: Mapping[str, WechatAccount],
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._parts = parts
        self._accounts, self._clock = accounts, clock
        self._issuers = {name: WechatTokens(parts.session, account) for name, account in accounts.items()}
        self._tokens = {
            name: Tokens(parts.registry, "wechat", accounts[name].row_of_token(name), each.issue)
            for name, each in self._issuers.items()
        }

    async def attempt(self, request: SendRequest) -> Outcome:
        """Send the message once. Whatever WeChat does is an outcome, never an exception."""
        target = request.subscription.target
        assert isinstance(target, WechatTarget)
        if outcome := suppressed_outcome(request):
            return outcome
        try:
            fields = fields_of(await self._parts.renderer.text(request, "wechat.json"))
        except TemplateInvalid as error:
            return blocked(str(error))
        account = self._accounts.get(target.account)
        if account is None:
            return no_account("WeChat", target.account)
        # Only callbacks tell what users agree to.
        grantee = Grantee(target.account, target.openid, target.template_id)
        is_counted = target.kind.needs_grant and account.callback_token is not None
        if is_counted and await self._parts.registry.wechat_grants.get(grantee) == 0:
            return outcome_of(NO_GRANT, "no grant", request)
        send = partial(self._send, request, target, _message(request, target, fields))
        outcome = await outcome_of_call("WeChat", request, with_token(self._tokens[target.account], send))
        if is_counted:
            # The message is out: that it is not counted must not send it again.
            with suppress(RegistryUnavailable):
                await self._count(grantee, outcome, long_term=target.long_term)
        return outcome

    async def _count(self, grantee: Grantee, outcome: Outcome, *, long_term: bool) -> None:
        if outcome.reason == f"WeChat {NOT_GRANTED}":
            await self._parts.registry.wechat_grants.clear(grantee)
        elif outcome.kind is OutcomeKind.DELIVERED and not long_term:
            await self._parts.registry.wechat_grants.spend(grantee)

    async def _send(
        self, request: SendRequest, target: WechatTarget, message: Mapping[str, object], token: str
    ) -> ApiAnswer:
        account = self._accounts[target.account]
        response = await call(
            self._parts.session,
            "POST",
            f"{account.url}{PATHS[target.kind]}",
            timeout=limits(account.timeout),
            headers={"Content-Type": "application/json"},
            params={"access_token": token},
            data=json.dumps(message, ensure_ascii=False).encode(),
        )
        answer = answer_of(response, "errcode", CODES)
        if answer.meaning.renew:
            self._issuers[target.account].rejected = token
        elif answer.code == str(DAY_QUOTA):
            return replace(answer, meaning=answer.meaning.after(until_next_day(self._clock())))
        elif answer.code == str(REPEATED) and _may_have_been_sent(request):
            return replace(answer, meaning=DELIVERED)
        elif answer.meaning is DELIVERED:
            return replace(answer, provider_id=provider_id_of(answer.document.get("msgid")))
        return answer


def _may_have_been_sent(request: SendRequest) -> bool:
    """Whether the response to the last attempt was lost, or the attempt was interrupted."""
    delivery = request.delivery
    return delivery.state is DeliveryState.SENDING or _AMBIGUOUS.match(delivery.reason) is not None


def _message(request: SendRequest, target: WechatTarget, fields: Mapping[str, object]) -> dict[str, object]:
    message: dict[str, object] = {"touser": target.openid, "template_id": target.template_id, "data": fields}
    if target.page is not None:
        message["page"] = target.page
    if target.kind is WechatKind.MINIPROGRAM:
        return {**message, "lang": "zh_CN" if request.subscription.locale.lower().startswith("zh") else "en_US"}
    if target.url is not None:
        message["url"] = target.url
    return {**message, "client_msg_id": client_id(request.id)} if target.kind is WechatKind.TEMPLATE else message


def client_id(delivery_id: str) -> str:
    """The id by which WeChat finds a repeated message: the delivery's, or its hash if that is too long."""
    if len(delivery_id) <= MAX_CLIENT_ID:
        return delivery_id
    return hashlib.sha256(delivery_id.encode()).hexdigest()
