"""FakeFcm: Google's token endpoint and Firebase Cloud Messaging, HTTP v1."""

from collections.abc import Mapping

import jwt
from aiohttp import web

from starter.local.receivers.providers.fake import Answer, FakeProvider, Received


class FakeFcm(FakeProvider):
    """`public_key` is the PEM of the service account's public key, with which assertions are verified."""

    project_id, client_email = "shop-1", "push@shop-1.example"
    unauthorized = Answer(status=401, body={"error": {"code": 401, "status": "UNAUTHENTICATED"}})

    def __init__(self, public_key: str) -> None:
        super().__init__()
        self.public_key = public_key

    @property
    def token_url(self) -> str:
        return f"{self.url}/token"

    def add_routes(self, app: web.Application) -> None:
        app.router.add_post("/token", self.issuing(self._token))
        app.router.add_post("/v1/projects/{project}/messages:send", self.authorized(self._send))

    async def _token(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        try:
            claims = jwt.decode(
                str(form.get("assertion")), self.public_key, algorithms=["RS256"], audience=self.token_url
            )
        except jwt.PyJWTError:
            return web.json_response({"error": "invalid_grant"}, status=400)
        if claims["iss"] != self.client_email or "firebase.messaging" not in claims["scope"]:
            return web.json_response({"error": "invalid_grant"}, status=400)
        return web.json_response({"access_token": self.tokens.issue(), "expires_in": int(self.tokens.life)})

    async def _send(self, request: web.Request) -> web.StreamResponse:
        content = (await request.json())["message"]
        message = Received(recipient=content["token"], content=content)
        project = request.match_info["project"]
        return await self.answer(request, message, lambda sent: {"name": f"projects/{project}/messages/{sent.id}"})


def refusal(status: int, code: str, *details: Mapping[str, object]) -> dict[str, object]:
    """The body of a refusal with FCM's own error code."""
    own = {"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": code}
    return {"error": {"code": status, "status": code, "details": [own, *details]}}
