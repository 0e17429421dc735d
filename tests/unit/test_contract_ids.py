"""Identities: what is the same gets the same id, and nothing else does."""

import re
from itertools import combinations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bellwire.contract import batch_workflow_id, channel_queue, event_workflow_id, publication_digest
from bellwire.deliveries import delivery_id
from bellwire.events import event_key
from bellwire.targets import Channel
from tests.factories import event

#: Few characters, those that ids are made of among them, so that pairs nearly meet.
SOURCES = st.text("ab/:%2F?#", min_size=1, max_size=8)
IDS = st.text("ab/:%2F?# \u00e9_", min_size=1, max_size=8)
PAIRS = st.tuples(SOURCES, IDS)
TRICKY = [
    ("a", "b/c"),
    ("a/b", "c"),
    ("a", "b%2Fc"),
    ("a/b%2Fc", "d"),
    ("a/b", "c/d"),
    ("a/b/c", "d"),
    ("a", "/b"),
    ("a/", "b"),
    ("a", "b/"),
    ("a", "%"),
    ("a", "%25"),
    ("a", " "),
    ("a", "+"),
    ("a", "%20"),
    ("a", "\u00e9"),
    ("a", "e\u0301"),
    ("a", "%C3%A9"),
    ("/" * 400, "b"),
    ("/" * 401, "b"),
    ("/" * 400, "/b"),
    ("/shop", "a" * 256),
    ("/shop", "\u6c34" * 256),
    ("/shop", "\u6c34" * 255 + "\u706b"),
]


@pytest.mark.parametrize("identify", [event_key, event_workflow_id])
def test_tricky_pairs_have_ids_of_their_own(identify: object) -> None:
    assert callable(identify)
    for one, other in combinations(TRICKY, 2):
        assert identify(*one) != identify(*other), (one, other)


@given(PAIRS, PAIRS)
@example(("a", "b/c"), ("a/b", "c"))
def test_pairs_share_an_id_only_if_they_are_the_same(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert (event_key(*one) == event_key(*other)) is (one == other)
    assert (event_workflow_id(*one) == event_workflow_id(*other)) is (one == other)


@given(PAIRS, PAIRS, st.sampled_from(["a", "a_a", "_", "a-b"]), st.sampled_from(["a", "a_a", "_", "a-b"]))
def test_deliveries_share_an_id_only_if_event_and_subscription_are_the_same(
    one: tuple[str, str], other: tuple[str, str], wish: str, another: str
) -> None:
    same = (one, wish) == (other, another)
    assert (delivery_id(event_key(*one), wish) == delivery_id(event_key(*other), another)) is same


@given(st.text("ab/%", min_size=1, max_size=512), st.text(st.characters(codec="utf-8"), min_size=1, max_size=256))
def test_ids_fit_where_they_go(source: str, event_id: str) -> None:
    assert re.fullmatch(r"[a-z2-7]{26}", event_key(source, event_id))
    assert len(event_workflow_id(source, event_id)) <= 400
    assert event_workflow_id(source, event_id).startswith("event/")
    assert "." not in delivery_id(event_key(source, event_id), "sub")


def test_a_readable_id_says_source_and_id() -> None:
    assert event_workflow_id("/shop/orders", "42:paid") == "event//shop/orders/42:paid"
    assert event_workflow_id("https://shop.example", "a/b c") == "event/https://shop.example/a%2Fb%20c"


def test_ids_stay_what_they_are_over_releases() -> None:
    assert event_key("/shop", "42") == "qfwrnnslisubtedlp2uojnwvcm"
    assert delivery_id(event_key("/shop", "42"), "ann") == "dlv_qfwrnnslisubtedlp2uojnwvcm_ann"


def test_a_batch_is_known_by_its_events_and_their_order() -> None:
    one, other = event(id="1"), event(id="2")
    assert batch_workflow_id([one, other]) == batch_workflow_id([one.model_copy(), other.model_copy()])
    assert len({batch_workflow_id(batch) for batch in ([one, other], [other, one], [one], [one, other, one])}) == 4
    assert re.fullmatch(r"events/[0-9a-f]{32}", batch_workflow_id([one, other]))


def test_the_digest_of_a_batch_changes_with_each_event() -> None:
    one, other = event(id="1"), event(id="2")
    assert publication_digest([one, other]) != publication_digest([one, event(id="2", data="changed")])
    assert publication_digest([one]) != one.digest


def test_each_channel_has_a_queue_of_its_own() -> None:
    assert [channel_queue(channel) for channel in Channel] == ["bellwire-email", "bellwire-sms", "bellwire-webhook"]
