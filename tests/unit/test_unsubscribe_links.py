"""Unsubscribe links contain no address, cannot be forged, and stay valid as long as their key is kept."""

import base64
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellwire.email.unsubscribe_links import MAX_TOKEN, LinkKeys, UnsubscribeLinks

OLD = base64.b64encode(b"o" * 32).decode()
NEW = base64.b64encode(b"n" * 48).decode()
ANN, BOB = "ann@example.com", "bob@example.com"
KEYS = LinkKeys(OLD)
IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", fullmatch=True)


@given(subscription_id=IDS, address=st.emails())
def test_a_token_identifies_its_subscription_and_recipient(subscription_id: str, address: str) -> None:
    token = KEYS.unsubscribe_token(subscription_id, address)
    read = KEYS.read(token)
    assert read is not None
    assert read.subscription_id == subscription_id
    assert read.match([BOB, address, ANN]) == address
    assert read.match([]) is None
    assert len(token) <= MAX_TOKEN
    assert base64.urlsafe_b64decode(token + "==")[17:-16].decode() == subscription_id  # the rest is hashes


def test_the_recipient_matches_regardless_of_case() -> None:
    read = KEYS.read(KEYS.unsubscribe_token("sub", "Ann@Example.com"))
    assert read is not None
    assert read.match([BOB, ANN]) == ANN


def test_tokens_of_one_address_in_two_subscriptions_cannot_be_linked() -> None:
    one, two = (base64.urlsafe_b64decode(KEYS.unsubscribe_token(name, ANN) + "==")[1:17] for name in ("sub", "other"))
    assert one != two


@given(data=st.data())
def test_a_token_with_a_changed_character_is_not_read(data: st.DataObject) -> None:
    token = KEYS.unsubscribe_token("sub", ANN)
    index = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.characters().filter(lambda character: character != token[index]))
    assert KEYS.read(token[:index] + other + token[index + 1 :]) is None


@given(st.text(max_size=300) | st.binary(max_size=220).map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_other_texts_are_not_read(token: str) -> None:
    assert KEYS.read(token) is None
    assert KEYS.read(token + "=") is None


def test_a_token_has_only_one_valid_spelling() -> None:
    token = KEYS.unsubscribe_token("sub", ANN)
    assert [KEYS.read(each) for each in (token + "=", f" {token}", token[:-1], token.replace("_", "/") + "\n")] == [
        None
    ] * 4


def test_a_signed_token_of_another_version_is_not_read() -> None:
    raw = base64.urlsafe_b64decode(KEYS.unsubscribe_token("sub", ANN) + "==")
    body = b"\x02" + raw[1:-16]
    signed = body + hmac.digest(b"o" * 32, b"bellwire link\n" + body, "sha256")[:16]
    assert KEYS.read(base64.urlsafe_b64encode(signed).decode().rstrip("=")) is None
    same = raw[:-16] + hmac.digest(b"o" * 32, b"bellwire link\n" + raw[:-16], "sha256")[:16]
    assert KEYS.read(base64.urlsafe_b64encode(same).decode().rstrip("=")) is not None


def test_the_first_key_signs_and_all_keys_verify() -> None:
    before, during, after = KEYS.unsubscribe_token("sub", ANN), LinkKeys(f"{NEW}, {OLD}"), LinkKeys(NEW)
    read = during.read(before)
    assert read is not None
    assert read.match([ANN]) == ANN
    assert during.unsubscribe_token("sub", ANN) == after.unsubscribe_token("sub", ANN) != before
    assert after.read(before) is None


@pytest.mark.parametrize("keys", ["", ",", "secret", base64.b64encode(b"x" * 31).decode(), f"{OLD},short", "ключ"])
def test_a_key_that_is_too_short_or_not_base64_is_refused_and_not_shown(keys: str) -> None:
    with pytest.raises(ValueError, match="openssl rand -base64 32") as refused:
        LinkKeys(keys)
    assert not keys.strip(",") or keys.rpartition(",")[2] not in str(refused.value)


@pytest.mark.parametrize("public", ["https://bell.example", "https://bell.example/", "https://bell.example/notify/"])
def test_links_are_below_the_public_url(public: str) -> None:
    url = UnsubscribeLinks(public, OLD).unsubscribe_url("sub", ANN)
    assert url == f"{public.rstrip('/')}/unsubscribe/{KEYS.unsubscribe_token('sub', ANN)}"
    assert len(url) < 200
