"""FakeWechat: stable tokens, messages of Official Accounts and mini programs, and the events about them, as WeChat has them."""

import re
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web

from starter.local.receivers.providers.fake import Answer, FakeProvider, Received
from starter.local.receivers.wechat_callbacks import WechatCallbacks

#: Seconds before a token's end from which the next one is issued.
OVERLAP = 300.0
NOT_GRANTED = 43101
#: Tokens by force in a day.
MAX_FORCED = 20


class FakeWechat(FakeProvider):
    """A message's recipient is its openid, its key the `client_msg_id`."""

    app_id, secret = "wx0123456789abcdef", "wechat-secret"
    unauthorized = Answer(
        body={"errcode": 40001, "errmsg": "invalid credential, access_token is invalid or not latest"}
    )

    def __init__(self) -> None:
        super().__init__()
        #: Messages that a user agreed to, by openid and template; users who are not in it agree to all.
        self.grants: dict[tuple[str, str], int] = {}
        #: Where the events go.
        self.callbacks = WechatCallbacks(self.app_id)
        #: What becomes of accepted messages, by openid: `success` unless it is here. Of those that need a grant, an error code.
        self.results: dict[str, str] = {}
        self.forced = 0
        self._issued_at = 0.0

    def add_routes(self, app: web.Application) -> None:
        app.router.add_post("/cgi-bin/stable_token", self.issuing(self._token))
        app.router.add_post("/cgi-bin/message/template/send", self.authorized(self._message))
        app.router.add_post("/cgi-bin/message/subscribe/bizsend", self.authorized(self._granted))
        app.router.add_post("/cgi-bin/message/subscribe/send", self.authorized(self._granted))

    async def __aexit__(self, *error: object) -> None:
        await self.callbacks.close()
        await super().__aexit__(*error)

    def choose(self, openid: str, choices: Mapping[str, str]) -> None:
        """A user answers a dialog: `accept` or `reject` by template."""
        for template, choice in choices.items():
            if choice == "accept":
                self.grants[openid, template] = self.grants.get((openid, template), 0) + 1
        self._send(openid, "SubscribeMsgPopupEvent", [{**each, "PopupScene": "0"} for each in _chosen(choices)])

    def change(self, openid: str, choices: Mapping[str, str]) -> None:
        """A user changes WeChat's settings: `accept` or `reject` by template."""
        for template, choice in choices.items():
            if choice == "reject":
                self.grants[openid, template] = 0
        self._send(openid, "SubscribeMsgChangeEvent", _chosen(choices))

    async def _token(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if body.get("grant_type") != "client_credential":
            return _error(40002, "invalid grant_type")
        if (body.get("appid"), body.get("secret")) != (self.app_id, self.secret):
            return _error(40125, "invalid appsecret")
        now = time.monotonic()
        if body.get("force_refresh"):
            self.forced += 1
            if self.forced > MAX_FORCED:
                return _error(45009, "reach max api daily quota limit")
            self.tokens.revoke()
        left = self._issued_at + self.tokens.life - now
        if not self.tokens.issued or body.get("force_refresh") or left <= OVERLAP:
            self.tokens.issue()
            self._issued_at, left = now, self.tokens.life
        return web.json_response({"access_token": self.tokens.issued[-1], "expires_in": int(left)})

    async def _granted(self, request: web.Request) -> web.StreamResponse:
        return await self._message(request, granted=True)

    async def _message(self, request: web.Request, *, granted: bool = False) -> web.StreamResponse:
        content = await request.json()
        if not isinstance(content.get("data"), dict) or not isinstance(content.get("touser"), str):
            return _error(40003, "invalid openid")
        grant = (content["touser"], content.get("template_id", ""))
        if granted and self.grants.get(grant, 1) < 1:
            return _error(NOT_GRANTED, "user refuse to accept the msg")
        if granted and grant in self.grants:
            self.grants[grant] -= 1
        message = Received(
            recipient=content["touser"],
            content=content,
            key=content.get("client_msg_id", ""),
            id=str(secrets.randbelow(2**62)),
        )
        response = await self.answer(
            request, message, lambda sent: {"errcode": 0, "errmsg": "ok", "msgid": int(sent.id)}
        )
        if self.callbacks.url and any(each is message for each in self.accepted):
            self.report(message, granted=granted)
        return response

    def report(self, message: Received, *, granted: bool = False) -> None:
        """Say what became of a message, which needed a grant or not."""
        result = self.results.get(message.recipient, "success")
        if granted:
            code = 0 if result == "success" else int(result)
            status = "success" if code == 0 else "user refuse to accept the msg"
            one = {"TemplateId": message.content.get("template_id", ""), "MsgID": int(message.id)}
            self._send(message.recipient, "SubscribeMsgSentEvent", [{**one, "ErrorCode": code, "ErrorStatus": status}])
        else:
            fields = {"MsgID": int(message.id), "Status": result}
            self.callbacks.send(message.recipient, "TEMPLATESENDJOBFINISH", fields)

    def _send(self, openid: str, name: str, items: Sequence[Mapping[str, Any]]) -> None:
        """Send an event with a `List`, which is an object if it has one member and an array if it has several."""
        event = re.sub("(?<!^)(?=[A-Z])", "_", name).lower()
        found = {"List": items[0] if len(items) == 1 else list(items)}
        self.callbacks.send(openid, event, found if self.callbacks.as_json else {name: found})


def _chosen(choices: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"TemplateId": template, "SubscribeStatusString": choice} for template, choice in choices.items()]


def _error(code: int, text: str) -> web.Response:
    body: dict[str, Any] = {"errcode": code, "errmsg": f"{text} rid: {secrets.token_hex(4)}"}
    return web.json_response(body)
