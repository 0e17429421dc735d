"""Encryption of web pushes against RFC 8291 and an independent implementation, and VAPID tokens against PyJWT."""

import base64
import os

import http_ece  # type: ignore[import-untyped]
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from activities.providers.private_keys import p256_key
from activities.push.encryption import MAX_CONTENT, encrypt, from_base64url, public_bytes, signed_token
from tests.activities.push.channels import KEYS, pem, raw

#: RFC 8291, Appendix A.
PLAINTEXT = b"When I grow up, I want to be a watermelon"
SALT, AUTH = "DGv6ra1nlYgDCS1FRnbzlw", "BTBZMqHH6r4Tts7J_aSIgg"
SERVER_KEY = "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"
BROWSER_PUBLIC = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
BODY = (
    "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPT"
    "pK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
)


def test_the_example_of_the_standard_gives_its_body() -> None:
    body = encrypt(
        PLAINTEXT,
        p256dh=from_base64url(BROWSER_PUBLIC),
        auth=from_base64url(AUTH),
        salt=from_base64url(SALT),
        key=p256_key(SERVER_KEY),
    )
    assert base64.urlsafe_b64encode(body).rstrip(b"=").decode() == BODY


@settings(deadline=None, max_examples=50)
@given(st.binary(max_size=MAX_CONTENT))
def test_another_implementation_decrypts_it(content: bytes) -> None:
    browser, auth = ec.generate_private_key(ec.SECP256R1()), os.urandom(16)
    body = encrypt(content, p256dh=public_bytes(browser.public_key()), auth=auth)
    assert len(body) <= 4096
    assert http_ece.decrypt(body, private_key=browser, auth_secret=auth, version="aes128gcm") == content


def test_content_that_is_too_long_and_points_that_are_none_are_refused() -> None:
    point = public_bytes(ec.generate_private_key(ec.SECP256R1()).public_key())
    with pytest.raises(ValueError, match="3,994 bytes, the limit is 3,993"):
        encrypt(b"x" * (MAX_CONTENT + 1), p256dh=point, auth=b"a" * 16)
    with pytest.raises(ValueError):
        encrypt(b"x", p256dh=b"\x04" + b"\x01" * 64, auth=b"a" * 16)


def test_a_token_is_what_pyjwt_verifies() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    token = signed_token({"aud": "https://push.example", "iss": "TEAM123456"}, key, kid="KEY1234567")
    assert jwt.decode(token, public, algorithms=["ES256"], audience="https://push.example")["iss"] == "TEAM123456"
    assert jwt.get_unverified_header(token) == {"typ": "JWT", "alg": "ES256", "kid": "KEY1234567"}


@settings(deadline=None, max_examples=300)
@given(st.dictionaries(st.sampled_from(["sub", "note", "é"]), st.text(max_size=20)))
def test_all_tokens_are_what_pyjwt_verifies(claims: dict[str, str]) -> None:
    """One number in 256 of a signature is shorter than the others and is padded."""
    es256 = signed_token(claims, KEYS.apple)
    assert jwt.decode(es256, KEYS.apple.public_key(), algorithms=["ES256"]) == claims
    rs256 = signed_token(claims, KEYS.google)
    assert jwt.decode(rs256, KEYS.google.public_key(), algorithms=["RS256"]) == claims
    assert jwt.get_unverified_header(rs256) == {"typ": "JWT", "alg": "RS256"}


def test_a_vapid_key_is_32_bytes_or_a_pem() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    assert p256_key(raw(key)).private_numbers() == p256_key(pem(key)).private_numbers() == key.private_numbers()
    for wrong in ("", "AAAA", pem(ec.generate_private_key(ec.SECP384R1()))):
        with pytest.raises(ValueError):
            p256_key(wrong)
