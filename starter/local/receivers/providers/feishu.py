"""FakeFeishu: custom bots, tokens and messages of an application, as Feishu has them."""

import json
from typing import Any

from aiohttp import web

from starter.local.receivers.providers.fake import Answer, FakeProvider, Received


class FakeFeishu(FakeProvider):
    """A bot's messages have the recipient of its path; an application's that of `receive_id`."""

    app_id, app_secret = "cli_1", "feishu-secret"
    unauthorized = Answer(status=400, body={"code": 99991663, "msg": "Invalid access token"})

    def bot(self, name: str) -> str:
        """The URL of a group's custom bot."""
        return f"{self.url}/open-apis/bot/v2/hook/{name}"

    def add_routes(self, app: web.Application) -> None:
        app.router.add_post("/open-apis/bot/v2/hook/{name}", self._bot)
        app.router.add_post("/open-apis/auth/v3/tenant_access_token/internal", self.issuing(self._token))
        app.router.add_post("/open-apis/im/v1/messages", self.authorized(self._message))
        app.router.add_patch("/open-apis/im/v1/messages/{id}", self.authorized(self._change))
        app.router.add_delete("/open-apis/im/v1/messages/{id}", self.authorized(self._change))

    async def _bot(self, request: web.Request) -> web.StreamResponse:
        message = Received(recipient=request.match_info["name"], content=await request.json())
        return await self.answer(request, message, lambda _: {"code": 0, "msg": "success", "data": {}, "StatusCode": 0})

    async def _token(self, request: web.Request) -> web.StreamResponse:
        given = await request.json()
        if (given.get("app_id"), given.get("app_secret")) != (self.app_id, self.app_secret):
            return web.json_response({"code": 10003, "msg": "invalid param"})
        token = self.tokens.issue()
        return web.json_response({"code": 0, "tenant_access_token": token, "expire": int(self.tokens.life)})

    async def _message(self, request: web.Request) -> web.StreamResponse:
        given = await request.json()
        content = {**given, "card": json.loads(given["content"])}
        message = Received(recipient=given["receive_id"], content=content, key=given.get("uuid", ""))
        return await self.answer(request, message, lambda sent: {"code": 0, "data": {"message_id": f"om_{sent.id}"}})

    async def _change(self, request: web.Request) -> web.StreamResponse:
        """PATCH changes a card, DELETE takes a message back."""
        deletes = request.method == "DELETE"
        message = self.find(request.match_info["id"].removeprefix("om_"))
        if message is None:
            return web.json_response({"code": 230011, "msg": "The message was recalled."}, status=400)
        if message.id in self.too_old:
            return web.json_response({"code": 230009 if deletes else 230031, "msg": "too old"}, status=400)
        changes: dict[str, Any] = {"recalled": True}
        if not deletes:
            given = await request.json()
            changes = {
                "content": {**message.content, **given, "card": json.loads(given["content"])},
                "edits": message.edits + 1,
            }
        return await self.answer_change(request, message, lambda _: {"code": 0, "data": {}}, **changes)
