"""FakeTelegram: messages that a bot sends, changes and deletes."""

import secrets

from aiohttp import web

from starter.local.receivers.providers.fake import FakeProvider, Received


class FakeTelegram(FakeProvider):
    """POST /bot<token>/sendMessage and others. `moved` has the new ids of chats by the old ones."""

    def __init__(self) -> None:
        super().__init__()
        self.token = f"123456:{secrets.token_hex(16)}"
        self.moved: dict[str, int] = {}

    def add_routes(self, app: web.Application) -> None:
        app.router.add_post("/bot{token}/sendMessage", self._send)
        app.router.add_post("/bot{token}/editMessageText", self._edit)
        app.router.add_post("/bot{token}/deleteMessage", self._delete)

    async def _send(self, request: web.Request) -> web.StreamResponse:
        if request.match_info["token"] != self.token:
            return _refusal(401, "Unauthorized")
        content = await request.json()
        chat_id = str(content["chat_id"])
        if chat_id in self.moved:
            parameters = {"migrate_to_chat_id": self.moved[chat_id]}
            return _refusal(400, "Bad Request: group chat was upgraded to a supergroup chat", parameters=parameters)
        # In another chat, the same number is another message.
        number = 1 + sum(each.recipient == chat_id for each in self.accepted)
        message = Received(recipient=chat_id, content=content, id=f"{chat_id}/{number}")
        return await self.answer(request, message, lambda _: {"ok": True, "result": {"message_id": number}})

    async def _edit(self, request: web.Request) -> web.StreamResponse:
        given = await request.json()
        message = self.find(f"{given['chat_id']}/{given['message_id']}")
        if message is None:
            return _refusal(400, "Bad Request: message to edit not found")
        if message.id in self.too_old:
            return _refusal(400, "Bad Request: message can't be edited")
        if message.content["text"] == given["text"]:
            return _refusal(400, "Bad Request: message is not modified: specified new message content is the same")
        return await self.respond(
            request,
            message,
            lambda _: {"ok": True, "result": {"message_id": given["message_id"]}},
            accept=lambda sent: self.alter(sent, content=given, edits=sent.edits + 1),
        )

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        given = await request.json()
        message = self.find(f"{given['chat_id']}/{given['message_id']}")
        if message is None:
            return _refusal(400, "Bad Request: message to delete not found")
        if message.id in self.too_old:
            return _refusal(400, "Bad Request: message can't be deleted for everyone")
        return await self.respond(
            request,
            message,
            lambda _: {"ok": True, "result": True},
            accept=lambda sent: self.alter(sent, recalled=True),
        )


def _refusal(code: int, description: str, **more: object) -> web.Response:
    return web.json_response({"ok": False, "error_code": code, "description": description, **more}, status=code)
