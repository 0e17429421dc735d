"""FakeDingtalk: robots, tokens and work notices, as DingTalk has them."""

from aiohttp import web

from starter.local.receivers.providers.fake import Answer, FakeProvider, Received


class FakeDingtalk(FakeProvider):
    """A robot's messages have the recipient of its token; a notice that of its user or department.

    `results` has by task what getsendresult says; a notice without an entry is still being sent.
    """

    app_key, app_secret, agent_id = "ding1", "dingtalk-secret", 123
    unauthorized = Answer(body={"errcode": 40014, "errmsg": "invalid access_token"})

    def __init__(self) -> None:
        super().__init__()
        self.results: dict[int, dict[str, list[str]]] = {}
        #: The queries of a robot's calls, with their signatures.
        self.queries: list[dict[str, str]] = []
        self.asked = 0
        #: Whether the user of each other notice has read it.
        self.read = False

    def robot(self, token: str) -> str:
        """The URL of a group's robot."""
        return f"{self.url}/robot/send?access_token={token}"

    def add_routes(self, app: web.Application) -> None:
        app.router.add_post("/robot/send", self._robot)
        app.router.add_get("/gettoken", self.issuing(self._token))
        notices = "/topapi/message/corpconversation"
        app.router.add_post(f"{notices}/asyncsend_v2", self.authorized(self._notice))
        app.router.add_post(f"{notices}/getsendresult", self.authorized(self._result))
        app.router.add_post(f"{notices}/recall", self.authorized(self._recall))

    async def _robot(self, request: web.Request) -> web.StreamResponse:
        self.queries.append(dict(request.query))
        message = Received(recipient=request.query["access_token"], content=await request.json())
        return await self.answer(request, message, lambda _: {"errcode": 0, "errmsg": "ok"})

    async def _token(self, request: web.Request) -> web.StreamResponse:
        if (request.query.get("appkey"), request.query.get("appsecret")) != (self.app_key, self.app_secret):
            return web.json_response({"errcode": 40089, "errmsg": "invalid appsecret"})
        life = int(self.tokens.life)
        return web.json_response({"errcode": 0, "access_token": self.tokens.issue(), "expires_in": life})

    async def _notice(self, request: web.Request) -> web.StreamResponse:
        content = await request.json()
        task = 1 + len(self.accepted)
        to = content.get("userid_list") or content["dept_id_list"]
        message = Received(recipient=to, content=content, id=str(task))
        return await self.answer(request, message, lambda _: {"errcode": 0, "task_id": task})

    async def _result(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        given = await request.json()
        notice = self.find(str(given["task_id"]))
        usual = {"read_user_id_list": [notice.recipient]} if self.read and notice else {}
        return web.json_response({"errcode": 0, "send_result": self.results.get(given["task_id"], usual)})

    async def _recall(self, request: web.Request) -> web.StreamResponse:
        given = await request.json()
        message = next((each for each in self.accepted if each.id == str(given["msg_task_id"])), None)
        if message is None or message.id in self.too_old:
            return web.json_response({"errcode": 88, "errmsg": "invalid"})
        return await self.answer_change(request, message, lambda _: {"errcode": 0}, recalled=True)
