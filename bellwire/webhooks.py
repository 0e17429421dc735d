"""Signatures of webhooks: Standard Webhooks 1.0.0, symmetric scheme v1 (HMAC-SHA256 over `id.timestamp.body`).

Bellwire signs with `sign`; a receiver calls `verify` with the raw body before it parses anything. Receivers in other
languages use any Standard Webhooks library. The `webhook-id` is the same over all attempts of a delivery: deduplicate
on it.
"""

import base64
import binascii
import hashlib
import hmac
import json
import re
import secrets
import time
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol

from bellwire.errors import SignatureInvalid, SignatureMismatch, SignatureMissing, TimestampOutsideTolerance

ID_HEADER = "webhook-id"
TIMESTAMP_HEADER = "webhook-timestamp"
SIGNATURE_HEADER = "webhook-signature"

#: How far the clocks of sender and receiver may be apart, either way.
TOLERANCE = timedelta(minutes=5)

_PREFIX = "whsec_"
_KEY_BYTES = range(24, 65)
#: Visible ASCII without the dot, which separates id and timestamp in what is signed.
_ID = re.compile(r"[\x21-\x2d\x2f-\x7e]+")
_TIMESTAMP = re.compile(r"[0-9]{1,12}")


class Headers(Protocol):
    """A request's headers, as any framework gives them: what has `items()` of name and value, names in any case."""

    def items(self) -> Iterable[tuple[str, str]]: ...


def generate_secret() -> str:
    """A new signing secret: `whsec_` and the base64 of 32 random bytes."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def sign(secret: str | Sequence[str], id: str, timestamp: int | datetime, body: bytes | str) -> str:  # noqa: A002
    """The value of the `webhook-signature` header: one `v1,<base64>` per secret, separated by spaces.

    Give the old and the new secret while one replaces the other. `timestamp` is the time of the attempt, in Unix
    seconds or as an aware datetime, and goes into the `webhook-timestamp` header as whole seconds. Raises ValueError
    for a malformed secret, an id that is empty or holds a dot, and a datetime without a zone.
    """
    if not _ID.fullmatch(id):
        raise ValueError("id: must be visible ASCII characters without a dot, which separates what is signed")
    if isinstance(timestamp, datetime):
        if timestamp.tzinfo is None:
            raise ValueError("timestamp: has no zone; use an aware datetime, such as datetime.now(UTC)")
        timestamp = int(timestamp.timestamp() // 1)
    signed = _signed(id, str(timestamp), body.encode() if isinstance(body, str) else body)
    return " ".join(_signature(key, signed) for key in _keys(secret))


def verify(
    secret: str | Sequence[str],
    headers: Headers,
    body: bytes | str,
    *,
    tolerance: timedelta = TOLERANCE,
    now: datetime | None = None,
) -> dict[str, Any]:
    """The JSON object in the body of a webhook that was signed with `secret`, or with one of several.

    `body` is the raw body as received, before any parsing. Raises SignatureMissing, SignatureMismatch or
    TimestampOutsideTolerance, all of them SignatureInvalid, for which the answer is 400 or 401; and ValueError for a
    malformed secret, which is the receiver's own mistake. Signatures of other versions (v1a) and malformed ones are
    passed over.
    """
    webhook_id, stamp, given = (_header(headers, name) for name in (ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER))
    if not _ID.fullmatch(webhook_id) or not _TIMESTAMP.fullmatch(stamp) or not given.strip():
        raise SignatureMissing
    # Lone surrogates cannot have been signed; as bytes of their own they fail to match instead of failing to encode.
    raw = body.encode(errors="surrogatepass") if isinstance(body, str) else body
    signed = _signed(webhook_id, stamp, raw)
    offered = [entry.encode(errors="replace") for entry in given.split()]
    expected = [_signature(key, signed).encode() for key in _keys(secret)]
    matches = [hmac.compare_digest(one, entry) for one in expected for entry in offered]
    if not any(matches):
        raise SignatureMismatch
    if abs((time.time() if now is None else now.timestamp()) - int(stamp)) > tolerance.total_seconds():
        raise TimestampOutsideTolerance
    return _object(raw)


def _header(headers: Headers, name: str) -> str:
    """The header's value; of one that was sent several times all values, spaced, which only signatures may be."""
    return " ".join(value for key, value in headers.items() if key.lower() == name)


def _keys(secret: str | Sequence[str]) -> list[bytes]:
    keys = [_key(each) for each in ([secret] if isinstance(secret, str) else secret)]
    if not keys:
        raise ValueError("secret: give at least one")
    return keys


def _key(secret: str) -> bytes:
    encoded = secret.removeprefix(_PREFIX)
    try:
        key = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if encoded == secret or len(key) not in _KEY_BYTES:
        raise ValueError("secret: must be whsec_ and the base64 of 24 to 64 bytes; generate_secret() makes one")
    return key


def _signed(webhook_id: str, stamp: str, body: bytes) -> bytes:
    return b"%b.%b.%b" % (webhook_id.encode(), stamp.encode(), body)


def _signature(key: bytes, signed: bytes) -> str:
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


def _object(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise SignatureInvalid("The request is signed, but its body is not a JSON object.")
    return value
