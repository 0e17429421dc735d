"""Sealed: a column type for private data, encrypted if the registry was opened with keys.

A sealed value is `sealed:<key id>:<base64>` and bound to its column. Other values are read as plain text, so that keys can
be added while the registry is in use.
"""

import base64
import binascii

from sqlalchemy import Dialect, Text, TypeDecorator

from bellwire.errors import NotReadable
from bellwire.keys.keyring import KeyRing

_MARK = "sealed:"


class Sealed(TypeDecorator[str]):
    """Encrypted text. SQL can neither compare nor search it.

    `name` ("table.column") is part of the encryption, so it must stay the same if the column is renamed.
    """

    impl = Text
    cache_ok = True

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        ring = ring_of(dialect)
        return value if value is None or ring is None else seal(ring, value, column=self.name)

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else unseal(ring_of(dialect), value, column=self.name)


def give_ring(dialect: Dialect, ring: KeyRing | None) -> None:
    """Set the keys of the engine that this dialect belongs to."""
    dialect.bellwire_ring = ring  # type: ignore[attr-defined]


def ring_of(dialect: Dialect) -> KeyRing | None:
    """Return the keys of the engine that this dialect belongs to."""
    ring: KeyRing | None = getattr(dialect, "bellwire_ring", None)
    return ring


def mark_of(key_id: str) -> str:
    """Return the prefix of all values that are sealed with this key."""
    return f"{_MARK}{key_id}:"


def key_of(value: str) -> str | None:
    """Return the id of the key that a value is sealed with; None if it is plain text."""
    return value[len(_MARK) :].partition(":")[0] if value.startswith(_MARK) else None


def seal(ring: KeyRing, value: str, *, column: str) -> str:
    return mark_of(ring.first) + base64.b64encode(ring.seal(value.encode(), purpose=_purpose(column))).decode()


def unseal(ring: KeyRing | None, value: str, *, column: str) -> str:
    """Decrypt a value. Raises NotReadable, which names the key."""
    if (key_id := key_of(value)) is None:
        return value
    if ring is None:
        raise NotReadable(
            f"{column} is encrypted with key {key_id[:40]!r}, but no keys are configured; set BELLWIRE_ENCRYPTION_KEYS"
        )
    try:
        sealed = base64.b64decode(value[len(mark_of(key_id)) :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise NotReadable(f"{column} is encrypted with key {key_id[:40]!r}, but the stored value is corrupt") from error
    return ring.open(key_id, sealed, purpose=_purpose(column)).decode()


def _purpose(column: str) -> str:
    return f"registry {column}"
