"""Client certificates: certificate and private key for mutual TLS, as one PEM text."""

import os
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime


def checked(pem: str) -> str:
    """Return the text if it is usable: a certificate, optionally its chain, and its unencrypted private key.

    Raises ValueError, whose message contains nothing of it.
    """
    end = expires_at(pem)
    if end <= datetime.now(UTC):
        raise ValueError(f"the certificate expired on {end:%Y-%m-%d}; renew it")
    context(pem)
    return pem


def expires_at(pem: str) -> datetime:
    """Return when the certificate expires. Raises ValueError, as `checked` does."""
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.x509 import load_pem_x509_certificates
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "client certificates need the library cryptography: pip install cryptography", name="cryptography"
        ) from error
    text = pem.encode(errors="replace")
    try:
        certificate = load_pem_x509_certificates(text)[0]
    except ValueError:
        raise ValueError(
            "no certificate found; give it in PEM format (-----BEGIN CERTIFICATE-----), followed by its key"
        ) from None
    try:
        key = serialization.load_pem_private_key(text, password=None)
    except TypeError:
        raise ValueError("the private key is encrypted; give it without a password") from None
    except Exception:  # of several classes; their messages may contain the key
        raise ValueError(
            "no private key found; give it in PEM format (-----BEGIN PRIVATE KEY-----) after the certificate"
        ) from None
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
        raise ValueError("the private key does not match the first certificate; give the matching key")
    return certificate.not_valid_after_utc


def context(pem: str) -> ssl.SSLContext:
    """Return a TLS context that verifies the server and presents this certificate. Takes about 20 ms.

    Raises ValueError for what OpenSSL rejects, such as a key that is too short.
    """
    made = ssl.create_default_context()
    made.set_alpn_protocols(["http/1.1"])
    try:
        with _file(pem) as name:
            made.load_cert_chain(name, password="")
    except ssl.SSLError as error:
        raise ValueError(f"cannot be used for TLS: {error.reason or 'unknown reason'}") from None
    return made


@contextmanager
def _file(text: str) -> Iterator[str]:
    """Write the text to a file, since OpenSSL only reads files; in memory where the system supports it."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("certificate")
        try:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(text.encode(errors="replace"))
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
    else:
        with tempfile.NamedTemporaryFile(suffix=".pem") as file:  # its mode is 0600
            file.write(text.encode(errors="replace"))
            file.flush()
            yield file.name
