"""FakePushService: a push service as browsers use one. It checks the headers, and keeps the encrypted bodies."""

import base64
import hashlib
import hmac
import json
import os
import time

from aiohttp import web
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from starter.local.receivers.providers.fake import FakeProvider, Received


class Browser:
    """A browser that subscribed. Its keys are random unless given: the private key and the secret, in base64url."""

    def __init__(self, key: str | None = None, auth: str | None = None) -> None:
        number = int.from_bytes(_bytes(key), "big") if key else None
        curve = ec.SECP256R1()
        self.key = ec.derive_private_key(number, curve) if number else ec.generate_private_key(curve)
        self.auth = _bytes(auth) if auth else os.urandom(16)

    @property
    def point(self) -> bytes:
        """The public key."""
        return self.key.public_key().public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        )

    def decrypted(self, body: bytes) -> bytes:
        """What the service worker is given of a push with this body (RFC 8291 §3.4, RFC 8188 §2).

        It is written apart from how Bellwire encrypts. Raises ValueError, InvalidTag.
        """
        salt, size, length = body[:16], int.from_bytes(body[16:20], "big"), body[20]
        sender, record = body[21 : 21 + length], body[21 + length :]
        if len(record) > size:
            raise ValueError("has more than one record")
        shared = self.key.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(self.key.curve, sender))
        secret = _expanded(_hmac(self.auth, shared), b"WebPush: info\0" + self.point + sender)
        extracted = _hmac(salt, secret)
        key = _expanded(extracted, b"Content-Encoding: aes128gcm\0")[:16]
        nonce = _expanded(extracted, b"Content-Encoding: nonce\0")[:12]
        content = AESGCM(key).decrypt(nonce, record, None).rstrip(b"\0")
        if content[-1:] != b"\x02":
            raise ValueError("does not end with the delimiter of the last record")
        return content[:-1]

    def subscription(self, endpoint: str) -> dict[str, object]:
        """As PushSubscription.toJSON() returns it."""
        return {"endpoint": endpoint, "keys": {"p256dh": _base64url(self.point), "auth": _base64url(self.auth)}}


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


def vapid_key() -> str:
    """A private key that signs for push services, in base64url."""
    key = ec.generate_private_key(ec.SECP256R1())
    return _base64url(key.private_numbers().private_value.to_bytes(32, "big"))


def _hmac(key: bytes, text: bytes) -> bytes:
    return hmac.digest(key, text, hashlib.sha256)


def _expanded(secret: bytes, info: bytes) -> bytes:
    """The first block of HKDF's output (RFC 5869 §2.3)."""
    return _hmac(secret, info + b"\x01")


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _base64url(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
