"""Signing keys of webhooks: Standard Webhooks 1.0.0, "Signature scheme", in both schemes.

    whsec_…  a shared secret of 24 to 64 bytes: signs and verifies `v1`, HMAC-SHA256
    whsk_…   an ed25519 private key: signs `v1a`, and verifies with its public half
    whpk_…   its public key: verifies `v1a` only

The text after the prefix is base64. The specification does not define the bytes of a private key. Both the seed (32 bytes)
and seed and public key (64 bytes, as in NaCl and other senders) are read; the latter is generated.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from enum import StrEnum
from functools import lru_cache
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_SHARED_BYTES = range(24, 65)
_SEED_BYTES = _PUBLIC_BYTES = 32
_SIGNATURE_BYTES = 64
#: The public keys whose point has a small order, without the sign bit: for some messages, anybody can sign with them.
_SMALL_ORDER = frozenset(
    map(
        bytes.fromhex,
        (
            "00" * 32,
            "01" + "00" * 31,
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
            "ec" + "ff" * 30 + "7f",
            "ed" + "ff" * 30 + "7f",
            "ee" + "ff" * 30 + "7f",
        ),
    )
)


class KeyKind(StrEnum):
    """Symmetric: sender and receiver share a secret. Asymmetric: the sender signs, receivers have the public key."""

    SYMMETRIC = "symmetric"
    ASYMMETRIC = "asymmetric"


class SigningKey(Protocol):
    """A parsed key. A public key cannot sign."""

    kind: KeyKind

    def sign(self, signed: bytes) -> str:
        """Return a signature in the format of the header. Raises ValueError for a public key."""

    def verifies(self, entries: Sequence[bytes], signed: bytes) -> bool:
        """Whether one of the header's entries is this key's signature. Other and malformed entries are not.

        Comparisons with a secret take constant time.
        """

    @property
    def public(self) -> str | None:
        """The public key as whpk_…; None for a shared secret."""


class _Shared:
    kind = KeyKind.SYMMETRIC
    public = None

    def __init__(self, key: bytes) -> None:
        self._key = key

    def sign(self, signed: bytes) -> str:
        # hmac.digest would release the interpreter lock and wait for it at each signature.
        return "v1," + base64.b64encode(hmac.new(self._key, signed, hashlib.sha256).digest()).decode()

    def verifies(self, entries: Sequence[bytes], signed: bytes) -> bool:
        expected = self.sign(signed).encode()
        matches = [hmac.compare_digest(expected, entry) for entry in entries]
        return any(matches)


class _Public:
    kind = KeyKind.ASYMMETRIC

    def __init__(self, key: "Ed25519PublicKey") -> None:
        self._key = key

    @property
    def public(self) -> str:
        return "whpk_" + base64.b64encode(self._key.public_bytes_raw()).decode()

    def sign(self, signed: bytes) -> str:  # noqa: ARG002
        raise ValueError("secret: whpk_ is a public key and can only verify; sign with its whsk_")

    def verifies(self, entries: Sequence[bytes], signed: bytes) -> bool:
        return any(self._verifies(entry, signed) for entry in entries)

    def _verifies(self, entry: bytes, signed: bytes) -> bool:
        from cryptography.exceptions import InvalidSignature

        version, _, encoded = entry.partition(b",")
        signature = _decoded(encoded) if version == b"v1a" else b""
        if len(signature) != _SIGNATURE_BYTES:
            return False
        try:
            self._key.verify(signature, signed)
        except InvalidSignature:
            return False
        return True


class _Private(_Public):
    def __init__(self, key: "Ed25519PrivateKey") -> None:
        super().__init__(key.public_key())
        self._private = key

    def sign(self, signed: bytes) -> str:
        return "v1a," + base64.b64encode(self._private.sign(signed)).decode()


def read_key(secret: str) -> SigningKey:
    """Parse a key. Raises ValueError, whose message never contains the key."""
    prefix, _, encoded = secret.partition("_")
    key = _decoded(encoded.encode(errors="replace"))
    match prefix:
        case "whsk":
            return _private(key)
        case "whpk":
            if len(key) != _PUBLIC_BYTES:
                raise ValueError(
                    f"secret: whpk_ must be followed by the base64 of {_PUBLIC_BYTES} bytes, an ed25519 key"
                )
            if key[:-1] + bytes([key[-1] & 0x7F]) in _SMALL_ORDER:
                raise ValueError(
                    "secret: this whpk_ is a weak key, for which anybody can sign; ask the sender for its key"
                )
            return _Public(_ed25519().Ed25519PublicKey.from_public_bytes(key))
    if prefix != "whsec" or len(key) not in _SHARED_BYTES:
        raise ValueError(
            "secret: must be whsec_ and the base64 of 24 to 64 bytes, or whsk_ and the base64 of an ed25519 key; "
            "generate_secret() generates one"
        )
    return _Shared(key)


@lru_cache(1024)  # parsing takes two thirds as long as signing
def _private(key: bytes) -> SigningKey:
    seed, public = key[:_SEED_BYTES], key[_SEED_BYTES:]
    if len(seed) != _SEED_BYTES or len(public) not in {0, _PUBLIC_BYTES}:
        raise ValueError(
            "secret: whsk_ must be followed by the base64 of an ed25519 key: its seed (32 bytes), or seed and public key (64)"
        )
    private = _ed25519().Ed25519PrivateKey.from_private_bytes(seed)
    if public and public != private.public_key().public_bytes_raw():
        raise ValueError(
            "secret: the public key in this whsk_ does not match its seed; generate_secret() generates a pair"
        )
    return _Private(private)


def signing_key(secret: str) -> SigningKey:
    """Parse a key that can sign. Raises ValueError, whose message never contains the key."""
    key = read_key(secret)
    key.sign(b"")
    return key


def generate_secret(kind: KeyKind | str = KeyKind.SYMMETRIC) -> str:
    """Generate a signing secret: whsec_ and 32 random bytes, or for `asymmetric` whsk_ and an ed25519 key, in base64.

    Receivers of an asymmetric one need only its `public_key`.
    """
    if KeyKind(kind) is KeyKind.SYMMETRIC:
        return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    seed = secrets.token_bytes(_SEED_BYTES)
    public = _ed25519().Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    return "whsk_" + base64.b64encode(seed + public).decode()


def public_key(secret: str) -> str:
    """Return the public key, whpk_…, of a whsk_ or whpk_. Raises ValueError for a whsec_."""
    public = read_key(secret).public
    if public is None:
        raise ValueError("secret: whsec_ is a shared secret and has no public key; use whsk_")
    return public


def _decoded(encoded: bytes) -> bytes:
    """Decode base64; return no bytes if it is invalid."""
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return b""


def _ed25519() -> ModuleType:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "whsk_ and whpk_ need the library cryptography: pip install cryptography", name="cryptography"
        ) from error
    return ed25519
