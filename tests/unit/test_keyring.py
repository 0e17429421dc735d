"""KeyRing: invalid keys, encryption and decryption, and that keys are never shown."""

import base64
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bellwire import KeyRing, KeysInvalid, NotReadable
from bellwire.keys.keyring import (
    NONCE_BYTES,
    SALT_BYTES,
    new_entry,
    ring_of,
)
from starter.cli.main import main

CHECKOUT = Path(__file__).parents[2]
KEY = base64.b64encode(bytes(range(32))).decode()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "entry 1: must be id:base64"),
        ("one", "entry 1: must be id:base64"),
        (f"one:{KEY},two", "entry 2: must be id:base64"),
        (f"one:{KEY},one:{KEY}", "key one: given twice"),
        (f"o ne:{KEY}", "must be 1 to 32 letters"),
        (f":{KEY}", "must be 1 to 32 letters"),
        (f"{'k' * 33}:{KEY}", "must be 1 to 32 letters"),
        ("one:!", "entry 1: is not valid base64"),
        (f"one:{KEY[:-1]}", "entry 1: is not valid base64"),
        ("one:", "key one: has 0 bytes, must have 32"),
        (f"one:{base64.b64encode(bytes(16)).decode()}", "key one: has 16 bytes, must have 32"),
    ],
)
def test_an_invalid_list_of_keys_is_refused_without_showing_a_key(text: str, problem: str) -> None:
    with pytest.raises(KeysInvalid) as refused:
        KeyRing.parse(text)
    assert problem in str(refused.value)
    assert KEY[:8] not in str(refused.value)


def test_a_ring_without_keys_is_refused() -> None:
    with pytest.raises(KeysInvalid, match="no key given"):
        KeyRing({})


def test_a_ring_is_parsed_from_text_or_returned() -> None:
    ring = KeyRing.parse(new_entry("one"))
    assert (ring_of(None), ring_of(""), ring_of(" ")) == (None, None, None)
    assert ring_of(ring) is ring
    parsed = ring_of(f"one:{KEY}, two:{new_entry('x')[2:]}")
    assert parsed is not None
    assert (parsed.first, parsed.ids) == ("one", ("one", "two"))
    assert KEY not in repr(parsed)


def test_the_first_key_encrypts_and_all_decrypt() -> None:
    old, new = new_entry("old"), new_entry("new")
    sealed = KeyRing.parse(old).seal(b"ann", purpose="test")
    both = KeyRing.parse(f"{new},{old}")
    assert both.open("old", sealed, purpose="test") == b"ann"
    with pytest.raises(NotReadable):
        KeyRing.parse(f"{old},{new}").open("old", both.seal(b"ann", purpose="test"), purpose="test")


def test_a_missing_key_is_named() -> None:
    sealed = KeyRing.parse(new_entry("old")).seal(b"ann", purpose="test")
    with pytest.raises(NotReadable, match="key 'old', which is not among new, newer"):
        KeyRing.parse(f"{new_entry('new')},{new_entry('newer')}").open("old", sealed, purpose="test")


@pytest.mark.parametrize("position", [0, SALT_BYTES, SALT_BYTES + NONCE_BYTES, -1])
def test_a_changed_value_cannot_be_decrypted(position: int) -> None:
    ring = KeyRing.parse(new_entry("one"))
    sealed = bytearray(ring.seal(b"ann@example.com", purpose="test"))
    sealed[position] ^= 1
    with pytest.raises(NotReadable, match="key one does not decrypt it"):
        ring.open("one", bytes(sealed), purpose="test")


@pytest.mark.parametrize("size", [0, 1, SALT_BYTES, SALT_BYTES + NONCE_BYTES, SALT_BYTES + NONCE_BYTES + 15])
def test_a_truncated_value_cannot_be_decrypted(size: int) -> None:
    ring = KeyRing.parse(new_entry("one"))
    with pytest.raises(NotReadable, match="key one does not decrypt it"):
        ring.open("one", ring.seal(b"", purpose="test")[:size], purpose="test")


def test_a_value_is_bound_to_its_purpose_and_key() -> None:
    sealed = KeyRing.parse(f"one:{KEY}").seal(b"ann", purpose="a")
    with pytest.raises(NotReadable):
        KeyRing.parse(f"one:{KEY}").open("one", sealed, purpose="b")
    with pytest.raises(NotReadable):
        KeyRing.parse(f"one:{KEY},two:{KEY}").open("two", sealed, purpose="a")
    with pytest.raises(NotReadable):
        KeyRing.parse(new_entry("one")).open("one", sealed, purpose="a")


def test_the_same_value_is_never_encrypted_the_same_way() -> None:
    ring = KeyRing.parse(new_entry("one"))
    assert len({ring.seal(b"ann", purpose="test") for _ in range(1000)}) == 1000


def test_processes_use_different_salts_and_decrypt_each_others_values() -> None:
    ring = KeyRing.parse(f"one:{KEY}")
    sealed = ring.seal(b"ann", purpose="test")
    program = f"""
from bellwire import KeyRing
ring = KeyRing.parse("one:{KEY}")
assert ring.open("one", bytes.fromhex("{sealed.hex()}"), purpose="test") == b"ann"
print(ring.seal(b"bob", purpose="test").hex())
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    other = bytes.fromhex(ended.stdout)
    assert ring.open("one", other, purpose="test") == b"bob"
    assert other[:SALT_BYTES] != sealed[:SALT_BYTES]


def test_values_are_aes_256_gcm_with_a_key_derived_by_hkdf() -> None:
    """Computed by the library's HKDF, which the ring does not use."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    sealed = KeyRing.parse(f"one:{KEY}").seal(b"ann", purpose="test")
    salt, nonce, text = sealed[:16], sealed[16:28], sealed[28:]
    key = HKDF(SHA256(), 32, salt, b"bellwire aes-256-gcm").derive(base64.b64decode(KEY))
    assert AESGCM(key).decrypt(nonce, text, b"bellwire 1\none\ntest") == b"ann"


def test_threads_share_a_ring() -> None:
    ring = KeyRing.parse(new_entry("one"))

    def round_trip(number: int) -> bool:
        text = os.urandom(number % 5000)
        return ring.open("one", ring.seal(text, purpose="test"), purpose="test") == text

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(round_trip, range(5000)))


def test_an_address_has_one_hash_per_key() -> None:
    ring, other = KeyRing.parse(f"one:{KEY},two:{new_entry('x')[2:]}"), KeyRing.parse(new_entry("one"))
    assert ring.address_key("one", "a@b.example") == KeyRing.parse(f"one:{KEY}").address_key("one", "a@b.example")
    assert re.fullmatch("one:[0-9a-f]{64}", ring.address_key("one", "a@b.example"))
    keys = [ring.address_key(key_id, "a@b.example") for key_id in ring.ids]
    assert len({*keys, other.address_key("one", "a@b.example")}) == 3


def test_without_the_library_the_error_names_it() -> None:
    program = f"""
import sys
sys.modules["cryptography"] = None
from bellwire import KeyRing, KeysInvalid
try:
    KeyRing.parse("one:{KEY}")
except KeysInvalid as error:
    print(error)
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert "pip install cryptography" in ended.stdout


def test_the_command_prints_a_new_entry_each_time(capsys: pytest.CaptureFixture[str]) -> None:
    def printed(*options: str) -> str:
        assert main(["keys", "new", *options]) == 0
        return capsys.readouterr().out.strip()

    entries = {printed(), printed()}
    assert len(entries) == 2
    assert len(KeyRing.parse(",".join(entries)).ids) == 2
    assert KeyRing.parse(printed("--id", "k2026")).first == "k2026"
    assert main(["keys", "new", "--id", "no spaces"]) == 2
    assert "1 to 32 letters" in capsys.readouterr().err


def test_a_ring_cannot_be_serialized() -> None:
    with pytest.raises(TypeError):
        json.dumps(KeyRing.parse(f"one:{KEY}"))
