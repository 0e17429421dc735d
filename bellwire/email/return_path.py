"""Return paths: the envelope's sender of each mail tells, when the mail comes back, which delivery to whom it was (VERP).

bounces@mail.example.com becomes bounces+TOKEN@mail.example.com. The token is a letter for its form, the event's key
(16 bytes), the subscription's id, and a signature (8 bytes) over delivery and recipient, in URL-safe base64. So a bounce
that anybody makes up suppresses nobody, and one that is made from a mail somebody got concerns that one recipient only.

A local part has at most 64 octets (RFC 5321 §4.5.3.1.1). The id travels as its 16 bytes if Bellwire made it, as it is if
it fits, and otherwise not at all: then the Message-ID of the returned mail must say it.
"""

import base64
import binascii
import hashlib
import hmac
import re
from contextlib import suppress

from pydantic import TypeAdapter, ValidationError

from bellwire.deliveries import delivery_id
from bellwire.email.unsubscribe_links import LinkKeys
from bellwire.models import Payload
from bellwire.targets.email import EmailAddress

#: Octets of a local part.
_MAX_LOCAL_PART = 64
_KEY_BYTES = 16
_SIGNATURE_BYTES = 8
#: Characters of base64 without padding.
_KEY_LENGTH, _SIGNATURE_LENGTH = 22, 11
#: Longest local part of a return path: behind it, the shortest form of a token must fit.
MAX_LOCAL = _MAX_LOCAL_PART - len("+h") - _KEY_LENGTH - _SIGNATURE_LENGTH

_MADE_HERE = re.compile(r"sub_([0-9a-f]{32})")
_ADDRESS: TypeAdapter[str] = TypeAdapter(EmailAddress)
_LOCAL = re.compile(r"[A-Za-z0-9._-]+")


class Token(Payload):
    """What a return path says. Nothing of it is to be believed until `ReturnPath.signed` is True."""

    event_key: str
    #: None if it did not fit.
    subscription_id: str | None
    signature: bytes


class ReturnPath:
    """Makes and reads return paths below `address`, signed with `keys`."""

    def __init__(self, address: str, keys: LinkKeys) -> None:
        self._local, _, self._domain = check_return_path(address).rpartition("@")
        self._keys = keys.keys
        self._ours = re.compile(
            rf"{re.escape(self._local)}\+([uth])([A-Za-z0-9_-]{{{_KEY_LENGTH}}})([A-Za-z0-9_-]*)"
            rf"([A-Za-z0-9_-]{{{_SIGNATURE_LENGTH}}})@{re.escape(self._domain)}",
            # The local part and the domain in any case; a token whose case was changed on the way does not verify.
            re.IGNORECASE,
        )

    def sender(self, event_key: str, subscription_id: str, recipient: str) -> str:
        """The envelope's sender for the mail of a delivery to one recipient."""
        signature = _encoded(self._signature(self._keys[0], event_key, subscription_id, recipient))
        key = _encoded(base64.b32decode(f"{event_key.upper()}======"))
        room = _MAX_LOCAL_PART - len(self._local) - len("+t") - _KEY_LENGTH - _SIGNATURE_LENGTH
        made_here = _MADE_HERE.fullmatch(subscription_id)
        if made_here and room >= _KEY_LENGTH:
            form, name = "u", _encoded(bytes.fromhex(made_here[1]))
        elif len(subscription_id) <= room:
            form, name = "t", subscription_id
        else:
            form, name = "h", ""
        return f"{self._local}+{form}{key}{name}{signature}@{self._domain}"

    def read(self, address: str) -> Token | None:
        """What a return path says; None if the address is none."""
        found = self._ours.fullmatch(address)
        if found is None:
            return None
        form, key, name, signature = found.groups()
        try:
            event = base64.b32encode(_decoded(key, _KEY_BYTES)).decode().rstrip("=").lower()
            if form == "u":
                name = f"sub_{_decoded(name, _KEY_BYTES).hex()}"
            return Token(
                event_key=event,
                subscription_id=name or None,
                signature=_decoded(signature, _SIGNATURE_BYTES),
            )
        except (binascii.Error, ValueError):
            return None

    def signed(self, token: Token, subscription_id: str, recipient: str) -> bool:
        """Whether we sent a mail with this token to `recipient`, for this subscription."""
        return any(
            hmac.compare_digest(self._signature(key, token.event_key, subscription_id, recipient), token.signature)
            for key in self._keys
        )

    def _signature(self, key: bytes, event_key: str, subscription_id: str, recipient: str) -> bytes:
        said = f"return path\n{delivery_id(event_key, subscription_id)}\n{folded(recipient)}"
        return hmac.digest(key, said.encode(), hashlib.sha256)[:_SIGNATURE_BYTES]


def check_return_path(address: str) -> str:
    """The address, if it can be a return path. Raises ValueError."""
    local, _, domain = address.rpartition("@")
    try:
        _ADDRESS.validate_python(address)
    except ValidationError:
        local = ""
    if not _LOCAL.fullmatch(local) or not domain.isascii():
        raise ValueError("must be a bare address, such as bounces@mail.example.com, in ASCII and without a +")
    if len(local) > MAX_LOCAL:
        raise ValueError(f"has {len(local)} characters before the @; a token fits behind at most {MAX_LOCAL}")
    return address


def folded(recipient: str) -> str:
    """What two ways to write one address have in common: letters in one case, the domain in ASCII."""
    local, _, domain = recipient.strip().rpartition("@")
    with suppress(UnicodeError):
        domain = domain.encode("idna").decode()
    return f"{local}@{domain}".casefold()


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _decoded(text: str, size: int) -> bytes:
    """Raises ValueError unless the text is that many bytes, and the only way to write them."""
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if len(raw) != size or _encoded(raw) != text:
        raise ValueError("is not a token's part")
    return raw
