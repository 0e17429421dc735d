"""Encryption of web pushes (RFC 8291 with the coding aes128gcm of RFC 8188), and signed tokens of VAPID, Apple and Google."""

import base64
import json
import os
import struct
from collections.abc import Mapping

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

#: The record size that the header announces. A push is one record.
RECORD_SIZE = 4096
#: Most bytes of a push's content, so that its body has at most 4,096.
MAX_CONTENT = 3_993

_CURVE = ec.SECP256R1()


def encrypt(
    content: bytes,
    *,
    p256dh: bytes,
    auth: bytes,
    salt: bytes | None = None,
    key: ec.EllipticCurvePrivateKey | None = None,
) -> bytes:
    """The body of a push that only the browser with these keys can read. `salt` and `key` are random unless given.

    Raises ValueError if `p256dh` is not a point of the curve, or the content too long.
    """
    if len(content) > MAX_CONTENT:
        raise ValueError(f"has {len(content):,} bytes, the limit is {MAX_CONTENT:,}")
    salt = salt or os.urandom(16)
    key = key or ec.generate_private_key(_CURVE)
    public = public_bytes(key.public_key())
    shared = key.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(_CURVE, p256dh))
    secret = _derived(auth, shared, b"WebPush: info\0" + p256dh + public, 32)
    content_key = _derived(salt, secret, b"Content-Encoding: aes128gcm\0", 16)
    nonce = _derived(salt, secret, b"Content-Encoding: nonce\0", 12)
    # The delimiter 2 ends the last record.
    record = AESGCM(content_key).encrypt(nonce, content + b"\x02", None)
    return salt + struct.pack("!IB", RECORD_SIZE, len(public)) + public + record


def public_bytes(key: ec.EllipticCurvePublicKey) -> bytes:
    """The uncompressed point: 65 bytes."""
    return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)


def signed_token(
    claims: Mapping[str, object], key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, **header: str
) -> str:
    """A JSON Web Token (RFC 7515) with ES256, or with RS256 by an RSA key (RFC 7518 §3.3 and §3.4)."""
    algorithm = "RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256"
    parts = [{"typ": "JWT", "alg": algorithm, **header}, dict(claims)]
    text = ".".join(base64url(json.dumps(part, separators=(",", ":")).encode()) for part in parts)
    if isinstance(key, rsa.RSAPrivateKey):
        signature = key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
    else:
        r, s = decode_dss_signature(key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
        signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    return f"{text}.{base64url(signature)}"


def base64url(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def from_base64url(text: str) -> bytes:
    """Raises ValueError."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _derived(salt: bytes, secret: bytes, info: bytes, length: int) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=length, salt=salt, info=info).derive(secret)
