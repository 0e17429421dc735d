"""KeyRing: the keys that encrypt private data, in Temporal's histories and in the registry.

AES-256-GCM with random 96-bit nonces, which is safe for 2^32 values per key (NIST SP 800-38D §8.3). So values are not
encrypted with a key of the ring itself, but with a key derived from it (HKDF-SHA256, RFC 5869) by a random salt. Each process
generates its own salt, and a new one long before that limit.
"""

import base64
import binascii
import functools
import hashlib
import hmac
import itertools
import os
import re
from collections.abc import Mapping
from typing import Any, Self

from bellwire.errors import KeysInvalid, NotReadable

KEY_BYTES = 32
SALT_BYTES = 16
NONCE_BYTES = 12
#: Values that are encrypted with one salt.
MAX_PER_SALT = 2**28
#: Derived keys of other processes' salts that are cached. Deriving one takes some 20 µs.
CACHED_SALTS = 1024

_ID = re.compile(r"[A-Za-z0-9_-]{1,32}")


class KeyRing:
    """Keys of 32 bytes by id: the first encrypts, all decrypt. Threads may share it.

    Raises KeysInvalid, also if the library `cryptography` is missing.
    """

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        if not keys:
            raise KeysInvalid("no key given; generate one with `python -m starter keys new`")
        for key_id, key in keys.items():
            if not _ID.fullmatch(key_id):
                raise KeysInvalid(f"key id {key_id[:40]!r}: must be 1 to 32 letters, digits, - or _")
            if len(key) != KEY_BYTES:
                raise KeysInvalid(
                    f"key {key_id}: has {len(key)} bytes, must have {KEY_BYTES}; generate one with `python -m starter keys new`"
                )
        self._keys = dict(keys)
        try:
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError as error:
            raise KeysInvalid("encryption needs the library cryptography: pip install cryptography") from error
        self._aes_gcm, self._invalid = AESGCM, InvalidTag
        self._known = functools.lru_cache(maxsize=CACHED_SALTS)(self._cipher)
        self._used = itertools.count(1)
        self._new_salt()
        self._address_keys = {
            key_id: _derived(key, b"", b"bellwire suppressed address") for key_id, key in keys.items()
        }

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `id:base64,id2:base64`, the format of BELLWIRE_ENCRYPTION_KEYS. Raises KeysInvalid, without showing a key."""
        keys: dict[str, bytes] = {}
        for number, entry in enumerate(text.split(","), start=1):
            key_id, separator, encoded = entry.strip().partition(":")
            if not separator:
                raise KeysInvalid(f"entry {number}: must be id:base64, as `python -m starter keys new` prints it")
            if key_id in keys:
                raise KeysInvalid(f"key {key_id}: given twice; give each key its own id")
            try:
                keys[key_id] = base64.b64decode(encoded.strip(), validate=True)
            except (binascii.Error, ValueError):
                raise KeysInvalid(f"entry {number}: is not valid base64 after the colon") from None
        return cls(keys)

    @property
    def first(self) -> str:
        """The id of the key that encrypts."""
        return next(iter(self._keys))

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self._keys)

    def seal(self, plain: bytes, *, purpose: str) -> bytes:
        """Encrypt with the first key; return salt, nonce and ciphertext. `open` needs the same `purpose`."""
        if next(self._used) % MAX_PER_SALT == 0:
            self._new_salt()
        salt, cipher = self._sealing
        nonce = os.urandom(NONCE_BYTES)
        sealed: bytes = cipher.encrypt(nonce, plain, _bound(self.first, purpose))
        return salt + nonce + sealed

    def open(self, key_id: str, sealed: bytes, *, purpose: str) -> bytes:
        """Decrypt what was sealed with the key `key_id`. Raises NotReadable."""
        if key_id not in self._keys:
            raise NotReadable(f"encrypted with key {key_id[:40]!r}, which is not among {', '.join(self._keys)}; add it")
        salt, nonce = sealed[:SALT_BYTES], sealed[SALT_BYTES : SALT_BYTES + NONCE_BYTES]
        try:
            plain: bytes = self._known(key_id, salt).decrypt(
                nonce, sealed[SALT_BYTES + NONCE_BYTES :], _bound(key_id, purpose)
            )
        except (ValueError, self._invalid) as error:
            raise NotReadable(
                f"key {key_id} does not decrypt it: the key with this id was another one, or the stored value is corrupt"
            ) from error
        return plain

    def address_key(self, key_id: str, text: str) -> str:
        """Return a keyed hash of an address, so that addresses cannot be guessed without the key."""
        return f"{key_id}:{hmac.new(self._address_keys[key_id], text.encode(), hashlib.sha256).hexdigest()}"

    def _new_salt(self) -> None:
        salt = os.urandom(SALT_BYTES)
        self._sealing = salt, self._cipher(self.first, salt)

    def _cipher(self, key_id: str, salt: bytes) -> Any:
        return self._aes_gcm(_derived(self._keys[key_id], salt, b"bellwire aes-256-gcm"))

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(self._keys)})"


def ring_of(keys: KeyRing | str | None) -> KeyRing | None:
    """Return the ring that a caller gave, or parsed from text; None for None and for empty text."""
    if isinstance(keys, str):
        return KeyRing.parse(keys) if keys.strip() else None
    return keys


def new_entry(key_id: str) -> str:
    """Return an entry of BELLWIRE_ENCRYPTION_KEYS with a new key."""
    return f"{key_id}:{base64.b64encode(os.urandom(KEY_BYTES)).decode()}"


def _derived(key: bytes, salt: bytes, info: bytes) -> bytes:
    """Derive a key of 32 bytes by HKDF-SHA256. 32 bytes are one block of its output."""
    extracted = hmac.digest(salt or bytes(32), key, hashlib.sha256)
    return hmac.digest(extracted, info + b"\x01", hashlib.sha256)


def _bound(key_id: str, purpose: str) -> bytes:
    """Return the associated data, which binds a value to its key and purpose."""
    return f"bellwire 1\n{key_id}\n{purpose}".encode()
