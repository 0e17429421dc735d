"""FakeWecom: group bots, tokens and messages of an application, as WeCom has them."""

import time
from collections import defaultdict, deque
from collections.abc import Callable

from aiohttp import web

from starter.local.receivers.providers.fake import Answer, FakeProvider, Received

#: Messages that a member gets of an application, and within how many seconds.
MEMBER_LIMITS = ((30, 60.0), (1_000, 3600.0))


class FakeWecom(FakeProvider):
    """A bot's messages have the recipient of its key; an application's that of the member, department or tag.

    What a member gets too fast is answered as if it were accepted, and `dropped`. `clock`: seconds.
    """

    corp_id, secret, agent_id = "ww1", "wecom-secret", 1000002
    unauthorized = Answer(body={"errcode": 42001, "errmsg": "access_token expired"})

    def __init__(self) -> None:
        super().__init__()
        self.clock: Callable[[], float] = time.time
        self.dropped: list[Received] = []
        self._times: dict[str, deque[float]] = defaultdict(deque)

    def bot(self, key: str) -> str:
        """The URL of a group's bot."""
        return f"{self.url}/cgi-bin/webhook/send?key={key}"

    def add_routes(self, app: web.Application) -> None:
        app.router.add_post("/cgi-bin/webhook/send", self._bot)
        app.router.add_get("/cgi-bin/gettoken", self.issuing(self._token))
        app.router.add_post("/cgi-bin/message/send", self.authorized(self._message))
        app.router.add_post("/cgi-bin/message/recall", self.authorized(self._recall))

    async def _bot(self, request: web.Request) -> web.StreamResponse:
        message = Received(recipient=request.query["key"], content=await request.json())
        return await self.answer(request, message, lambda _: {"errcode": 0, "errmsg": "ok"})

    async def _token(self, request: web.Request) -> web.StreamResponse:
        if (request.query.get("corpid"), request.query.get("corpsecret")) != (self.corp_id, self.secret):
            return web.json_response({"errcode": 40001, "errmsg": "invalid credential"})
        life = int(self.tokens.life)
        return web.json_response({"errcode": 0, "access_token": self.tokens.issue(), "expires_in": life})

    async def _message(self, request: web.Request) -> web.StreamResponse:
        content = await request.json()
        recipient = content.get("touser") or content.get("toparty") or content.get("totag")
        key = str(sorted(content.items())) if content.get("enable_duplicate_check") else ""
        message = Received(recipient=recipient, content=content, key=key)
        if content.get("touser") and not self._takes(recipient):
            self.dropped.append(message)
            return web.json_response({"errcode": 0, "invaliduser": "", "msgid": message.id})
        return await self.answer(request, message, lambda sent: {"errcode": 0, "invaliduser": "", "msgid": sent.id})

    def _takes(self, member: str) -> bool:
        """Whether the member gets another message now."""
        times, now = self._times[member], self.clock()
        if any(sum(now - seconds < at for at in times) >= most for most, seconds in MEMBER_LIMITS):
            return False
        times.append(now)
        return True

    async def _recall(self, request: web.Request) -> web.StreamResponse:
        given = await request.json()
        message = next((each for each in self.accepted if each.id == given["msgid"]), None)
        if message is None or message.id in self.too_old:
            return web.json_response({"errcode": 40058, "errmsg": "invalid"})
        return await self.answer_change(request, message, lambda _: {"errcode": 0}, recalled=True)
