"""The certificate and key that Bellwire shows to a receiver which asks who calls (mutual TLS), as one PEM text."""

import os
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime


def checked(pem: str) -> str:
    """The text, if it can be used: a certificate, the chain above it if there is one, and its unencrypted private key.

    Raises ValueError, which says what is wrong with it and repeats none of it.
    """
    end = expires_at(pem)
    if end <= datetime.now(UTC):
        raise ValueError(f"holds a certificate that ran out on {end:%Y-%m-%d}; have it renewed")
    context(pem)
    return pem


def expires_at(pem: str) -> datetime:
    """When the certificate runs out. Raises ValueError, as `checked` does."""
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
            "holds no certificate; give it in PEM (-----BEGIN CERTIFICATE-----), its key after it"
        ) from None
    try:
        key = serialization.load_pem_private_key(text, password=None)
    except TypeError:
        raise ValueError("holds a key that is encrypted; give it without a password") from None
    except Exception:  # of several classes, and none of their texts may be told
        raise ValueError(
            "holds no private key; give it in PEM (-----BEGIN PRIVATE KEY-----) after the certificate"
        ) from None
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
        raise ValueError("holds a key that does not belong to the first certificate; give the one that does")
    return certificate.not_valid_after_utc


def context(pem: str) -> ssl.SSLContext:
    """A context that checks the receiver as any other does, and shows it this certificate. Costs about 20 ms.

    Raises ValueError for what OpenSSL does not take, such as a key that is too short.
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
    """The text as a file, since OpenSSL reads nothing else; in memory where there are such files."""
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
