# ruff: noqa: RUF001 - characters that look like others are what this is about
"""Phone numbers are E.164 in ASCII digits; other spellings of a number are found by the same key."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellwire.errors import SubscriptionInvalid
from bellwire.formats.phone_numbers import canonical_number, is_number, number_key
from bellwire.suppressions import by_sender
from bellwire.targets import Channel, SmsTarget
from starter.operations.platform.recipients import Recipient

NUMBER = "+14155550123"
SPELLINGS = [
    "+1 415 555 0123",
    "+1 (415) 555-0123",
    "+1.415.555.0123",
    "+1\u2011415\u2013555\u00a00123",
    "\u202a+14155550123\u202c",
    "＋１４１５５５５０１２３",
    "+١٤١٥٥٥٥٠١٢٣",
    "+1415555012३",
    "0014155550123",
    "tel:+1-415-555-0123",
    " +14155550123\n",
]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spellings_of_one_number_are_equal(spelling: str) -> None:
    assert canonical_number(spelling) == number_key(spelling) == NUMBER
    assert by_sender(spelling) == by_sender(NUMBER) == f"sender:{NUMBER}"


def test_a_number_without_its_plus_is_found_and_not_accepted() -> None:
    assert number_key("14155550123") == NUMBER
    with pytest.raises(ValueError, match=r"E\.164"):
        canonical_number("14155550123")


@pytest.mark.parametrize("text", ["24555", "MG" + "1" * 32, "Acme Shop", "4155550123"])
def test_what_is_no_number_is_left_as_it_is(text: str) -> None:
    assert by_sender(text) == f"sender:{text}"


@pytest.mark.parametrize("to", ["+1415555012３", "+١٤١٥٥٥٥٠١٢٣", "＋14155550123", "+1415555012३", "+1 4155550123", "²"])
def test_a_target_has_ascii_digits_only(to: str) -> None:
    with pytest.raises(SubscriptionInvalid, match=r"E\.164"):
        SmsTarget(to=to)


@pytest.mark.parametrize("sender", ["٢٤٥٥٥", "２４５５５", "+1415555010٠", "Ａcme"])
def test_a_sender_has_ascii_digits_and_letters_only(sender: str) -> None:
    with pytest.raises(SubscriptionInvalid, match="is not a sender"):
        SmsTarget(to=NUMBER, sender=sender)


@pytest.mark.parametrize("limit", ["٣", "３"])
def test_a_limit_has_ascii_digits_only(limit: str) -> None:
    with pytest.raises(ValueError, match="max_segments"):
        SmsTarget.model_validate({"to": NUMBER, "max_segments": limit})


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_recipient_is_named_in_any_spelling(spelling: str) -> None:
    assert Recipient.parse(spelling) == Recipient(Channel.SMS, NUMBER)
    assert Recipient.parse("ａnn＠example。com") == Recipient(Channel.EMAIL, "ann@example.com")


@given(st.text(st.characters() | st.sampled_from("+0123456789 -().٣３"), max_size=20))
def test_a_key_is_its_own_key_and_a_canonical_number_is_a_number(text: str) -> None:
    key = number_key(text)
    assert number_key(key) == key
    try:
        number = canonical_number(text)
    except ValueError:
        return
    assert is_number(number)
    assert number.isascii()
    assert canonical_number(number) == number == key
