"""FakeTelegram: sendMessage of a bot."""

import secrets

from aiohttp import web

from starter.local.receivers.providers.fake import FakeProvider, Received


class FakeTelegram(FakeProvider):
    """POST /bot<token>/sendMessage. `moved` has the new ids of chats by the old ones."""

    def __init__(self) -> None:
        super().__init__()
        self.token = f"123456:{secrets.token_hex(16)}"
        self.moved: dict[str, int] = {}

    def add_routes(self, app: web.Application) -> None:
        app.router.add_post("/bot{token}/sendMessage", self._send)

    async def _send(self, request: web.Request) -> web.StreamResponse:
        if request.match_info["token"] != self.token:
            return _refusal(401, "Unauthorized")
        content = await request.json()
        chat_id = str(content["chat_id"])
        if chat_id in self.moved:
            parameters = {"migrate_to_chat_id": self.moved[chat_id]}
            return _refusal(400, "Bad Request: group chat was upgraded to a supergroup chat", parameters=parameters)
        message = Received(recipient=chat_id, content=content)
        return await self.answer(request, message, self._sent)

    def _sent(self, message: Received) -> dict[str, object]:
        return {"ok": True, "result": {"message_id": self.accepted.index(message) + 1}}


def _refusal(code: int, description: str, **more: object) -> web.Response:
    return web.json_response({"ok": False, "error_code": code, "description": description, **more}, status=code)
