"""FakeWechat: stable tokens, and messages of Official Accounts and mini programs, as WeChat has them."""

import hashlib
import secrets
import time
from typing import Any

import aiohttp
from aiohttp import web

from starter.local.receivers.providers.fake import FakeProvider, Received

#: Seconds before a token's end from which the next one is issued.
OVERLAP = 300.0
NOT_GRANTED = 43101
#: Tokens by force in a day.
MAX_FORCED = 20


class FakeWechat(FakeProvider):
    """A message's recipient is its openid, its key the `client_msg_id`."""

    app_id, secret = "wx0123456789abcdef", "wechat-secret"
    callback_token = "callback-token"  # noqa: S105 - of this fake only

    def __init__(self) -> None:
        super().__init__()
        #: Messages that a user agreed to, by openid and template; users who are not in it agree to all.
        self.grants: dict[tuple[str, str], int] = {}
        self.forced = 0
        self._issued_at = 0.0

    def add_routes(self, app: web.Application) -> None:
        app.router.add_post("/cgi-bin/stable_token", self.issuing(self._token))
        app.router.add_post("/cgi-bin/message/template/send", self._message)
        app.router.add_post("/cgi-bin/message/subscribe/bizsend", self._granted)
        app.router.add_post("/cgi-bin/message/subscribe/send", self._granted)

    async def call_back(self, url: str, xml: str, *, token: str | None = None, repeats: int = 1) -> list[int]:
        """Send a callback in plain mode, signed, and so many times. Returns the statuses."""
        statuses = []
        async with aiohttp.ClientSession() as session:
            for _ in range(repeats):
                signed = signed_query(token or self.callback_token)
                headers = {"Content-Type": "text/xml"}
                async with session.post(url, params=signed, data=xml.encode(), headers=headers) as response:
                    statuses.append(response.status)
        return statuses

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
        if not self.tokens.is_valid(request.query.get("access_token", "")):
            return _error(40001, "invalid credential, access_token is invalid or not latest")
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
        return await self.answer(request, message, lambda sent: {"errcode": 0, "errmsg": "ok", "msgid": int(sent.id)})


def signed_query(token: str, **more: str) -> dict[str, str]:
    """The query of a callback in plain mode."""
    timestamp, nonce = str(int(time.time())), secrets.token_hex(5)
    signature = hashlib.sha1("".join(sorted([token, timestamp, nonce])).encode()).hexdigest()  # noqa: S324 - WeChat's
    return {"signature": signature, "timestamp": timestamp, "nonce": nonce, **more}


def _error(code: int, text: str) -> web.Response:
    body: dict[str, Any] = {"errcode": code, "errmsg": f"{text} rid: {secrets.token_hex(4)}"}
    return web.json_response(body)
