"""Links that a recipient can use without logging in: what is in one, and that Bellwire made it.

A token holds a version, a subscription's id and a keyed hash of the recipient's address, and is signed with HMAC-SHA256.
Whoever sees it, in a log or a forwarded mail, learns no address from it and cannot make one for somebody else. It does
not expire: a mail may be read years later, and taking back consent must work then too.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

#: Where the gateway answers links to unsubscribe, below its public URL.
UNSUBSCRIBE = "/unsubscribe/"
#: The header by which mail readers post a link (RFC 8058), and what they post.
ONE_CLICK = ("List-Unsubscribe", "One-Click")

#: Fewest bytes of a key: as many as the hash has.
KEY_BYTES = 32
#: Longest token that is looked at; a subscription's id has 63 characters at most.
MAX_TOKEN = 200

_VERSION = b"\x01"
#: Bytes that a hash and a signature are cut to: 128 bits, which nobody guesses over HTTP.
_CUT = 16


@dataclass(frozen=True, kw_only=True)
class Unsubscription:
    """What a token that Bellwire made asks for."""

    subscription_id: str
    _digest: bytes
    _key: bytes

    def among(self, addresses: Iterable[str]) -> str | None:
        """The address of these that the token was made for; None if it is none of them."""
        found = None
        for address in addresses:
            if hmac.compare_digest(_hashed(self._key, self.subscription_id, address), self._digest):
                found = address
        return found


class LinkKeys:
    """Keys as operators write them: the base64 of at least 32 random bytes each, separated by commas.

    The first signs and all verify. To replace a key, put the new one in front and leave the old one for as long as
    links in old mails are to work. Raises ValueError, which shows no key.
    """

    def __init__(self, keys: str) -> None:
        #: The bytes of each, for what else is signed with them; whatever that is puts its own words before what it signs.
        self.keys: Sequence[bytes] = tuple(_key(each.strip()) for each in keys.split(",") if each.strip())
        if not self.keys:
            raise ValueError("give at least one key: openssl rand -base64 32")

    def unsubscribe(self, subscription_id: str, address: str) -> str:
        """The token by which this recipient unsubscribes; the same each time, until the key is replaced."""
        key = self.keys[0]
        body = _VERSION + _hashed(key, subscription_id, address) + subscription_id.encode(errors="replace")
        return base64.urlsafe_b64encode(body + _signature(key, body)).decode().rstrip("=")

    def read(self, token: str) -> Unsubscription | None:
        """What the token asks for; None if it is not one of these keys, damaged, or of a version that is not known."""
        raw = _decoded(token)
        body, signature = raw[:-_CUT], raw[-_CUT:]
        for key in self.keys:
            if hmac.compare_digest(_signature(key, body), signature) and body.startswith(_VERSION):
                digest, subscription_id = body[1 : _CUT + 1], body[_CUT + 1 :].decode()
                return Unsubscription(subscription_id=subscription_id, _digest=digest, _key=key)
        return None


class Links(LinkKeys):
    """The same, and where the gateway is: the whole URLs that go into mails."""

    def __init__(self, public_url: str, keys: str) -> None:
        super().__init__(keys)
        self._url = public_url.rstrip("/")

    def unsubscribe_url(self, subscription_id: str, address: str) -> str:
        return f"{self._url}{UNSUBSCRIBE}{self.unsubscribe(subscription_id, address)}"


def _key(encoded: str) -> bytes:
    try:
        key = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) < KEY_BYTES:
        raise ValueError(f"each key must be the base64 of at least {KEY_BYTES} bytes: openssl rand -base64 {KEY_BYTES}")
    return key


def _decoded(token: str) -> bytes:
    """The bytes of a token; none of one that is not in its only spelling, so that no two tokens ask for the same."""
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
    """What stands for the recipient: equal however the letters are written, another one for each subscription."""
    named = f"bellwire recipient\n{subscription_id}\n{address.strip().casefold()}"
    return hmac.digest(key, named.encode(errors="surrogatepass"), hashlib.sha256)[:_CUT]
