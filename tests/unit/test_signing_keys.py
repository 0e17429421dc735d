"""Signing keys: both schemes, alone and together. The ed25519 vectors come from `openssl pkeyutl` and node's crypto."""

import asyncio
import base64
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellwire.errors import SignatureInvalid, SignatureMismatch
from bellwire.keys.signing import KeyKind, signing_key
from bellwire.webhooks import generate_secret, public_key, sign, verify
from starter.local.processes import free_port

ROOT = Path(__file__).parents[2]

ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
STAMP = 1614265330
THEN = datetime.fromtimestamp(STAMP, UTC)
#: The seed 00 01 02 … 1f: the seed alone, with its public key, and the public key.
SEED = "whsk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
PAIR = "whsk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8DoQe/884Qvh1w3RjnS8CZZ+TWMJulDV8d3IZkElUxuA=="
PUBLIC = "whpk_A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="
VECTORS = {
    b'{"test": 2432232314}': (
        "v1a,yoUrgEkc12aGqm0n4Sydmdz55xJfTz4AsAgieHFjmkR7LJtqVCZOQYzvvHjI5kAey+r4iaBGxTFRrl2iBQxtDQ=="
    ),
    b"": "v1a,KCQh4R353gbT6ddPAmg2Tf9Sc4fZLgQKsN9dGPl/GPxHA/naeYQYjozaur664sAMjBBos/pIwebCwt1H3rE6BA==",
    "größer 你好".encode(): "v1a,H7HwTjSUY+0L07ZSzEU6XGUrAGiK7TPphmv+58hzEYIYbvh9H1+BteQ1K6UHZhqfxxrMGoXC9us3Xc8er2GpCQ==",
    bytes(range(256)): "v1a,oTix73Xw8j0kfZ2WSBiBQGNGgjVE+qOQQNofD5IsbWHxGRSWv8kNkrRaqYtkhBhzsrUxJLaU8qXdhO2ChPqjDA==",
}
BODY, SIGNATURE = next(iter(VECTORS.items()))
SHARED = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def headers(signature: str) -> dict[str, str]:
    return {"webhook-id": ID, "webhook-timestamp": str(STAMP), "webhook-signature": signature}


def encoded(prefix: str, key: bytes) -> str:
    return prefix + base64.b64encode(key).decode()


@pytest.mark.parametrize(("body", "signature"), VECTORS.items())
@pytest.mark.parametrize("secret", [SEED, PAIR])
def test_vectors_of_other_tools_are_signed(secret: str, body: bytes, signature: str) -> None:
    assert sign(secret, ID, STAMP, body) == signature


@pytest.mark.parametrize(("body", "signature"), VECTORS.items())
@pytest.mark.parametrize("secret", [SEED, PAIR, PUBLIC])
def test_vectors_of_other_tools_are_verified(secret: str, body: bytes, signature: str) -> None:
    verify(secret, headers(signature), body, now=THEN)


def test_the_public_key_of_a_key_pair_is_derived() -> None:
    assert [public_key(secret) for secret in (SEED, PAIR, PUBLIC)] == [PUBLIC] * 3


def test_a_shared_secret_has_no_public_key() -> None:
    with pytest.raises(ValueError, match="no public key"):
        public_key(SHARED)


def test_a_public_key_verifies_and_does_not_sign() -> None:
    for secret in ([PUBLIC], [SHARED, PUBLIC]):
        with pytest.raises(ValueError, match="whpk_ is a public key and can only verify; sign with its whsk_"):
            sign(secret, ID, STAMP, BODY)
    with pytest.raises(ValueError, match="whpk_ is a public key"):
        signing_key(PUBLIC)


@pytest.mark.parametrize("kind", [*KeyKind, "asymmetric"])
def test_generated_secrets_are_unique_and_valid(kind: KeyKind) -> None:
    generated = {generate_secret(kind=kind) for _ in range(20)}
    assert len(generated) == 20
    for secret in generated:
        assert signing_key(secret).kind == kind
        assert verify(secret, headers(sign(secret, ID, STAMP, BODY)), BODY, now=THEN)
    assert generate_secret().startswith("whsec_")


def test_a_generated_private_key_holds_seed_and_public_key() -> None:
    key = base64.b64decode(generate_secret(kind="asymmetric").removeprefix("whsk_"))
    assert len(key) == 64
    assert public_key(encoded("whsk_", key[:32])) == encoded("whpk_", key[32:])


@given(body=st.binary(max_size=200), changed=st.binary(max_size=200))
def test_a_signature_is_valid_for_its_body_only(body: bytes, changed: bytes) -> None:
    signed = headers(sign(PAIR, ID, STAMP, body))
    verify(PUBLIC, signed, body, now=THEN)
    if changed != body:
        with pytest.raises(SignatureMismatch):
            verify(PUBLIC, signed, changed, now=THEN)


def test_receivers_of_either_scheme_find_their_signature() -> None:
    both = sign([PAIR, SHARED], ID, STAMP, BODY)
    assert [entry.partition(",")[0] for entry in both.split()] == ["v1a", "v1"]
    for secret in (PUBLIC, SHARED, [generate_secret(), PUBLIC], [SHARED, PUBLIC]):
        assert verify(secret, headers(both), BODY, now=THEN) == {"test": 2432232314}


@pytest.mark.parametrize(
    "signature",
    [
        "v1a,",
        "v1a",
        "v1a,Zm9v",
        "v1a,!" + SIGNATURE[5:],
        "v1a,é",
        SIGNATURE[:-1],
        SIGNATURE + "=",
        SIGNATURE.replace("v1a,", "v1,"),
        SIGNATURE.replace("v1a,", "v1b,"),
        "v1a," + base64.b64encode(bytes(64)).decode(),
        pytest.param(sign(generate_secret("asymmetric"), ID, STAMP, BODY), id="of another key"),
    ],
)
def test_invalid_signatures_are_ignored(signature: str) -> None:
    with pytest.raises(SignatureMismatch):
        verify(PUBLIC, headers(signature), BODY, now=THEN)
    assert verify(PUBLIC, headers(f"{signature} {SIGNATURE}"), BODY, now=THEN)


def test_a_public_key_is_never_used_as_a_shared_secret() -> None:
    """Otherwise anyone could sign with the public key."""
    forged = sign("whsec_" + PUBLIC.removeprefix("whpk_"), ID, STAMP, BODY)
    with pytest.raises(SignatureMismatch):
        verify(PUBLIC, headers(forged), BODY, now=THEN)


MALFORMED = [
    ("whsk_", "seed"),
    ("whsk_!", "seed"),
    (encoded("whsk_", bytes(31)), "seed"),
    (encoded("whsk_", bytes(33)), "seed"),
    (encoded("whsk_", bytes(65)), "seed"),
    (encoded("whsk_", bytes(64)), "does not match its seed"),
    (SEED[:-1], "seed"),
    ("whpk_", "32 bytes"),
    (encoded("whpk_", bytes(31)), "32 bytes"),
    (encoded("whpk_", bytes(64)), "32 bytes"),
    ("whpk", "32 bytes"),
    *(
        (encoded("whpk_", bytes.fromhex(point)), "anybody can sign")
        for point in (
            "00" * 32,
            "00" * 31 + "80",
            "01" + "00" * 31,
            "01" + "00" * 30 + "80",
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
            "ec" + "ff" * 30 + "7f",
            "ed" + "ff" * 30 + "7f",
            "ee" + "ff" * 30 + "7f",
            "ec" + "ff" * 31,
            "ed" + "ff" * 31,
            "ee" + "ff" * 31,
        )
    ),
    (SEED.replace("whsk_", "whsx_"), "whsec_"),
    (SEED.replace("whsk_", "WHSK_"), "whsec_"),
]


@pytest.mark.parametrize(("secret", "message"), MALFORMED)
def test_a_malformed_key_is_refused_without_showing_it(secret: str, message: str) -> None:
    for attempt in (lambda: sign(secret, ID, STAMP, BODY), lambda: verify(secret, headers(SIGNATURE), BODY, now=THEN)):
        with pytest.raises(ValueError, match=message) as caught:
            attempt()
        assert not isinstance(caught.value, SignatureInvalid)
        assert len(secret) < 10 or secret.partition("_")[2] not in str(caught.value)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="rsa"):
        generate_secret("rsa")


def test_without_the_library_only_key_pairs_fail() -> None:
    code = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from bellwire.webhooks import generate_secret, sign\n"
        "sign(generate_secret(), 'a', 0, b'')\n"
        f"try: sign({SEED!r}, 'a', 0, b'')\n"
        "except ModuleNotFoundError as error: print(error)"
    )
    output = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert "pip install cryptography" in output


async def test_the_asgi_example_verifies_with_the_public_key() -> None:
    secret, port = generate_secret("asymmetric"), free_port()
    process = await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-m",
            "uvicorn",
            "--app-dir",
            "examples/receivers/python",
            "receive_asgi:app",
            "--port",
            str(port),
        ),
        cwd=ROOT,
        env={**os.environ, "BELLWIRE_SECRET": public_key(secret)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        while b"running on" not in await process.stderr.readline():
            assert process.returncode is None
        now, body = datetime.now(UTC), b'{"type": "order.paid"}'
        signed = {
            "webhook-id": ID,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": sign(secret, ID, now, body),
        }

        def post(data: bytes) -> int:
            try:
                with urlopen(Request(f"http://127.0.0.1:{port}/", data=data, headers=signed), timeout=60) as response:
                    return int(response.status)
            except HTTPError as error:
                error.close()
                return error.code

        assert await asyncio.to_thread(post, body) == 204
        assert await asyncio.to_thread(post, body + b" ") == 401
        assert await process.stdout.readline() == b"{'type': 'order.paid'}\n"
    finally:
        process.terminate()
        await process.communicate()
