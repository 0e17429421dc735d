"""Signatures and encryption of WeChat's callbacks, as of WeCom's. developer.work.weixin.qq.com/document/path/90968

In plain mode the signature covers neither the body nor the account; in safe mode the body is encrypted for the account.
"""

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Mapping

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

#: Seconds that the time of a request may differ from now: an older one is a replay.
TOLERANCE = 600
#: PKCS #7 pads to this size, not to AES's own.
_BLOCK = 32
_AES_BLOCK = 16
_RANDOM = 16


class SignatureInvalid(Exception):
    """The request is not from WeChat, too old, or not for this account."""


def verify(token: str, query: Mapping[str, str], *, encrypted: str | None = None, now: float | None = None) -> None:
    """Verify the signature of a request, in safe mode over the encrypted text too. Raises SignatureInvalid."""
    timestamp, nonce = query.get("timestamp", ""), query.get("nonce", "")
    signed = [token, timestamp, nonce, *([] if encrypted is None else [encrypted])]
    given = query.get("signature" if encrypted is None else "msg_signature", "")
    expected = hashlib.sha1("".join(sorted(signed)).encode()).hexdigest()  # noqa: S324 - WeChat signs so
    if not hmac.compare_digest(expected.encode(), given.encode()):
        raise SignatureInvalid("wrong signature")
    if not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) <= 12):
        raise SignatureInvalid("no time")
    if abs((time.time() if now is None else now) - int(timestamp)) > TOLERANCE:
        raise SignatureInvalid("too old")


def aes_key(encoded: str) -> bytes:
    """The key of an EncodingAESKey. Raises ValueError."""
    try:
        key = base64.b64decode(encoded + "=", validate=True)
    except binascii.Error:
        key = b""
    if len(key) != 32:
        raise ValueError("must be the EncodingAESKey of 43 letters and digits")
    return key


def decrypt(key: bytes, encrypted: str, *, app_id: str) -> bytes:
    """The message of a body in safe mode. Raises SignatureInvalid."""
    try:
        sealed = base64.b64decode(encrypted, validate=True)
        decryptor = Cipher(algorithms.AES(key), modes.CBC(key[:_AES_BLOCK])).decryptor()
        padded = decryptor.update(sealed) + decryptor.finalize()
    except ValueError:  # binascii.Error among them; a size that is not a multiple of the block
        raise SignatureInvalid("not encrypted by this key") from None
    padding = padded[-1] if padded else 0
    plain = padded[:-padding] if 1 <= padding <= _BLOCK else b""
    length = int.from_bytes(plain[_RANDOM : _RANDOM + 4], "big")
    start = _RANDOM + 4
    message, receiver = plain[start : start + length], plain[start + length :]
    if len(message) < length or not hmac.compare_digest(receiver, app_id.encode()):
        raise SignatureInvalid("not encrypted for this account")
    return message
