"""FakeSlack: incoming webhooks, and messages that a bot posts, changes and deletes."""

import secrets

from aiohttp import web

from starter.local.receivers.providers.fake import Answer, FakeProvider, Received


class FakeSlack(FakeProvider):
    """POST /services/… is an incoming webhook, the methods of /api need the bot's token."""

    unauthorized = Answer(body={"ok": False, "error": "invalid_auth"})

    def __init__(self) -> None:
        super().__init__()
        self.token = f"xoxb-{secrets.token_hex(12)}"

    @property
    def api(self) -> str:
        """The base URL of the Web API."""
        return f"{self.url}/api"

    def webhook(self, name: str) -> str:
        """The URL of an incoming webhook; its messages have the recipient `name`."""
        return f"{self.url}/services/T0/B0/{name}"

    def add_routes(self, app: web.Application) -> None:
        app.router.add_post("/services/{team}/{bot}/{name}", self._hook)
        app.router.add_post("/api/chat.postMessage", self.authorized(self._post_message))
        app.router.add_post("/api/chat.update", self.authorized(self._change))
        app.router.add_post("/api/chat.delete", self.authorized(self._change))

    def is_authorized(self, request: web.Request) -> bool:
        return request.headers.get("Authorization") == f"Bearer {self.token}"

    async def _hook(self, request: web.Request) -> web.StreamResponse:
        message = Received(recipient=request.match_info["name"], content=await request.json())
        return await self.answer(request, message, lambda _: "ok")

    async def _post_message(self, request: web.Request) -> web.StreamResponse:
        content = await request.json()
        message = Received(recipient=content["channel"], content=content)
        return await self.answer(
            request, message, lambda sent: {"ok": True, "channel": sent.recipient, "ts": f"1700000000.{sent.id}"}
        )

    async def _change(self, request: web.Request) -> web.StreamResponse:
        given, deletes = await request.json(), request.path.endswith("delete")
        message = self.find(given["ts"].removeprefix("1700000000."))
        if message is None or message.recipient != given["channel"]:
            return web.json_response({"ok": False, "error": "message_not_found"})
        if message.id in self.too_old:
            return web.json_response({"ok": False, "error": f"cant_{'delete' if deletes else 'update'}_message"})
        changes = {"recalled": True} if deletes else {"content": given, "edits": message.edits + 1}
        done = {"ok": True, "channel": given["channel"], "ts": given["ts"]}
        return await self.answer_change(request, message, lambda _: done, **changes)
