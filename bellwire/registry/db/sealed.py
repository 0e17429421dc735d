"""Sealed: the type of columns that hold private data. They are encrypted if the registry was opened with keys.

A sealed value is `sealed:<key id>:<base64>`, bound to its column. Others are read as they are, so that keys can be
introduced while the registry is in use.
"""

import base64
import binascii

from sqlalchemy import Dialect, Text, TypeDecorator

from bellwire.errors import NotReadable
from bellwire.keys.keyring import KeyRing

_MARK = "sealed:"


class Sealed(TypeDecorator[str]):
    """Text of the column `name` ("table.column"), under which name it stays sealed if the column gets another.

    SQL can neither compare nor search it.
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
    """Let the engine of this dialect, which no other engine shares, seal with these keys."""
    dialect.bellwire_ring = ring  # type: ignore[attr-defined]


def ring_of(dialect: Dialect) -> KeyRing | None:
    """The keys of the engine of this dialect."""
    ring: KeyRing | None = getattr(dialect, "bellwire_ring", None)
    return ring


def mark_of(key_id: str) -> str:
    """How every value begins that is sealed with this key."""
    return f"{_MARK}{key_id}:"


def key_of(value: str) -> str | None:
    """The id of the key that a value is sealed with; None if it is in the clear."""
    return value[len(_MARK) :].partition(":")[0] if value.startswith(_MARK) else None


def seal(ring: KeyRing, value: str, *, column: str) -> str:
    return mark_of(ring.first) + base64.b64encode(ring.seal(value.encode(), purpose=_purpose(column))).decode()


def unseal(ring: KeyRing | None, value: str, *, column: str) -> str:
    """Raises NotReadable, which names the key."""
    if (key_id := key_of(value)) is None:
        return value
    if ring is None:
        raise NotReadable(
            f"{column} is encrypted with key {key_id[:40]!r}, and there are none here; set BELLWIRE_ENCRYPTION_KEYS"
        )
    try:
        sealed = base64.b64decode(value[len(mark_of(key_id)) :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise NotReadable(f"{column} is encrypted with key {key_id[:40]!r}, and what is stored was changed") from error
    return ring.open(key_id, sealed, purpose=_purpose(column)).decode()


def _purpose(column: str) -> str:
    return f"registry {column}"
