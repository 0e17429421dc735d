"""DKIM signatures (RFC 6376, 8301, 8463): they prove that the domain sent a mail and that it was not changed.

dkimpy canonicalizes body and headers, and OpenSSL signs them: 0.4 ms with a 2048-bit RSA key, without blocking other
threads. dkimpy's own signing takes 8 ms and blocks them.
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

#: Headers that are signed. The signature names each once more than the mail has it, so that adding another one breaks the
#: signature. RFC 8058 §4 requires both List- headers; the rest is RFC 6376 §5.4.1.
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
#: Sizes of RSA keys in bits that every verifier supports (RFC 8301 §3.2).
RSA_BITS = range(1024, 4097)
#: Size of the largest RSA key that signs in less than a millisecond; a 4096-bit key takes two.
FAST_BITS = 2048

_FIELD_ENDS = re.compile(rb"\r\n(?![ \t])")
_LINE = 72

Sign = Callable[[bytes], bytes]


class DkimSigner:
    """Signs mails for `domain`, whose public key is published at SELECTOR._domainkey.DOMAIN.

    `key` is an RSA or Ed25519 private key in PEM, or the path of a PEM file. Raises ValueError, which names the environment
    variable and never contains the key.
    """

    def __init__(self, domain: str, selector: str, key: str) -> None:
        #: `slow`: whether each signature takes more than a millisecond.
        self._algorithm, self._sign, self.slow = _signing(key)
        self._domain_tags = f"d={domain}; s={selector};"

    def sign(self, mail: bytes) -> bytes:
        """The mail with a DKIM-Signature header in front. Lines must end with CR LF."""
        head, _, body = mail.partition(b"\r\n\r\n")
        digest = hashlib.sha256(Relaxed.canonicalize_body(body)).digest()
        fields = _FIELD_ENDS.split(head)
        present = {name: field for field in fields if (name := field.partition(b":")[0].strip().lower().decode())}
        named = [name for name in SIGNED for _ in range(2 if name in present else 1)]
        signature = (
            f"DKIM-Signature: v=1; a={self._algorithm}; c=relaxed/relaxed;\r\n {self._domain_tags}\r\n t={int(time.time())};"
            f"\r\n h={_folded(named)};\r\n bh={base64.b64encode(digest).decode()};\r\n b="
        ).encode("ascii")
        # RFC 6376 §3.7: a header that is named more often than it occurs counts as the empty string.
        signed = b"".join(_canonical(present[name]) for name in SIGNED if name in present)
        encoded = base64.b64encode(self._sign(signed + _canonical(signature).removesuffix(b"\r\n")))
        lines = [encoded[start : start + _LINE] for start in range(0, len(encoded), _LINE)]
        return signature + b"\r\n ".join(lines) + b"\r\n" + mail


def _canonical(field: bytes) -> bytes:
    name, _, value = field.partition(b":")
    [canonical] = Relaxed.canonicalize_headers([(name, value)])
    return b":".join(canonical)


def _folded(names: list[str]) -> str:
    """The names with colons between them, folded into several lines."""
    lines = [names[start : start + 4] for start in range(0, len(names), 4)]
    return ":\r\n  ".join(":".join(line) for line in lines)


def _signing(key: str) -> tuple[str, Sign, bool]:
    """The algorithm of the key, its signing function, and whether that takes more than a millisecond."""
    pem = _pem(key)
    try:
        loaded = serialization.load_pem_private_key(pem, password=None)
    except TypeError as error:
        raise ValueError("BELLWIRE_DKIM_KEY: the key is encrypted; remove its passphrase") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError("BELLWIRE_DKIM_KEY: is not a private key in PEM: openssl genrsa 2048") from error
    if isinstance(loaded, ed25519.Ed25519PrivateKey):
        # RFC 8463 §3: Ed25519 signs the hash.
        return "ed25519-sha256", lambda text: loaded.sign(hashlib.sha256(text).digest()), False
    if not isinstance(loaded, rsa.RSAPrivateKey):
        raise ValueError("BELLWIRE_DKIM_KEY: the key is neither RSA nor Ed25519: openssl genrsa 2048")  # noqa: TRY004
    if loaded.key_size not in RSA_BITS:
        raise ValueError(
            f"BELLWIRE_DKIM_KEY: the key has {loaded.key_size} bits; receivers accept 1024 to 4096, use 2048"
        )
    return (
        "rsa-sha256",
        lambda text: loaded.sign(text, padding.PKCS1v15(), hashes.SHA256()),
        loaded.key_size > FAST_BITS,
    )


def _pem(key: str) -> bytes:
    if "-----BEGIN" in key:
        return key.replace("\\n", "\n").encode()  # on one line, as in .env files
    try:
        return Path(key).read_bytes()
    except (OSError, ValueError) as error:
        # Without the error's text, which may contain the key.
        raise ValueError(
            f"BELLWIRE_DKIM_KEY: is neither PEM (-----BEGIN …) nor a readable file ({type(error).__name__})"
        ) from None
