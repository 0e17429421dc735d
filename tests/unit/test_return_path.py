"""Return paths fit a local part, identify their delivery, and cannot be forged."""

import base64

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bellwire.email.return_path import MAX_LOCAL, ReturnPath, check_return_path
from bellwire.email.unsubscribe_links import LinkKeys
from bellwire.events import event_key
from bellwire.service.settings import Settings, SettingsInvalid

GOOD, SECOND = (base64.b64encode(key).decode() for key in (b"k" * 32, b"l" * 40))
KEYS = LinkKeys(f"{GOOD}, {SECOND}")
KEY = event_key("/shop", "order-42-paid")
ANN = "ann@example.com"
PATH = ReturnPath("bounces@mail.example.com", KEYS)
IDS = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9_-]{0,62}\Z") | st.from_regex(r"\Asub_[0-9a-f]{32}\Z")


@given(
    local=st.from_regex(rf"\A[A-Za-z0-9]{{1,{MAX_LOCAL}}}\Z"),
    source=st.text(min_size=1, max_size=5),
    subscription_id=IDS,
    recipient=st.sampled_from([ANN, "jürgen@example.com", "ann@bücher.example"]),
)
@example(local="b" * MAX_LOCAL, source="/", subscription_id="s" * 63, recipient=ANN)
def test_every_delivery_has_a_return_path_that_fits_and_can_be_read(
    local: str, source: str, subscription_id: str, recipient: str
) -> None:
    key = event_key(source, "1")
    path = ReturnPath(f"{local}@mail.example.com", KEYS)
    sender = path.sender(key, subscription_id, recipient)
    name, _, domain = sender.rpartition("@")
    assert (len(name) <= 64, name.isascii(), domain) == (True, True, "mail.example.com")
    token = path.read(sender)
    assert token is not None
    assert (token.event_key, token.subscription_id or subscription_id) == (key, subscription_id)
    assert path.verifies(token, subscription_id, recipient.upper() if recipient.isascii() else recipient)


@pytest.mark.parametrize(
    ("subscription_id", "length", "included"),
    [("acme-orders", 53, True), ("sub_" + "0f" * 16, 64, True), ("s" * 22, 64, True), ("s" * 23, 42, False)],
)
def test_the_subscription_id_is_included_if_it_fits(subscription_id: str, length: int, included: bool) -> None:
    sender = PATH.sender(KEY, subscription_id, ANN)
    token = PATH.read(sender)
    assert token is not None
    assert (len(sender.partition("@")[0]), token.subscription_id) == (length, subscription_id if included else None)


def test_a_token_verifies_for_its_delivery_and_recipient_only() -> None:
    token = PATH.read(PATH.sender(KEY, "sub", ANN))
    assert token is not None
    assert PATH.verifies(token, "sub", ANN)
    assert not PATH.verifies(token, "sub", "bob@example.com")
    assert not PATH.verifies(token, "other", ANN)
    assert not PATH.verifies(token.model_copy(update={"event_key": event_key("/shop", "2")}), "sub", ANN)


def test_a_replaced_key_verifies_until_it_is_removed() -> None:
    old = ReturnPath("bounces@mail.example.com", LinkKeys(SECOND))
    token = PATH.read(old.sender(KEY, "sub", ANN))
    assert token is not None
    assert PATH.verifies(token, "sub", ANN)
    assert not ReturnPath("bounces@mail.example.com", LinkKeys(GOOD)).verifies(token, "sub", ANN)


@given(st.text(max_size=80) | st.from_regex(r"\Abounces\+[uth][A-Za-z0-9_-]{20,60}@mail\.example\.com\Z"))
def test_a_forged_address_does_not_verify(address: str) -> None:
    token = PATH.read(address)
    assert token is None or not PATH.verifies(token, token.subscription_id or "sub", ANN)


@pytest.mark.parametrize("index", range(8, 61))
def test_a_token_with_a_changed_character_does_not_verify(index: int) -> None:
    sender = PATH.sender(KEY, "sub_" + "0f" * 16, ANN)
    token = PATH.read(sender[:index] + ("A" if sender[index] != "A" else "B") + sender[index + 1 :])
    assert token is None or not PATH.verifies(token, token.subscription_id or "", ANN)


@pytest.mark.parametrize(
    "address",
    ["", "bounces", "Bounces <bounces@example.com>", "bounces+x@example.com", "b@bücher.example", "b" * 30 + "@x.de"],
)
def test_an_address_without_room_for_a_token_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match=r"must be a bare address|at most 29 leave room for a token"):
        check_return_path(address)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"email_return_path": "bounces"}, "BELLWIRE_EMAIL_RETURN_PATH: must be a bare address"),
        (
            {"email_return_path": "b@example.com"},
            "BELLWIRE_EMAIL_RETURN_PATH: needs BELLWIRE_LINK_KEY, which signs it",
        ),
        ({"link_key": "secret!"}, "BELLWIRE_LINK_KEY: each key must be the base64 of at least 32 bytes"),
        ({"link_key": f"{GOOD},c2hvcnQ="}, "BELLWIRE_LINK_KEY: each key must be the base64"),
        ({"link_key": ","}, "BELLWIRE_LINK_KEY: give at least one key"),
    ],
)
def test_invalid_settings_are_named(given: dict[str, str], problem: str) -> None:
    with pytest.raises(SettingsInvalid) as refused:
        Settings.read(**given)
    assert str(refused.value).startswith(problem)
    assert "secret!" not in str(refused.value)


def test_keys_are_read_in_order_and_masked() -> None:
    settings = Settings.read(email_return_path="bounces@mail.example.com", link_key=f"{GOOD}, {SECOND}")
    assert settings.return_path is not None
    sender = settings.return_path.sender(KEY, "sub", ANN)
    assert sender == ReturnPath("bounces@mail.example.com", LinkKeys(GOOD)).sender(KEY, "sub", ANN)
    assert GOOD not in repr(settings)


def test_one_key_signs_links_and_return_paths() -> None:
    links = Settings.read(public_url="https://bell.example", link_key=GOOD)
    assert links.return_path is None
    both = Settings.read(public_url="https://bell.example", email_return_path="b@example.com", link_key=GOOD)
    assert both.return_path is not None
    assert Settings.read().return_path is None
