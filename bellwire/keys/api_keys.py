"""API keys: their form, their hash, and what each may do.

A key is `bw_`, 32 random letters and digits (190 bits), and 6 more that are a checksum of those, so that a mistyped key is
recognised without the registry and a scanner for leaked secrets finds keys without false alarms.
"""

import hashlib
import re
import secrets
import zlib
from typing import Self

from pydantic import ValidationError

from bellwire.models import Payload
from bellwire.tenants import tenant_name

PREFIX = "bw_"
RANDOM_CHARACTERS = 32
CHECKSUM_CHARACTERS = 6

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_KEY = re.compile(rf"{PREFIX}([0-9A-Za-z]{{{RANDOM_CHARACTERS}}})([0-9A-Za-z]{{{CHECKSUM_CHARACTERS}}})")


def new_api_key() -> str:
    """A new key. It is shown once; the registry stores its hash."""
    random = "".join(secrets.choice(_ALPHABET) for _ in range(RANDOM_CHARACTERS))
    return f"{PREFIX}{random}{_checksum(random)}"


def is_well_formed(key: str) -> bool:
    """Whether this can be a key: its form and its checksum are right."""
    found = _KEY.fullmatch(key)
    return found is not None and _checksum(found[1]) == found[2]


def api_key_hash(key: str) -> str:
    """What the registry stores of a key. A key is random enough that a plain hash cannot be guessed back."""
    return hashlib.sha256(key.encode()).hexdigest()


def _checksum(random: str) -> str:
    """The CRC-32 of the random part in base 62, with leading zeros."""
    number, digits = zlib.crc32(random.encode()), ""
    for _ in range(CHECKSUM_CHARACTERS):
        number, digit = divmod(number, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits


class Scope(Payload):
    """What a key may do: `admin` everything; `publish` publish events and follow them; `tenant:<id>` all that this tenant does
    with its own subscriptions and deliveries."""

    name: str
    #: The tenant of a `tenant:` scope.
    tenant: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError."""
        if text in {"admin", "publish"}:
            return cls(name=text)
        name, _, tenant = text.partition(":")
        if name != "tenant":
            raise ValueError("must be admin, publish or tenant:<tenant>")
        try:
            return cls(name=name, tenant=tenant_name(tenant))
        except (ValueError, ValidationError) as error:
            raise ValueError(f"tenant {error}") from error

    def __str__(self) -> str:
        return self.name if self.tenant is None else f"{self.name}:{self.tenant}"

    @property
    def is_admin(self) -> bool:
        return self.name == "admin"

    @property
    def can_publish(self) -> bool:
        return self.name in {"admin", "publish"}
