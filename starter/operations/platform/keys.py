"""Encryption keys: make one, and encrypt the registry's data with the first of them."""

import base64
import secrets
import string
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass

from bellwire.keys.keyring import KeyRing, new_entry
from bellwire.registry import Registry
from bellwire.registry.upkeep.rekeying import COLUMNS, Row

#: Characters of a generated key id.
ID_LENGTH = 8
#: Random bytes of a generated password or token, and of a key that signs links.
PASSWORD_BYTES, LINK_KEY_BYTES = 24, 32


@dataclass(frozen=True)
class Progress:
    """How far a pass over one column has come."""

    column: str
    #: Rows read in this step.
    rows: int
    #: Values in them that are not under the first key, by the id of their key; None: not encrypted.
    others: Counter[str | None]


def new_key(key_id: str | None = None) -> str:
    """An entry for BELLWIRE_ENCRYPTION_KEYS with a new key. Raises KeysInvalid for a bad id."""
    letters = string.ascii_lowercase + string.digits
    entry = new_entry("".join(secrets.choice(letters) for _ in range(ID_LENGTH)) if key_id is None else key_id)
    KeyRing.parse(entry)
    return entry


def new_environment() -> str:
    """The lines of a file .env for docker-compose.yml, with a new password, encryption key, token and link key."""
    link_key = base64.b64encode(secrets.token_bytes(LINK_KEY_BYTES)).decode()
    return f"""# Passwords and keys of docker-compose.yml. Keep a copy in a safe place: what is encrypted is lost without its key.
POSTGRES_PASSWORD={secrets.token_hex(PASSWORD_BYTES)}
BELLWIRE_ENCRYPTION_KEYS={new_key()}
# To read encrypted runs in Temporal's UI, enter it at http://127.0.0.1:8100/codec/login.
BELLWIRE_CODEC_TOKENS={secrets.token_hex(PASSWORD_BYTES)}
# For unsubscribe links and callbacks of SMS providers, set the public URL of the gateway and remove the marks.
#BELLWIRE_PUBLIC_URL=https://bellwire.example.com
#BELLWIRE_LINK_KEY={link_key}
"""


async def rekey(registry: Registry, *, dry_run: bool) -> AsyncIterator[Progress]:
    """Encrypt every value with the first key, step by step; with `dry_run` only count those that are not."""
    recorded = dry_run
    for column in COLUMNS:
        after: Row | None = None
        while True:
            window = await registry.rekeying.scan(column, after=after)
            if window.stale and not recorded:
                recorded = True
                await registry.audit_log.record("registry.rekeyed", column)
            if not dry_run:
                await registry.rekeying.rekey(column, window.stale)
            yield Progress(column, window.rows, Counter(item.key_id for item in window.stale))
            if window.reached is None:
                break
            after = window.reached
