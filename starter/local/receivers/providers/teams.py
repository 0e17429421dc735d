"""FakeTeams: workflows that are triggered by a POST of a card."""

from aiohttp import web

from starter.local.receivers.providers.fake import FakeProvider, Received


class FakeTeams(FakeProvider):
    """POST /workflows/<name>?sig=… answers 202, as soon as the workflow is triggered."""

    def workflow(self, name: str) -> str:
        """The URL of a workflow; its messages have the recipient `name`."""
        return f"{self.url}/workflows/{name}/triggers/manual/paths/invoke?api-version=1&sig=SECRET"

    def add_routes(self, app: web.Application) -> None:
        app.router.add_post("/workflows/{name}/triggers/manual/paths/invoke", self._trigger)

    async def _trigger(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("sig") != "SECRET":
            return web.json_response({"error": {"code": "AuthorizationFailed"}}, status=401)
        message = Received(recipient=request.match_info["name"], content=await request.json())
        response = await self.answer(request, message, lambda _: "")
        if response.status == 200:
            response.set_status(202)
        return response
