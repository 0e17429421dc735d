"""Private keys of accounts: PEM, also on one line as in .env files, or 32 bytes in base64url for keys of P-256."""

import base64
import binascii

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

_CURVE = ec.SECP256R1()


def p256_key(text: str) -> ec.EllipticCurvePrivateKey:
    """A key of VAPID or of Apple. Raises ValueError, which does not repeat it."""
    if _BEGIN in text:
        found = _from_pem(text)
        if not isinstance(found, ec.EllipticCurvePrivateKey) or found.curve.name != _CURVE.name:
            raise ValueError("is not a key of the curve P-256; make or download another one")
        return found
    try:
        raw = base64.b64decode(text.strip() + "=" * (-len(text.strip()) % 4), b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 32:
        raise ValueError(f"is neither 32 bytes in base64url nor a PEM; {_COPY}")
    try:
        return ec.derive_private_key(int.from_bytes(raw), _CURVE)
    except ValueError:
        raise ValueError("is not a key of the curve P-256; make another one") from None


def rsa_key(text: str) -> rsa.RSAPrivateKey:
    """A key of Google. Raises ValueError, which does not repeat it."""
    if text.lstrip().startswith("{"):
        raise ValueError("is the whole file of the service account; give its private_key alone")
    found = _from_pem(text) if _BEGIN in text else None
    if not isinstance(found, rsa.RSAPrivateKey):
        raise ValueError(f"is not the PEM of an RSA key; {_COPY}")  # noqa: TRY004 - pydantic reports ValueErrors
    return found


_BEGIN = "-----BEGIN"
_COPY = "copy all of it, from -----BEGIN to the last line"


def _from_pem(text: str) -> object:
    try:
        return serialization.load_pem_private_key(text.replace("\\n", "\n").encode(), password=None)
    except TypeError:
        raise ValueError("is encrypted; remove its passphrase") from None
    except (ValueError, UnsupportedAlgorithm):
        # Without the error's text, which may repeat the key.
        raise ValueError(f"is not a private key in PEM; {_COPY}") from None
