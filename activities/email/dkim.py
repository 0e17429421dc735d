"""DKIM signatures (RFC 6376, 8301, 8463): the receiver learns that the domain sent this mail, and that it is as it was.

Body and headers are put into canonical form by dkimpy and signed by OpenSSL, in 0.4 ms for RSA of 2048 bits and without
holding up other threads; dkimpy's own signing takes 8 ms and does.
"""

import base64
import hashlib
import re
import time
from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from dkim.canonicalization import Relaxed  # type: ignore[import-untyped]

#: What is signed, each once more than it is there, so that nobody can add another one. RFC 8058 §4 wants both headers of
#: the list among them; the rest is RFC 6376 §5.4.1.
SIGNED = (
    "from",
    "to",
    "cc",
    "reply-to",
    "subject",
    "date",
    "message-id",
    "in-reply-to",
    "references",
    "mime-version",
    "content-type",
    "content-transfer-encoding",
    "auto-submitted",
    "list-unsubscribe",
    "list-unsubscribe-post",
)
#: Bits of RSA keys that every verifier takes (RFC 8301 §3.2).
RSA_BITS = range(1024, 4097)
#: Longest RSA key that signs in less than a millisecond; one of 4096 bits takes two.
FAST_BITS = 2048

_FIELD_ENDS = re.compile(rb"\r\n(?![ \t])")
_LINE = 72

Sign = Callable[[bytes], bytes]


class DkimSigner:
    """Signs mails for `domain` with a key whose public half is published at SELECTOR._domainkey.DOMAIN.

    `key` is a private key as PEM, RSA or Ed25519, or the path of a file with one. Raises ValueError, which names the
    variable that is wrong and shows nothing of the key.
    """

    def __init__(self, domain: str, selector: str, key: str) -> None:
        #: `slow`: whether signing takes more than a millisecond, whatever the mail.
        self._algorithm, self._sign, self.slow = _signing(key)
        self._place = f"d={domain}; s={selector};"

    def sign(self, mail: bytes) -> bytes:
        """The mail with its signature in front. Lines must end in CR LF."""
        head, _, body = mail.partition(b"\r\n\r\n")
        digest = hashlib.sha256(Relaxed.canonicalize_body(body)).digest()
        fields = _FIELD_ENDS.split(head)
        present = {name: field for field in fields if (name := field.partition(b":")[0].strip().lower().decode())}
        named = [name for name in SIGNED for _ in range(2 if name in present else 1)]
        signature = (
            f"DKIM-Signature: v=1; a={self._algorithm}; c=relaxed/relaxed;\r\n {self._place}\r\n t={int(time.time())};"
            f"\r\n h={_folded(named)};\r\n bh={base64.b64encode(digest).decode()};\r\n b="
        ).encode("ascii")
        # RFC 6376 §3.7: of a header that is named more often than it is there, the rest is the empty string.
        signed = b"".join(_canonical(present[name]) for name in SIGNED if name in present)
        made = base64.b64encode(self._sign(signed + _canonical(signature).removesuffix(b"\r\n")))
        lines = [made[at : at + _LINE] for at in range(0, len(made), _LINE)]
        return signature + b"\r\n ".join(lines) + b"\r\n" + mail


def _canonical(field: bytes) -> bytes:
    name, _, value = field.partition(b":")
    [canonical] = Relaxed.canonicalize_headers([(name, value)])
    return b":".join(canonical)


def _folded(names: list[str]) -> str:
    """Names with colons between them, in lines that are not too long."""
    lines = [names[at : at + 4] for at in range(0, len(names), 4)]
    return ":\r\n  ".join(":".join(line) for line in lines)


def _signing(key: str) -> tuple[str, Sign, bool]:
    """The algorithm of the key, what signs with it, and whether that takes more than a millisecond."""
    pem = _pem(key)
    try:
        loaded = serialization.load_pem_private_key(pem, password=None)
    except TypeError as error:
        raise ValueError("BELLWIRE_DKIM_KEY: the key is encrypted; give it without a passphrase") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError("BELLWIRE_DKIM_KEY: holds no private key as PEM: openssl genrsa 2048") from error
    if isinstance(loaded, ed25519.Ed25519PrivateKey):
        # RFC 8463 §3: what is signed is the hash.
        return "ed25519-sha256", lambda text: loaded.sign(hashlib.sha256(text).digest()), False
    if not isinstance(loaded, rsa.RSAPrivateKey):
        raise ValueError("BELLWIRE_DKIM_KEY: the key is neither RSA nor Ed25519: openssl genrsa 2048")  # noqa: TRY004
    if loaded.key_size not in RSA_BITS:
        raise ValueError(
            f"BELLWIRE_DKIM_KEY: the key has {loaded.key_size} bits; receivers take 1024 to 4096, use 2048"
        )
    return (
        "rsa-sha256",
        lambda text: loaded.sign(text, padding.PKCS1v15(), hashes.SHA256()),
        loaded.key_size > FAST_BITS,
    )


def _pem(key: str) -> bytes:
    if "-----BEGIN" in key:
        return key.replace("\\n", "\n").encode()  # as files of variables hold it, on one line
    try:
        return Path(key).read_bytes()
    except (OSError, ValueError) as error:
        # Without its text, which holds what may be a key.
        raise ValueError(
            f"BELLWIRE_DKIM_KEY: is neither a PEM (-----BEGIN …) nor a file that can be read ({type(error).__name__})"
        ) from None
