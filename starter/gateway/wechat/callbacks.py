"""WeChat's callbacks over HTTP: `/callbacks/wechat/{account}`.

WeChat repeats a callback that is not answered with `success` within five seconds.
"""

from collections.abc import Mapping
from typing import Any

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from bellwire.registry import Registry
from bellwire.service.settings import Settings
from starter.gateway.bodies import BodyTooLarge, read_body
from starter.gateway.wechat.accounts import CallbackAccount, callback_accounts
from starter.gateway.wechat.messages import MessageInvalid, items, parse, text_of
from starter.gateway.wechat.signatures import SignatureInvalid, decrypt, verify
from starter.operations.callbacks import wechat as operations

log = structlog.get_logger("bellwire")

CALLBACKS = "/callbacks/wechat"
#: Maximum bytes of a callback; WeChat's have about 1,000.
MAX_BODY = 64 * 1024
#: Longest text that WeChat asks to get back.
MAX_ECHO = 200


def routes(settings: Settings, registry: Registry) -> list[Route]:
    """The callbacks of the accounts that have a `callback_token`. Raises ValueError."""
    accounts = callback_accounts(settings)
    if not accounts:
        return []
    callbacks = WechatCallbacks(registry, accounts)
    return [
        Route(f"{CALLBACKS}/{{account}}", callbacks.echo, methods=["GET"]),
        Route(f"{CALLBACKS}/{{account}}", callbacks.receive, methods=["POST"]),
    ]


class WechatCallbacks:
    """Verifies signatures, and responds 403 without a valid one."""

    def __init__(self, registry: Registry, accounts: Mapping[str, CallbackAccount]) -> None:
        self._registry, self._accounts = registry, accounts

    async def echo(self, request: Request) -> Response:
        """WeChat asks once, when the URL is configured, and wants its text back."""
        account = self._accounts.get(request.path_params["account"])
        if account is None:
            return Response(status_code=404)
        try:
            verify(account.token, request.query_params)
        except SignatureInvalid:
            return Response(status_code=403)
        text = request.query_params.get("echostr", "")
        return (
            PlainTextResponse(text, headers={"X-Content-Type-Options": "nosniff"})
            if len(text) <= MAX_ECHO
            else Response(status_code=400)
        )

    async def receive(self, request: Request) -> Response:
        """An event. What is of no interest is answered with `success` too, or WeChat repeats it."""
        account = self._accounts.get(request.path_params["account"])
        if account is None:
            return Response(status_code=404)
        try:
            body = await read_body(request, MAX_BODY)
            message = _message(account, request.query_params, body)
        except BodyTooLarge:
            return Response(status_code=413)
        except (ClientDisconnect, MessageInvalid):
            return Response(status_code=400)
        except SignatureInvalid:
            return Response(status_code=403)
        known = await self._process(account.name, message)
        return PlainTextResponse("success") if known else Response(status_code=404)

    async def _process(self, account: str, message: Mapping[str, Any]) -> bool:
        """Whether it could be processed; False if its message is not known, perhaps not yet."""
        openid, event = text_of(message, "FromUserName"), text_of(message, "Event").lower()
        if text_of(message, "MsgType") != "event" or not openid:
            return True
        if event == "templatesendjobfinish":
            status = text_of(message, "Status")
            return await operations.record_template_result(
                self._registry, account, openid, text_of(message, "MsgID", "MsgId"), status
            )
        if event == "subscribe_msg_sent_event":
            results = [
                await operations.record_sent(
                    self._registry, account, openid, text_of(each, "MsgID", "MsgId"), text_of(each, "ErrorCode")
                )
                for each in items(message, "SubscribeMsgSentEvent")
            ]
            return all(results)
        if event in {"subscribe_msg_popup_event", "subscribe_msg_change_event"}:
            popup = event == "subscribe_msg_popup_event"
            for each in items(message, "SubscribeMsgPopupEvent" if popup else "SubscribeMsgChangeEvent"):
                await operations.record_choice(
                    self._registry,
                    account,
                    openid,
                    template_id=text_of(each, "TemplateId"),
                    choice=text_of(each, "SubscribeStatusString"),
                    created=text_of(message, "CreateTime"),
                    popup=popup,
                )
        elif event == "subscribe":
            await operations.followed(self._registry, account, openid)
        elif event == "unsubscribe":
            await operations.unfollowed(self._registry, account, openid)
        return True


def _message(account: CallbackAccount, query: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """The verified message. With a key, only an encrypted one is taken. Raises SignatureInvalid, MessageInvalid."""
    if account.key is None:
        verify(account.token, query)
        return parse(body)
    encrypted = text_of(parse(body), "Encrypt")
    verify(account.token, query, encrypted=encrypted)
    return parse(decrypt(account.key, encrypted, app_id=account.app_id))
