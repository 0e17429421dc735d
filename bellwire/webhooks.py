"""Signatures of webhooks: Standard Webhooks 1.0.0, over `id.timestamp.body`, by a shared secret or a key pair.

Bellwire signs with `sign`; a receiver calls `verify` with the raw body before it parses anything. Receivers in other
languages use any Standard Webhooks library (none of them knows `v1a` yet). The `webhook-id` is the same over all attempts
of a delivery: deduplicate on it. What secrets look like is told in `bellwire.keys.signing`.
"""

import re
import time
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol

from bellwire import strict_json
from bellwire.errors import SignatureMismatch, SignatureMissing, TimestampOutsideTolerance
from bellwire.keys.signing import (
    KeyKind,
    SigningKey,
    generate_secret,
    public_key,
    read_key,
)

__all__ = [
    "ID_HEADER",
    "SIGNATURE_HEADER",
    "TIMESTAMP_HEADER",
    "TOLERANCE",
    "Headers",
    "KeyKind",
    "generate_secret",
    "public_key",
    "sign",
    "verify",
]

ID_HEADER = "webhook-id"
TIMESTAMP_HEADER = "webhook-timestamp"
SIGNATURE_HEADER = "webhook-signature"

#: How far the clocks of sender and receiver may be apart, either way.
TOLERANCE = timedelta(minutes=5)
#: Signatures of one request that are looked at. A sender has few keys; a forger could make much work.
_MAX_SIGNATURES = 50

#: Visible ASCII without the dot, which separates id and timestamp in what is signed.
_ID = re.compile(r"[\x21-\x2d\x2f-\x7e]+")
_TIMESTAMP = re.compile(r"[0-9]{1,12}")


class Headers(Protocol):
    """A request's headers, as any framework gives them: what has `items()` of name and value, names in any case."""

    def items(self) -> Iterable[tuple[str, str]]: ...


def sign(secret: str | Sequence[str], id: str, timestamp: int | datetime, body: bytes | str) -> str:  # noqa: A002
    """The value of the `webhook-signature` header: `v1,…` for each whsec_, `v1a,…` for each whsk_, separated by spaces.

    Give the new secret and the old ones while it replaces them. `timestamp` is the time of the attempt, in Unix seconds or
    as an aware datetime, and goes into the `webhook-timestamp` header as whole seconds. Raises ValueError for a malformed
    secret, for a whpk_, which only verifies, for an id that is empty or holds a dot, and for a datetime without a zone.
    """
    if not _ID.fullmatch(id):
        raise ValueError("id: must be visible ASCII characters without a dot, which separates what is signed")
    if isinstance(timestamp, datetime):
        if timestamp.tzinfo is None:
            raise ValueError("timestamp: has no zone; use an aware datetime, such as datetime.now(UTC)")
        timestamp = int(timestamp.timestamp() // 1)
    signed = _signed(id, str(timestamp), body.encode() if isinstance(body, str) else body)
    return " ".join(key.sign(signed) for key in _keys(secret))


def verify(
    secret: str | Sequence[str],
    headers: Headers | Iterable[tuple[bytes, bytes]],
    body: bytes | str,
    *,
    tolerance: timedelta = TOLERANCE,
    now: datetime | None = None,
) -> Any:
    """What the body of a webhook says that was signed with `secret`, or with one of several: whsec_, whsk_ or whpk_.

    The body's JSON value, an object for events in their usual form; a body that is not JSON comes back as bytes. `body` is
    the raw body as received, before any parsing; `headers` any mapping, or ASGI's `scope["headers"]`. Raises
    SignatureMissing, SignatureMismatch or TimestampOutsideTolerance, all of them SignatureInvalid, for which the answer is
    400 or 401; and ValueError for a malformed secret, which is the receiver's own mistake. Signatures of other versions and
    malformed ones are passed over.
    """
    pairs = list(_texts(headers))
    webhook_id, stamp, given = (_header(pairs, name) for name in (ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER))
    if not _ID.fullmatch(webhook_id) or not _TIMESTAMP.fullmatch(stamp) or not given.strip():
        raise SignatureMissing
    # Lone surrogates cannot have been signed; as bytes of their own they fail to match instead of failing to encode.
    raw = body.encode(errors="surrogatepass") if isinstance(body, str) else body
    signed = _signed(webhook_id, stamp, raw)
    offered = [entry.encode(errors="replace") for entry in given.split()[:_MAX_SIGNATURES]]
    matches = [key.verifies(offered, signed) for key in _keys(secret)]
    if not any(matches):
        raise SignatureMismatch
    if abs((time.time() if now is None else now.timestamp()) - int(stamp)) > tolerance.total_seconds():
        raise TimestampOutsideTolerance
    return _value(raw)


def _texts(headers: Headers | Iterable[tuple[bytes, bytes]]) -> Iterable[tuple[str, str]]:
    """Names in lower case, and values; bytes are read as Latin-1, in which each byte is a character."""
    pairs: Iterable[tuple[str | bytes, str | bytes]] = headers.items() if hasattr(headers, "items") else headers
    for name, value in pairs:
        yield _text(name).lower(), _text(value)


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _header(pairs: Iterable[tuple[str, str]], name: str) -> str:
    """The header's value; of one that was sent several times all values, spaced, which only signatures may be."""
    return " ".join(value for key, value in pairs if key == name)


def _keys(secret: str | Sequence[str]) -> list[SigningKey]:
    keys = [read_key(each) for each in ([secret] if isinstance(secret, str) else secret)]
    if not keys:
        raise ValueError("secret: give at least one")
    return keys


def _signed(webhook_id: str, stamp: str, body: bytes) -> bytes:
    return b"%b.%b.%b" % (webhook_id.encode(), stamp.encode(), body)


def _value(raw: bytes) -> Any:
    try:
        return strict_json.loads(raw)
    except (ValueError, RecursionError):
        return raw
