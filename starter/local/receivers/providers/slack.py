"""FakeSlack: incoming webhooks and chat.postMessage."""

import secrets

from aiohttp import web

from starter.local.receivers.providers.fake import FakeProvider, Received


class FakeSlack(FakeProvider):
    """POST /services/… is an incoming webhook, POST /api/chat.postMessage needs the bot's token."""

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
        app.router.add_post("/api/chat.postMessage", self._post_message)

    async def _hook(self, request: web.Request) -> web.StreamResponse:
        message = Received(recipient=request.match_info["name"], content=await request.json())
        return await self.answer(request, message, lambda _: "ok")

    async def _post_message(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.json_response({"ok": False, "error": "invalid_auth"})
        content = await request.json()
        message = Received(recipient=content["channel"], content=content)
        return await self.answer(
            request, message, lambda sent: {"ok": True, "channel": sent.recipient, "ts": f"1700000000.{sent.id}"}
        )
