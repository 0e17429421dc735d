"""Unsubscribe links: signed URLs that recipients use without logging in.

A token consists of a version, a subscription's id and a keyed hash of the recipient's address, and is signed with
HMAC-SHA256. It reveals no address in logs or forwarded mails, and cannot be forged for another recipient. It does not
expire, since recipients may unsubscribe from a mail years later.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bellwire.formats.mailboxes import mailbox_key

#: The gateway's path of unsubscribe links, below its public URL.
UNSUBSCRIBE = "/unsubscribe/"
#: The form field that mail readers post to a link, and its value (RFC 8058).
ONE_CLICK = ("List-Unsubscribe", "One-Click")

#: Smallest key in bytes: the size of the hash.
KEY_BYTES = 32
#: Longest token in characters. A subscription's id has at most 63.
MAX_TOKEN = 200

_VERSION = b"\x01"
#: Bytes to which hash and signature are truncated: 128 bits, which cannot be guessed over HTTP.
_CUT = 16


@dataclass(frozen=True, kw_only=True)
class UnsubscribeRequest:
    """The content of a valid token."""

    subscription_id: str
    _digest: bytes
    _key: bytes

    def match(self, addresses: Iterable[str]) -> str | None:
        """The address among these that the token was created for, or None. Compares in constant time."""
        found = None
        for address in addresses:
            if hmac.compare_digest(_hashed(self._key, self.subscription_id, address), self._digest):
                found = address
        return found


class LinkKeys:
    """Signing keys, parsed from a comma-separated list. Each is the base64 of at least 32 random bytes.

    The first key signs, all keys verify. To replace a key, put the new one in front and keep the old one as long as links
    in old mails must work. Raises ValueError, which contains no key.
    """

    def __init__(self, keys: str) -> None:
        #: The decoded keys. Everything that is signed with them has a prefix of its own.
        self.keys: Sequence[bytes] = tuple(_key(each.strip()) for each in keys.split(",") if each.strip())
        if not self.keys:
            raise ValueError("give at least one key: openssl rand -base64 32")

    def unsubscribe_token(self, subscription_id: str, address: str) -> str:
        """The token with which this recipient unsubscribes. It stays the same until the key is replaced."""
        key = self.keys[0]
        body = _VERSION + _hashed(key, subscription_id, address) + subscription_id.encode(errors="replace")
        return base64.urlsafe_b64encode(body + _signature(key, body)).decode().rstrip("=")

    def read(self, token: str) -> UnsubscribeRequest | None:
        """The content of the token; None if it is damaged, signed with another key, or of an unknown version."""
        raw = _decoded(token)
        body, signature = raw[:-_CUT], raw[-_CUT:]
        for key in self.keys:
            if hmac.compare_digest(_signature(key, body), signature) and body.startswith(_VERSION):
                digest, subscription_id = body[1 : _CUT + 1], body[_CUT + 1 :].decode()
                return UnsubscribeRequest(subscription_id=subscription_id, _digest=digest, _key=key)
        return None


class UnsubscribeLinks(LinkKeys):
    """Signing keys with the public URL of the gateway: creates the URLs for mails."""

    def __init__(self, public_url: str, keys: str) -> None:
        super().__init__(keys)
        self._url = public_url.rstrip("/")

    def unsubscribe_url(self, subscription_id: str, address: str) -> str:
        return f"{self._url}{UNSUBSCRIBE}{self.unsubscribe_token(subscription_id, address)}"


def _key(encoded: str) -> bytes:
    try:
        key = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) < KEY_BYTES:
        raise ValueError(f"each key must be the base64 of at least {KEY_BYTES} bytes: openssl rand -base64 {KEY_BYTES}")
    return key


def _decoded(token: str) -> bytes:
    """The bytes of a token, empty if it is not canonical base64. So no two tokens have the same content."""
    if len(token) > MAX_TOKEN or not token.isascii():
        return b""
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return b""
    return raw if base64.urlsafe_b64encode(raw).decode().rstrip("=") == token else b""


def _signature(key: bytes, body: bytes) -> bytes:
    return hmac.digest(key, b"bellwire link\n" + body, hashlib.sha256)[:_CUT]


def _hashed(key: bytes, subscription_id: str, address: str) -> bytes:
    """The keyed hash of a recipient, the same for all spellings of the mailbox. It differs for each subscription."""
    recipient = f"bellwire recipient\n{subscription_id}\n{mailbox_key(address)}"
    return hmac.digest(key, recipient.encode(errors="surrogatepass"), hashlib.sha256)[:_CUT]
