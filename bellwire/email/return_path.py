"""Return paths: the envelope sender of each mail identifies its delivery and recipient, so that a bounce does too (VERP).

bounces@mail.example.com becomes bounces+TOKEN@mail.example.com. The token is a letter for its form, the event's key
(16 bytes), the subscription's id, and a signature (8 bytes) of delivery and recipient, in URL-safe base64. A forged bounce
therefore suppresses no address, and one that is forged from a received mail concerns only its recipient.

A local part has at most 64 octets (RFC 5321 §4.5.3.1.1). The subscription's id is written as 16 bytes if Bellwire generated
it, as text if it fits, and otherwise left out; the signature then tells which of the event's deliveries it was.
"""

import base64
import binascii
import hashlib
import hmac
import re

from pydantic import TypeAdapter, ValidationError

from bellwire.deliveries import delivery_id
from bellwire.email.unsubscribe_links import LinkKeys
from bellwire.formats.mailboxes import mailbox_key
from bellwire.models import Payload
from bellwire.targets.email import EmailAddress

#: Octets of a local part.
_MAX_LOCAL_PART = 64
_KEY_BYTES = 16
_SIGNATURE_BYTES = 8
#: Characters of base64 without padding.
_KEY_LENGTH, _SIGNATURE_LENGTH = 22, 11
#: Longest local part of a return path that leaves room for the shortest token.
MAX_LOCAL = _MAX_LOCAL_PART - len("+h") - _KEY_LENGTH - _SIGNATURE_LENGTH

_GENERATED_ID = re.compile(r"sub_([0-9a-f]{32})")
_ADDRESS: TypeAdapter[str] = TypeAdapter(EmailAddress)
_LOCAL = re.compile(r"[A-Za-z0-9._-]+")


class ReturnPathToken(Payload):
    """The content of a return path. It is untrusted until `ReturnPath.verifies` it."""

    event_key: str
    #: None if it did not fit.
    subscription_id: str | None
    signature: bytes


class ReturnPath:
    """Creates and reads return paths of the form `address` with a token, signed with `keys`."""

    def __init__(self, address: str, keys: LinkKeys) -> None:
        self._local, _, self._domain = check_return_path(address).rpartition("@")
        self._keys = keys.keys
        self._pattern = re.compile(
            # Relays put tags before it: BATV (prvs=TAG=), SRS, Exchange (IMCEASMTP-). Some replace the domain, and the
            # signature is what counts. The local part may change its case; for a token, see `is_sender`.
            rf"(?:[^\s@]{{1,200}}[=/-])?{re.escape(self._local)}\+([uth])([A-Za-z0-9_-]{{{_KEY_LENGTH}}})([A-Za-z0-9_-]{{0,64}})"
            rf"([A-Za-z0-9_-]{{{_SIGNATURE_LENGTH}}})(?:[%!][^\s@]{{1,253}})?@\S{{1,253}}",
            re.IGNORECASE | re.ASCII,
        )

    def sender(self, event_key: str, subscription_id: str, recipient: str) -> str:
        """The envelope sender for one recipient of a delivery."""
        return self._sender(self._keys[0], event_key, subscription_id, recipient)

    def is_sender(self, address: str, event_key: str, subscription_id: str, recipient: str) -> bool:
        """Whether the address is this envelope sender, perhaps behind tags, and with its case changed by a mail system.

        Without regard to case, a signature still has more than 55 bits.
        """
        local = address.partition("@")[0].rpartition("=")[2].casefold().encode()
        senders = (self._sender(key, event_key, subscription_id, recipient) for key in self._keys)
        return any(hmac.compare_digest(each.partition("@")[0].casefold().encode(), local) for each in senders)

    def _sender(self, signing_key: bytes, event_key: str, subscription_id: str, recipient: str) -> str:
        signature = _encoded(self._signature(signing_key, event_key, subscription_id, recipient))
        key = _encoded(base64.b32decode(f"{event_key.upper()}======"))
        room = _MAX_LOCAL_PART - len(self._local) - len("+t") - _KEY_LENGTH - _SIGNATURE_LENGTH
        generated = _GENERATED_ID.fullmatch(subscription_id)
        if generated and room >= _KEY_LENGTH:
            form, name = "u", _encoded(bytes.fromhex(generated[1]))
        elif len(subscription_id) <= room:
            form, name = "t", subscription_id
        else:
            form, name = "h", ""
        return f"{self._local}+{form}{key}{name}{signature}@{self._domain}"

    def read(self, address: str) -> ReturnPathToken | None:
        """The token in the address, also behind tags of relays; None if the address is not one of these return paths."""
        found = self._pattern.fullmatch(address)
        if found is None:
            return None
        form, key, name, signature = found.groups()
        try:
            event = base64.b32encode(_decoded(key, _KEY_BYTES)).decode().rstrip("=").lower()
            if form == "u":
                name = f"sub_{_decoded(name, _KEY_BYTES).hex()}"
            return ReturnPathToken(
                event_key=event,
                subscription_id=name or None,
                signature=_decoded(signature, _SIGNATURE_BYTES),
            )
        except (binascii.Error, ValueError):
            return None

    def verifies(self, token: ReturnPathToken, subscription_id: str, recipient: str) -> bool:
        """Whether the signature is valid: Bellwire sent a mail with this token to `recipient` for this subscription."""
        return any(
            hmac.compare_digest(self._signature(key, token.event_key, subscription_id, recipient), token.signature)
            for key in self._keys
        )

    def _signature(self, key: bytes, event_key: str, subscription_id: str, recipient: str) -> bytes:
        signed = f"return path\n{delivery_id(event_key, subscription_id)}\n{normalized(recipient)}"
        return hmac.digest(key, signed.encode(), hashlib.sha256)[:_SIGNATURE_BYTES]


def check_return_path(address: str) -> str:
    """Return the address if it can be a return path. Raises ValueError otherwise."""
    local, _, domain = address.rpartition("@")
    try:
        _ADDRESS.validate_python(address)
    except ValidationError:
        local = ""
    if not _LOCAL.fullmatch(local) or not domain.isascii():
        raise ValueError("must be a bare address, such as bounces@mail.example.com, in ASCII and without a +")
    if len(local) > MAX_LOCAL:
        raise ValueError(f"has {len(local)} characters before the @; at most {MAX_LOCAL} leave room for a token")
    return address


def normalized(recipient: str) -> str:
    """What is equal for all spellings of one mailbox."""
    return mailbox_key(recipient)


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _decoded(text: str, size: int) -> bytes:
    """The `size` bytes that the text encodes. Raises ValueError for another size or a non-canonical encoding."""
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if len(raw) != size or _encoded(raw) != text:
        raise ValueError("is not part of a token")
    return raw
