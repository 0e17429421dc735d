"""FakeTeams: workflows that are triggered by a POST of a card."""

import secrets

from aiohttp import web

from starter.local.receivers.providers.fake import FakeProvider, Received


class FakeTeams(FakeProvider):
    """POST /workflows/<name>?sig=… answers 202, as soon as the workflow is triggered."""

    def __init__(self) -> None:
        super().__init__()
        self.signature = secrets.token_urlsafe(24)

    def workflow(self, name: str) -> str:
        """The URL of a workflow; its messages have the recipient `name`."""
        return f"{self.url}/workflows/{name}/triggers/manual/paths/invoke?api-version=1&sig={self.signature}"

    def add_routes(self, app: web.Application) -> None:
        app.router.add_post("/workflows/{name}/triggers/manual/paths/invoke", self._trigger)

    async def _trigger(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("sig") != self.signature:
            return web.json_response({"error": {"code": "AuthorizationFailed"}}, status=401)
        message = Received(recipient=request.match_info["name"], content=await request.json())
        response = await self.answer(request, message, lambda _: "")
        if response.status == 200:
            response.set_status(202)
        return response
