"""Text from outside is storable: encodable in UTF-8 and without NUL, whatever a server or a provider wrote."""

import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellwire.deliveries import MAX_PROVIDER_ID, MAX_REASON, MAX_RESPONSE, Outcome, OutcomeKind, SmsFacts
from bellwire.formats.storable import storable, storable_json
from bellwire.sms.receipts import SmsReceipt, SmsReceiptStatus
from bellwire.suppressions import Suppression, SuppressionReason, by_sender
from bellwire.targets import Channel
from bellwire.targets.sms_segments import Encoding

#: Any code points: surrogates and NUL among them.
ANY = st.text(st.characters(exclude_categories=()) | st.sampled_from("\0\ud83d\ude00\udce9aé😀"), max_size=40)
DOCUMENTS = st.recursive(
    ANY | st.none() | st.integers(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY, inner, max_size=3)
)


def is_storable(text: str) -> bool:
    try:
        return "\0" not in text and text.encode().decode() == text
    except UnicodeEncodeError:
        return False


@given(ANY)
def test_any_text_becomes_storable_and_then_stays_the_same(text: str) -> None:
    made = storable(text)
    assert is_storable(made)
    assert storable(made) == made


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_storable_text_stays_as_it_is(text: str) -> None:
    assert storable(text) == text


@given(ANY, st.integers(0, 10))
def test_text_is_cut_to_the_limit(text: str, limit: int) -> None:
    assert len(storable(text, limit=limit)) <= limit
    assert is_storable(storable(text, limit=limit))


def test_halves_of_a_pair_are_joined_and_lone_ones_replaced() -> None:
    assert storable("a\ud83d\ude00b\ud83dc\0d\udce9") == "a😀b�c�d�"
    assert storable(None) is None


def _strings(document: object) -> list[str]:
    if isinstance(document, str):
        return [document]
    if isinstance(document, dict):
        return [each for name, value in document.items() for each in (name, *_strings(value))]
    return [each for item in document for each in _strings(item)] if isinstance(document, list) else []


@given(DOCUMENTS)
def test_json_has_only_storable_strings_and_keeps_the_others(document: object) -> None:
    text = json.dumps(document)
    parsed = json.loads(storable_json(text))
    assert all(map(is_storable, _strings(parsed)))
    if all(map(is_storable, _strings(json.loads(text)))):
        assert storable_json(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r'{"id": "a\ud83d"}', {"id": "a�"}),
        (r'{"id": "a\uDE00\u0000"}', {"id": "a��"}),
        (r'{"id": "\ud83d\ude00 \\ud83d \\\ud83d"}', {"id": "😀 \\ud83d \\�"}),
        (r'{"id": "\ud83d\ud83d\ude00"}', {"id": "�😀"}),
    ],
)
def test_escapes_are_read_whole(text: str, expected: object) -> None:
    assert json.loads(storable_json(text)) == expected


@given(ANY, ANY, ANY)
def test_an_outcome_can_be_stored_whatever_its_texts_are(reason: str, provider_id: str, response: str) -> None:
    facts = SmsFacts(encoding=Encoding.GSM_7, segments=1, reported_price=Decimal(1), reported_currency=response)
    outcome = Outcome(
        kind=OutcomeKind.DEFERRED, reason=reason * 9, provider_id=provider_id * 9, response=response * 50, sms=facts
    )
    assert Outcome.model_validate_json(outcome.model_dump_json()) == outcome
    texts = (outcome.reason, outcome.provider_id or "", outcome.response or "")
    assert all(map(is_storable, texts))
    limits = (MAX_REASON, MAX_PROVIDER_ID, MAX_RESPONSE)
    assert all(len(text) <= limit for text, limit in zip(texts, limits, strict=True))


@given(ANY, ANY)
def test_suppressions_and_receipts_can_be_stored(number: str, sender: str) -> None:
    suppression = Suppression(
        channel=Channel.SMS,
        address=number,
        reason=SuppressionReason.UNSUBSCRIBED,
        subscription_id=by_sender(sender),
    )
    receipt = SmsReceipt(
        event_key="k",
        subscription_id="s",
        provider_id=sender,
        status=SmsReceiptStatus.SENT,
        currency=number,
        received_at=datetime.now(UTC),
    )
    for text in (suppression.address, suppression.subscription_id, receipt.provider_id, receipt.currency or ""):
        assert is_storable(text)
