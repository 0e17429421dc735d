"""Webhook signatures: Standard Webhooks 1.0.0, over `id.timestamp.body`, with a shared secret or a key pair.

Bellwire signs with `sign`; a receiver calls `verify` with the raw body before it parses anything. Receivers in other
languages use any Standard Webhooks library (none of them supports `v1a` yet). The `webhook-id` is the same for all attempts
of a delivery: deduplicate on it. See `bellwire.keys.signing` for the format of secrets.
"""

import re
import time
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol

from bellwire.errors import SignatureMismatch, SignatureMissing, TimestampOutsideTolerance
from bellwire.formats import strict_json
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

#: How far the clocks of sender and receiver may differ, either way.
TOLERANCE = timedelta(minutes=5)
#: Signatures of one request that are checked. Senders have few keys; a forged request could have many.
_MAX_SIGNATURES = 50

#: Visible ASCII without the dot, which separates id and timestamp in the signed text.
_ID = re.compile(r"[\x21-\x2d\x2f-\x7e]+")
_TIMESTAMP = re.compile(r"[0-9]{1,12}")


class Headers(Protocol):
    """Request headers of any framework: an object whose `items()` returns names, in any case, and values."""

    def items(self) -> Iterable[tuple[str, str]]: ...


def sign(secret: str | Sequence[str], id: str, timestamp: int | datetime, body: bytes | str) -> str:  # noqa: A002
    """Return the value of the `webhook-signature` header: `v1,…` for each whsec_, `v1a,…` for each whsk_.

    During a rotation, give the new secret and the old ones. `timestamp` is the time of the attempt, in Unix seconds or as an
    aware datetime; send it in the `webhook-timestamp` header as whole seconds. Raises ValueError for a malformed secret, for a
    whpk_, for an id that is empty or contains a dot, and for a datetime without a time zone.
    """
    if not _ID.fullmatch(id):
        raise ValueError("id: must be visible ASCII characters without a dot")
    if isinstance(timestamp, datetime):
        if timestamp.tzinfo is None:
            raise ValueError("timestamp: has no time zone; use an aware datetime, such as datetime.now(UTC)")
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
    """Verify a webhook that was signed with `secret`, or with one of several (whsec_, whsk_ or whpk_); return its body.

    Returns the body's JSON value, an object for events in the usual format; bytes if it is not JSON. `body` is the raw body as
    received, before any parsing; `headers` is any mapping, or ASGI's `scope["headers"]`. Raises SignatureMissing,
    SignatureMismatch or TimestampOutsideTolerance, all of them SignatureInvalid: respond with 400 or 401. Headers or a body of
    another type than these are refused in the same way. Raises ValueError for a malformed secret. Signatures of other versions
    and malformed ones are ignored.
    """
    keys = _keys(secret)
    pairs = list(_texts(headers))
    webhook_id, stamp, given = (_header(pairs, name) for name in (ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER))
    if not _ID.fullmatch(webhook_id) or not _TIMESTAMP.fullmatch(stamp) or not given.strip():
        raise SignatureMissing
    raw = _bytes(body)
    signed = _signed(webhook_id, stamp, raw)
    offered = [entry.encode(errors="replace") for entry in given.split()[:_MAX_SIGNATURES]]
    matches = [key.verifies(offered, signed) for key in keys]
    if not any(matches):
        raise SignatureMismatch
    if abs((time.time() if now is None else now.timestamp()) - int(stamp)) > tolerance.total_seconds():
        raise TimestampOutsideTolerance
    return _value(raw)


def _texts(headers: Headers | Iterable[tuple[bytes, bytes]]) -> Iterable[tuple[str, str]]:
    """Yield names in lower case, and values. Bytes are decoded as Latin-1, in which each byte is a character."""
    try:
        for name, value in headers.items() if hasattr(headers, "items") else headers:
            # Only those of a webhook must be text: frameworks may put anything beside them.
            if isinstance(name, str | bytes) and (lower := _text(name).lower()).startswith("webhook-"):
                yield lower, _text(value)
    except TypeError as error:
        raise SignatureMissing(
            "headers: must be a mapping of names to text, or pairs of bytes; give the request's headers as they were received"
        ) from error
    except ValueError as error:
        raise SignatureMissing("headers: must be pairs of a name and a value") from error


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, str):
        return value
    raise TypeError


def _bytes(body: object) -> bytes:
    if isinstance(body, str):
        # Lone surrogates cannot have been signed. Encoded as bytes, they fail to match instead of failing to encode.
        return body.encode(errors="surrogatepass")
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body)
    raise SignatureMismatch(f"body: is {type(body).__name__}, not bytes or text; give the raw body, before any parsing")


def _header(pairs: Iterable[tuple[str, str]], name: str) -> str:
    """Return the values of a header, joined by spaces. Only signatures may be repeated."""
    return " ".join(value for key, value in pairs if key == name)


def _keys(secret: str | Sequence[str]) -> list[SigningKey]:
    secrets = [secret] if isinstance(secret, str) else list(secret) if isinstance(secret, Iterable) else [secret]
    if not secrets:
        raise ValueError("secret: must be at least one")
    if not all(isinstance(each, str) for each in secrets):
        raise ValueError("secret: must be text, or a list of texts; check that it was read from the configuration")
    return [read_key(each) for each in secrets]


def _signed(webhook_id: str, stamp: str, body: bytes) -> bytes:
    return b"%b.%b.%b" % (webhook_id.encode(), stamp.encode(), body)


def _value(raw: bytes) -> Any:
    try:
        return strict_json.loads(raw)
    except (ValueError, RecursionError):
        return raw
