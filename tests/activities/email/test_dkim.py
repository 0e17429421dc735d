"""DKIM signatures, checked by an independent verifier, and errors for invalid keys."""

import base64
import re
from pathlib import Path
from typing import Any

import dkim  # type: ignore[import-untyped]
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from activities.email.dkim import SIGNED, DkimSigner

RSA, ED25519 = rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate()
MAIL = (
    b"From: Bell <bell@example.net>\r\nTo: ann@example.com\r\nSubject: Order  42\r\n is\tpaid \r\n"
    b"Message-ID: <1@example.net>\r\nList-Unsubscribe: <https://bell.example/u/1>\r\n"
    b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n\r\nPaid. \r\n\r\n Thank \t you.\r\n\r\n\r\n"
)


def pem(key: Any, *, passphrase: bytes | None = None) -> str:
    kept = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    return str(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, kept).decode())


def record(name: bytes, timeout: int = 5) -> bytes:
    """DNS, with what operators publish: the key as the commands in docs/how-to/improve-email-deliverability.md print it."""
    assert name == b"bell1._domainkey.example.net."
    public = RSA.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return b"v=DKIM1; k=rsa; p=" + base64.b64encode(public)


def verified(mail: bytes) -> bool:
    return bool(dkim.verify(mail, dnsfunc=record))


SIGNER = DkimSigner("example.net", "bell1", pem(RSA))


def test_a_signed_mail_verifies() -> None:
    signed = SIGNER.sign(MAIL)
    assert verified(signed)
    assert signed.endswith(MAIL)
    assert max(map(len, signed.split(b"\r\n"))) <= 78


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Paid.", b"Paid!"),
        (b"Thank", b"Thank\r\n"),
        (b"bell@example.net>\r\n", b"eve@example.net>\r\n"),
        (b"To: ann", b"To: eve"),
        (b"Order  42", b"Order 43"),
        (b"/u/1", b"/u/2"),
        (b"One-Click", b"Two-Click"),
        (b"Message-ID: <1", b"Message-ID: <2"),
        (b"d=example.net", b"d=example.org"),
        (b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n", b""),
    ],
)
def test_a_changed_body_or_header_breaks_the_signature(old: bytes, new: bytes) -> None:
    signed = SIGNER.sign(MAIL)
    head, found, rest = signed.rpartition(old) if old != b"d=example.net" else signed.partition(old)
    assert found
    changed = head + new + rest
    if old == b"d=example.net":
        with pytest.raises(AssertionError):  # another domain is asked for its key
            verified(changed)
    else:
        assert not verified(changed)


@pytest.mark.parametrize("name", SIGNED)
def test_a_signed_header_cannot_be_added_again(name: str) -> None:
    signature, mail = SIGNER.sign(MAIL)[: -len(MAIL)], MAIL
    added = f"{name.title()}: eve@example.org\r\n".encode()
    head, _, body = mail.partition(b"\r\n\r\n")
    for changed in (added + head, head + b"\r\n" + added.removesuffix(b"\r\n")):
        assert not verified(signature + changed + b"\r\n\r\n" + body)


def test_changed_white_space_does_not_break_the_signature() -> None:
    signed = SIGNER.sign(MAIL)
    refolded = signed.replace(b"Order  42\r\n is\tpaid \r\n", b"Order 42 is\r\n\tpaid\r\n")
    assert refolded != signed
    assert verified(b"Received: from a by b\r\nX-Spam: no\r\n" + refolded)
    assert verified(signed.replace(b"Paid. \r\n", b"Paid.\r\n").replace(b"Thank \t you", b"Thank you"))


@settings(max_examples=50, deadline=None)
@given(body=st.text(alphabet=st.sampled_from("a. \t\r\n=")), subject=st.text(alphabet=st.sampled_from("ab \t:;")))
def test_the_signature_of_any_body_and_subject_verifies(body: str, subject: str) -> None:
    lines = "\r\n".join(body.replace("\r", "\n").split("\n"))
    assert verified(SIGNER.sign(f"From: a@example.net\r\nSubject: {subject}\r\n\r\n{lines}".encode()))


def test_an_ed25519_signature_verifies_and_a_changed_mail_does_not() -> None:
    class Key:
        def verify(self, digest: bytes, signature: bytes) -> None:
            ED25519.public_key().verify(signature, digest)

    class Verifier(dkim.DKIM):  # type: ignore[misc]
        """dkimpy with OpenSSL's Ed25519 in place of PyNaCl's."""

        def verify_sig(self, sig: Any, include_headers: Any, sig_header: Any, dnsfunc: Any) -> Any:
            assert sig[b"a"] == b"ed25519-sha256"
            self.pk, self.keysize, self.ktag = Key(), 256, b"ed25519"
            return self.verify_sig_process(sig, include_headers, sig_header, dnsfunc)

    signed = DkimSigner("example.net", "bell1", pem(ED25519)).sign(MAIL)
    assert Verifier(signed).verify(dnsfunc=None)
    with pytest.raises(Exception, match=r"body hash mismatch"):
        Verifier(signed.replace(b"Paid.", b"Paid!")).verify(dnsfunc=None)
    with pytest.raises((NameError, ValueError)):  # dkimpy names PyNaCl's exception when Key has raised
        Verifier(signed.replace(b"To: ann", b"To: eve")).verify(dnsfunc=None)


def test_a_key_is_read_from_a_file_or_from_one_line(tmp_path: Path) -> None:
    file = tmp_path / "dkim.pem"
    file.write_text(pem(RSA))
    for key in (str(file), pem(RSA).replace("\n", "\\n")):
        assert verified(DkimSigner("example.net", "bell1", key).sign(MAIL))


WEAK = rsa.generate_private_key(65537, 1024)
GARBLED = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("c2VjcmV0", "neither PEM"),
        ("/", "neither PEM"),
        ("secret\0", "neither PEM"),
        (GARBLED, "not a private key"),
        (pem(RSA, passphrase=b"x"), "encrypted"),
        (pem(dsa.generate_private_key(1024)), "neither RSA nor Ed25519"),
    ],
    ids=lambda value: value[:12],
)
def test_the_error_for_an_invalid_key_names_the_variable_and_hides_the_key(key: str, problem: str) -> None:
    with pytest.raises(ValueError, match=rf"^BELLWIRE_DKIM_KEY: .*{problem}") as refused:
        DkimSigner("example.net", "bell1", key)
    assert "c2VjcmV0" not in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_key_of_unsupported_size_is_refused() -> None:
    DkimSigner("example.net", "bell1", pem(WEAK))
    with pytest.raises(ValueError, match="4608 bits; receivers accept 1024 to 4096"):
        DkimSigner("example.net", "bell1", pem(rsa.generate_private_key(65537, 4608)))


def test_the_signature_names_its_algorithm_and_canonicalization() -> None:
    head = re.sub(rb"\r\n\s+", b" ", SIGNER.sign(MAIL)[: -len(MAIL)])
    tags = dict(tag.strip().split(b"=", 1) for tag in head.partition(b":")[2].split(b";"))
    assert (tags[b"v"], tags[b"a"], tags[b"c"]) == (b"1", b"rsa-sha256", b"relaxed/relaxed")
    named = re.sub(rb"\s", b"", tags[b"h"]).split(b":")
    assert named.count(b"from") == named.count(b"list-unsubscribe") == named.count(b"list-unsubscribe-post") == 2
    assert named.count(b"cc") == 1
