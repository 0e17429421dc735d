"""Publications: every event once, within the limits, and divided the same way each time."""

from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic_core import to_json
from temporalio.api.common.v1 import SearchAttributes
from temporalio.common import TypedSearchAttributes
from temporalio.converter import encode_search_attributes

from bellwire.contract import EVENT_ID, EVENT_TYPE, MAX_EVENTS, MAX_PUBLICATION_BYTES, event_workflow_id
from bellwire.errors import EventConflict
from bellwire.events import Event
from bellwire.temporal.publications import Publication, ScheduledKeys, publications
from tests.factories import NOW, event


def numbered(number: int, *, size: int = 0) -> Event:
    return event(id=str(number), time=NOW, data="\u6c34" * (size // 3))


def assert_accepted(attributes: TypedSearchAttributes) -> None:
    """The server refuses a value of more than 2,048 bytes, as temporalio encodes it."""
    sent = SearchAttributes()
    encode_search_attributes(attributes, sent)
    assert max(len(payload.data) for payload in sent.indexed_fields.values()) <= 2048


def size_of(publication: Publication) -> int:
    return sum(len(one_event.model_dump_json().encode()) for one_event in publication.events)


@given(
    st.lists(
        st.tuples(st.integers(0, 300), st.sampled_from([0, 0, 0, 60_000, 250_000])),
        max_size=60,
        unique_by=lambda one: one[0],
    )
)
@settings(max_examples=30, deadline=None)
def test_every_event_goes_into_one_publication_within_the_limits(drawn: list[tuple[int, int]]) -> None:
    given_events = [numbered(number, size=size) for number, size in drawn]
    made = list(publications(given_events))
    assert [one_event for publication in made for one_event in publication.events] == given_events
    for publication in made:
        assert 1 <= len(publication.events) <= MAX_EVENTS
        assert size_of(publication) <= MAX_PUBLICATION_BYTES
    for earlier, later in pairwise(made):
        full = len(earlier.events) == MAX_EVENTS
        next_size = len(later.events[0].model_dump_json().encode())
        assert full or size_of(earlier) + next_size > MAX_PUBLICATION_BYTES


@given(st.lists(st.integers(0, 20), max_size=40))
@settings(max_examples=30, deadline=None)
def test_a_repeated_event_is_published_once_and_the_division_is_stable(numbers: list[int]) -> None:
    made = [
        [one_event.id for one_event in one.events] for one in publications([numbered(number) for number in numbers])
    ]
    assert [name for ids in made for name in ids] == list(dict.fromkeys(map(str, numbers)))
    again = publications([numbered(number).model_copy(update={"traceparent": "00"}) for number in numbers])
    assert [[one_event.id for one_event in one.events] for one in again] == made


@pytest.mark.parametrize(("count", "sizes"), [(0, []), (1, [1]), (100, [100]), (101, [100, 1]), (250, [100, 100, 50])])
def test_a_publication_has_up_to_a_hundred_events(count: int, sizes: list[int]) -> None:
    made = publications([numbered(number) for number in range(count)])
    assert [len(publication.events) for publication in made] == sizes


def test_the_limit_counts_bytes() -> None:
    made = list(publications([numbered(number, size=240_000) for number in range(8)]))
    assert [len(publication.events) for publication in made] == [4, 4]


def test_a_conflict_is_raised_before_anything_is_published() -> None:
    made = publications([*(numbered(number) for number in range(150)), event(id="7", data="other")])
    with pytest.raises(EventConflict, match="source /shop and id 7"):
        next(made)


def test_publishing_the_same_events_again_has_the_same_workflow_ids() -> None:
    events = [numbered(number) for number in range(150)]
    one, other = (
        list(publications(events)),
        list(publications([event(id=one_event.id, data=one_event.data) for one_event in events])),
    )
    assert [publication.workflow_id for publication in one] == [publication.workflow_id for publication in other]
    assert [publication.digest for publication in one] == [publication.digest for publication in other]
    changed = list(publications([*events[:-1], event(id="149", data="changed")]))
    assert changed[1].workflow_id == one[1].workflow_id
    assert changed[1].digest != one[1].digest


def test_a_publication_of_one_event_has_the_id_of_the_event() -> None:
    assert Publication(events=(numbered(42),)).workflow_id == event_workflow_id("/shop", "42")


@pytest.mark.parametrize("number", [1, 4, 100])
def test_a_run_counts_for_fairness_as_many_times_as_it_has_events(number: int) -> None:
    (publication,) = publications([event(tenant="acme") for _ in range(number)])
    assert (publication.priority.fairness_key, publication.priority.fairness_weight) == ("acme", 1 / number)


@pytest.mark.parametrize(
    ("events", "summary"),
    [
        ([event()], "order.paid from /shop"),
        ([event(), event(), event()], "order.paid from /shop and 2 more"),
        ([event(type="\u6c34" * 250)], "\u6c34" * 66),
    ],
)
def test_the_summary_is_one_short_line(events: list[Event], summary: str) -> None:
    assert Publication(events=tuple(events)).summary == summary
    assert len(to_json(Publication(events=tuple(events)).summary)) <= 200


@pytest.mark.parametrize(
    ("ids", "listed"),
    [
        (["42"], 1),
        ([str(number) for number in range(100)], 100),
        ([f"\u0437\u0430\u043a\u0430\u0437-{number}" for number in range(100)], 55),
        (["\U0001f600" * 256], 0),
        (["\U0001f600" * 256, "42", "\u6c34" * 256, "43"], 3),
        (['"' * 256, "\\" * 256], 2),
    ],
)
def test_search_attributes_fit_in_the_form_that_is_sent(ids: list[str], listed: int) -> None:
    attributes = Publication(events=tuple(event(id=name, type=name) for name in ids)).search_attributes
    for key in (EVENT_ID, EVENT_TYPE):
        found = attributes.get(key) or []
        assert len(found) == listed
        assert list(found) == [name for name in ids if name in found]
    assert_accepted(attributes)


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cn"]), min_size=1, max_size=256))
@example('"' * 256)
@example("\U0001f600" * 256)
def test_every_id_and_type_fits_the_limits_of_the_server(name: str) -> None:
    publication = Publication(events=(event(id=name, type=name),))
    assert len(publication.workflow_id.encode()) <= 400
    assert len(to_json(publication.summary)) <= 200
    assert_accepted(publication.search_attributes)


def test_a_client_remembers_the_last_events_that_it_published_for_later() -> None:
    keys, events = ScheduledKeys(maximum=2), [numbered(number) for number in range(4)]
    keys.add(events[:3])
    assert [each.key in keys for each in events] == [False, True, True, False]
    made = [[each.id for each in one.events] for one in publications(events, alone=keys)]
    assert made == [["1"], ["2"], ["0", "3"]]
