"""Workflow ids, event keys and delivery ids: equal input has the same id, different input has different ids."""

import re
from itertools import combinations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bellwire.contract import (
    batch_workflow_id,
    channel_queue,
    child_workflow_id,
    event_workflow_id,
    publication_digest,
)
from bellwire.deliveries import delivery_id
from bellwire.events import event_key
from bellwire.targets import SPECS, Channel
from tests.factories import event

#: Few characters, among them those that ids are built with, so that ids nearly collide.
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
def test_pairs_that_look_alike_have_different_ids(identify: object) -> None:
    assert callable(identify)
    for one, other in combinations(TRICKY, 2):
        assert identify(*one) != identify(*other), (one, other)


@given(PAIRS, PAIRS)
@example(("a", "b/c"), ("a/b", "c"))
def test_pairs_have_the_same_id_only_if_they_are_equal(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert (event_key(*one) == event_key(*other)) is (one == other)
    assert (event_workflow_id(*one) == event_workflow_id(*other)) is (one == other)


@given(PAIRS, PAIRS, st.sampled_from(["a", "a_a", "_", "a-b"]), st.sampled_from(["a", "a_a", "_", "a-b"]))
def test_deliveries_have_the_same_id_only_if_event_and_subscription_are_equal(
    one: tuple[str, str], other: tuple[str, str], subscription: str, other_subscription: str
) -> None:
    same = (one, subscription) == (other, other_subscription)
    assert (delivery_id(event_key(*one), subscription) == delivery_id(event_key(*other), other_subscription)) is same


@given(st.text("ab/%", min_size=1, max_size=512), st.text(st.characters(codec="utf-8"), min_size=1, max_size=256))
def test_ids_fit_into_their_limits(source: str, event_id: str) -> None:
    assert re.fullmatch(r"[a-z2-7]{26}", event_key(source, event_id))
    assert len(event_workflow_id(source, event_id)) <= 400
    assert event_workflow_id(source, event_id).startswith("event/")
    assert "." not in delivery_id(event_key(source, event_id), "sub")


@given(PAIRS, PAIRS, st.sampled_from(["page-1", "remaining"]), st.booleans())
@example(("/shop/42", "page-1"), ("/shop", "42"), "page-1", False)
@example(("/shop/42#page-1", "b"), ("/shop", "42"), "page-1", False)
@example(("/shop", "42#page-1"), ("/shop", "42"), "page-1", False)
def test_no_event_has_the_id_of_a_child(one: tuple[str, str], parent: tuple[str, str], name: str, nested: bool) -> None:
    child = child_workflow_id(event_workflow_id(*parent), name)
    if nested:
        child = child_workflow_id(child, "page-1")
    assert event_workflow_id(*one) != child
    assert child != child_workflow_id(batch_workflow_id([event(id="1"), event(id="2")]), name)


def test_a_workflow_id_contains_source_and_id() -> None:
    assert event_workflow_id("/shop/orders", "42:paid") == "event//shop/orders/42:paid"
    assert event_workflow_id("https://shop.example", "a/b c") == "event/https://shop.example/a%2Fb%20c"


def test_ids_do_not_change_between_releases() -> None:
    assert event_key("/shop", "42") == "qfwrnnslisubtedlp2uojnwvcm"
    assert delivery_id(event_key("/shop", "42"), "ann") == "dlv_qfwrnnslisubtedlp2uojnwvcm_ann"


def test_the_id_of_a_batch_depends_on_its_events_and_their_order() -> None:
    one, other = event(id="1"), event(id="2")
    assert batch_workflow_id([one, other]) == batch_workflow_id([one.model_copy(), other.model_copy()])
    assert len({batch_workflow_id(batch) for batch in ([one, other], [other, one], [one], [one, other, one])}) == 4
    assert re.fullmatch(r"events/[0-9a-f]{32}", batch_workflow_id([one, other]))


def test_the_digest_of_a_batch_changes_with_each_event() -> None:
    one, other = event(id="1"), event(id="2")
    assert publication_digest([one, other]) != publication_digest([one, event(id="2", data="changed")])
    assert publication_digest([one]) != one.digest


def test_each_channel_has_its_own_queue() -> None:
    assert {channel_queue(channel) for channel in Channel} == {f"bellwire-{channel}" for channel in SPECS}
