"""FakePushService: a push service as browsers use one. It checks the headers, and keeps the encrypted bodies."""

import base64
import json
import os
import time

from aiohttp import web
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from starter.local.receivers.providers.fake import FakeProvider, Received


class Browser:
    """A browser that subscribed: its keys, and what its service worker would be given."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.auth = os.urandom(16)

    def subscription(self, endpoint: str) -> dict[str, object]:
        """As PushSubscription.toJSON() returns it."""
        point = self.key.public_key().public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        )
        return {"endpoint": endpoint, "keys": {"p256dh": _base64url(point), "auth": _base64url(self.auth)}}


class FakePushService(FakeProvider):
    """POST /push/<name> is an endpoint; its pushes have the recipient `name`, and their headers and body as content."""

    def endpoint(self, name: str) -> str:
        return f"{self.url}/push/{name}"

    def add_routes(self, app: web.Application) -> None:
        app.router.add_post("/push/{name}", self._push)

    async def _push(self, request: web.Request) -> web.StreamResponse:
        name, headers = request.match_info["name"], request.headers
        if not headers.get("TTL", "").isdecimal():
            return web.json_response({"errno": 111}, status=400)
        if not self._is_authorized(headers.get("Authorization", "")):
            return web.json_response({"errno": 109}, status=401)
        content = {"headers": {name.lower(): value for name, value in headers.items()}, "body": await request.read()}
        message = Received(recipient=name, content=content, key=headers.get("Topic", ""))
        response = await self.answer(request, message, lambda _: "")
        if response.status == 200:
            response.set_status(201)
            response.headers["Location"] = f"{self.url}/message/{message.id}"
        return response

    def _is_authorized(self, value: str) -> bool:
        """VAPID, read apart from how it is written: the signature, the audience and the time (RFC 8292)."""
        fields = dict(part.strip().split("=", 1) for part in value.removeprefix("vapid ").split(",") if "=" in part)
        try:
            signed, _, signature = fields["t"].rpartition(".")
            claims = json.loads(_bytes(signed.partition(".")[2]))
            raw = _bytes(signature)
            der = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
            key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), _bytes(fields["k"]))
            key.verify(der, signed.encode(), ec.ECDSA(hashes.SHA256()))
        except (KeyError, ValueError, InvalidSignature):
            return False
        valid: bool = claims["aud"] == self.url and time.time() < claims["exp"] <= time.time() + 24 * 3600
        return valid


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _base64url(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
