"""Exchange: what one attempt sent and what came back, for engineers who look into one delivery.

Secrets are replaced by REDACTED before an exchange is made; addresses and content are not, so it is stored sealed.
"""

import base64
import binascii
import zlib
from collections.abc import Sequence
from enum import StrEnum

from pydantic import TypeAdapter, ValidationError

from bellwire.models import Payload

#: Longest body that is kept, in characters.
MAX_BODY = 4096
#: Longest head that is kept, in characters: request or status line with headers, or SMTP commands with replies.
MAX_HEAD = 8192
#: Exchanges of one attempt that are kept: a mail has one for each recipient.
MAX_EXCHANGES = 20
#: What stands for a secret.
REDACTED = "[redacted]"


class KeepExchanges(StrEnum):
    """Of which attempts exchanges are kept."""

    ALL = "all"
    #: Of those that did not deliver.
    FAILED = "failed"
    NONE = "none"


class Exchange(Payload):
    """One request and its response, or the part of an SMTP session about one mail."""

    #: The request line and headers, or the SMTP commands.
    request: str
    #: The start of what was sent: the body, or the mail with its text decoded.
    request_body: str = ""
    #: The status line and headers, or the SMTP replies; empty: none came.
    response: str = ""
    #: The start of the body of the response.
    response_body: str = ""


_EXCHANGES: TypeAdapter[tuple[Exchange, ...]] = TypeAdapter(tuple[Exchange, ...])


def pack(exchanges: Sequence[Exchange]) -> str | None:
    """Exchanges as a compressed text for a column; None without any."""
    if not exchanges:
        return None
    raw = _EXCHANGES.dump_json(tuple(exchanges[:MAX_EXCHANGES]), exclude_defaults=True)
    return base64.b64encode(zlib.compress(raw, 1)).decode()


def unpack(packed: str | None) -> tuple[Exchange, ...]:
    """The exchanges in a text from `pack`; none for a text that is not one."""
    if not packed:
        return ()
    try:
        return _EXCHANGES.validate_json(zlib.decompress(base64.b64decode(packed)))
    except (binascii.Error, ValueError, ValidationError, zlib.error):
        return ()
