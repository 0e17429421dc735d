"""Links to unsubscribe: they reveal nobody, cannot be forged, and outlive the key that made them if it is kept."""

import base64
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellwire.email.unsubscribe_links import MAX_TOKEN, LinkKeys, Links

OLD = base64.b64encode(b"o" * 32).decode()
NEW = base64.b64encode(b"n" * 48).decode()
ANN, BOB = "ann@example.com", "bob@example.com"
KEYS = LinkKeys(OLD)
IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", fullmatch=True)


@given(subscription_id=IDS, address=st.emails())
def test_a_token_leads_back_to_its_subscription_and_among_its_recipients_to_the_one(
    subscription_id: str, address: str
) -> None:
    token = KEYS.unsubscribe(subscription_id, address)
    read = KEYS.read(token)
    assert read is not None
    assert read.subscription_id == subscription_id
    assert read.among([BOB, address, ANN]) == address
    assert read.among([]) is None
    assert len(token) <= MAX_TOKEN
    assert base64.urlsafe_b64decode(token + "==")[17:-16].decode() == subscription_id  # beside it only hashes


def test_a_recipient_is_found_however_the_address_is_written() -> None:
    read = KEYS.read(KEYS.unsubscribe("wish", "Ann@Example.com"))
    assert read is not None
    assert read.among([BOB, ANN]) == ANN


def test_one_address_in_two_subscriptions_leaves_two_tokens_that_nobody_can_connect() -> None:
    one, two = (base64.urlsafe_b64decode(KEYS.unsubscribe(name, ANN) + "==")[1:17] for name in ("wish", "hope"))
    assert one != two


@given(data=st.data())
def test_a_token_with_any_character_changed_is_not_read(data: st.DataObject) -> None:
    token = KEYS.unsubscribe("wish", ANN)
    at = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.characters().filter(lambda character: character != token[at]))
    assert KEYS.read(token[:at] + other + token[at + 1 :]) is None


@given(st.text(max_size=300) | st.binary(max_size=220).map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_nothing_else_is_read_either(token: str) -> None:
    assert KEYS.read(token) is None
    assert KEYS.read(token + "=") is None


def test_a_token_has_one_spelling() -> None:
    token = KEYS.unsubscribe("wish", ANN)
    assert [KEYS.read(each) for each in (token + "=", f" {token}", token[:-1], token.replace("_", "/") + "\n")] == [
        None
    ] * 4


def test_a_signed_token_of_another_version_is_not_read() -> None:
    raw = base64.urlsafe_b64decode(KEYS.unsubscribe("wish", ANN) + "==")
    body = b"\x02" + raw[1:-16]
    signed = body + hmac.digest(b"o" * 32, b"bellwire link\n" + body, "sha256")[:16]
    assert KEYS.read(base64.urlsafe_b64encode(signed).decode().rstrip("=")) is None
    same = raw[:-16] + hmac.digest(b"o" * 32, b"bellwire link\n" + raw[:-16], "sha256")[:16]
    assert KEYS.read(base64.urlsafe_b64encode(same).decode().rstrip("=")) is not None


def test_the_first_key_signs_and_all_verify() -> None:
    before, during, after = KEYS.unsubscribe("wish", ANN), LinkKeys(f"{NEW}, {OLD}"), LinkKeys(NEW)
    read = during.read(before)
    assert read is not None
    assert read.among([ANN]) == ANN
    assert during.unsubscribe("wish", ANN) == after.unsubscribe("wish", ANN) != before
    assert after.read(before) is None


@pytest.mark.parametrize("keys", ["", ",", "secret", base64.b64encode(b"x" * 31).decode(), f"{OLD},short", "ключ"])
def test_a_key_that_is_too_short_or_not_base64_is_refused_and_not_shown(keys: str) -> None:
    with pytest.raises(ValueError, match="openssl rand -base64 32") as refused:
        LinkKeys(keys)
    assert not keys.strip(",") or keys.rpartition(",")[2] not in str(refused.value)


@pytest.mark.parametrize("public", ["https://bell.example", "https://bell.example/", "https://bell.example/notify/"])
def test_a_link_is_below_the_public_url(public: str) -> None:
    url = Links(public, OLD).unsubscribe_url("wish", ANN)
    assert url == f"{public.rstrip('/')}/unsubscribe/{KEYS.unsubscribe('wish', ANN)}"
    assert len(url) < 200
