"""FakeTelegram: messages that a bot sends, changes and deletes."""

import secrets
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from starter.local.receivers.providers.fake import Answer, FakeProvider, Received


class FakeTelegram(FakeProvider):
    """POST /bot<token>/sendMessage and others. `moved` has the new ids of chats by the old ones."""

    unauthorized = Answer(status=401, body={"ok": False, "error_code": 401, "description": "Unauthorized"})

    def __init__(self) -> None:
        super().__init__()
        self.token = f"123456:{secrets.token_hex(16)}"
        self.moved: dict[str, int] = {}

    def add_routes(self, app: web.Application) -> None:
        app.router.add_post("/bot{token}/sendMessage", self.authorized(self._send))
        app.router.add_post("/bot{token}/editMessageText", self.authorized(self._edit))
        app.router.add_post("/bot{token}/deleteMessage", self.authorized(self._delete))

    def is_authorized(self, request: web.Request) -> bool:
        return request.match_info["token"] == self.token

    async def _send(self, request: web.Request) -> web.StreamResponse:
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
        if (message := self._found(given)) is None:
            return _refusal(400, "Bad Request: message to edit not found")
        if message.id in self.too_old:
            return _refusal(400, "Bad Request: message can't be edited")
        if message.content["text"] == given["text"]:
            return _refusal(400, "Bad Request: message is not modified: specified new message content is the same")
        done = {"ok": True, "result": {"message_id": given["message_id"]}}
        return await self.answer_change(request, message, lambda _: done, content=given, edits=message.edits + 1)

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        if (message := self._found(await request.json())) is None:
            return _refusal(400, "Bad Request: message to delete not found")
        if message.id in self.too_old:
            return _refusal(400, "Bad Request: message can't be deleted for everyone")
        return await self.answer_change(request, message, lambda _: {"ok": True, "result": True}, recalled=True)

    def _found(self, given: Mapping[str, Any]) -> Received | None:
        return self.find(f"{given['chat_id']}/{given['message_id']}")


def _refusal(code: int, description: str, **more: object) -> web.Response:
    return web.json_response({"ok": False, "error_code": code, "description": description, **more}, status=code)
