"""Traces of filters: the verdict of each, and a sentence with the values seen."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from bellwire.events import Event
from bellwire.filters import Filter, Trace, matches, trace
from tests.factories import event
from tests.unit.test_filters import EVENTS, TREES

FILTERS: TypeAdapter[tuple[Filter, ...]] = TypeAdapter(tuple[Filter, ...])


def traced(tree: dict[str, Any], **attributes: Any) -> Trace:
    (found,) = trace(FILTERS.validate_python([tree]), event(**attributes))
    return found


@pytest.mark.parametrize(
    ("tree", "matched", "reason"),
    [
        ({"exact": {"subject": "a/1"}}, True, 'subject is "a/1"'),
        ({"exact": {"subject": "b"}}, False, 'subject is "a/1", not "b"'),
        ({"exact": {"subject": "a/1", "flag": "true"}}, True, 'subject is "a/1" and flag is "true"'),
        ({"exact": {"subject": "a/1", "flag": "false"}}, False, 'flag is "true", not "false"'),
        ({"exact": {"absent": "a"}}, False, "absent is not set"),
        ({"exact": {"data": "a"}}, False, "data is not set"),
        ({"prefix": {"subject": "a/"}}, True, 'subject is "a/1", which starts with "a/"'),
        ({"prefix": {"subject": "b/"}}, False, 'subject is "a/1", which does not start with "b/"'),
        ({"suffix": {"subject": "/1"}}, True, 'subject is "a/1", which ends with "/1"'),
        ({"suffix": {"subject": "/2"}}, False, 'subject is "a/1", which does not end with "/2"'),
        ({"not": {"exact": {"subject": "b"}}}, True, "the filter within does not match"),
        ({"not": {"exact": {"subject": "a/1"}}}, False, "the filter within matches"),
        ({"all": [{"exact": {"subject": "a/1"}}]}, True, "the filter within matches"),
        ({"all": [{"exact": {"subject": "a/1"}}] * 2}, True, "all 2 filters within match"),
        ({"all": [{"exact": {"subject": x}} for x in ("a/1", "b", "c")]}, False, "filter 2 of 3 within does not match"),
        ({"any": [{"exact": {"subject": x}} for x in ("b", "a/1")]}, True, "filter 2 of 2 within matches"),
        ({"any": [{"exact": {"subject": x}} for x in ("b", "c")]}, False, "none of 2 filters within matches"),
        ({"any": [{"exact": {"subject": "b"}}]}, False, "the filter within does not match"),
        ({"sql": "flag AND subject = 'a/1'"}, True, 'the expression is true; flag is true, subject is "a/1"'),
        ({"sql": "subject LIKE 'b%'"}, False, 'the expression is false; subject is "a/1"'),
        ({"sql": "NOT EXISTS absent"}, True, "the expression is true; absent is not set"),
        ({"sql": "1 = 2"}, False, "the expression is false"),
        ({"sql": "subject"}, False, 'the expression is "a/1", which is neither true nor false; subject is "a/1"'),
        (
            {"sql": "absent = 'a' OR flag"},
            False,
            "the expression fails with missingAttribute: absent is not set; flag is true",
        ),
        (
            {"sql": "subject > 1"},
            False,
            'the expression fails with cast: "a/1" is not of type Integer; subject is "a/1"',
        ),
        ({"data": {"total": ["19.90 EUR"]}}, True, 'data.total is "19.90 EUR"'),
        ({"data": {"total": [{"numeric": [">", 1]}]}}, False, 'data.total is "19.90 EUR", which does not match [{"num'),
    ],
)
def test_a_trace_names_the_values_seen(tree: dict[str, Any], matched: bool, reason: str) -> None:
    found = traced(tree, subject="a/1", flag=True)
    assert found.matched is matched
    assert found.reason.startswith(reason)
    assert "data" in tree or found.reason == reason


def test_a_trace_has_the_filter_as_written_and_the_filters_within() -> None:
    inner = {"not": {"exact": {"subject": "b"}}}
    found = traced({"any": [inner, {"prefix": {"subject": "a"}}]}, subject="a/1")
    assert found.dialect == "any"
    assert found.text == '{"any":[{"not":{"exact":{"subject":"b"}}},{"prefix":{"subject":"a"}}]}'
    negation, prefix = found.inner
    assert (negation.dialect, prefix.dialect) == ("not", "prefix")
    assert negation.inner[0].reason == 'subject is "a/1", not "b"'


def test_long_values_are_shortened() -> None:
    reason = traced({"exact": {"subject": "b" * 500}}, subject="a" * 500).reason
    assert len(reason) < 500
    assert reason.startswith('subject is "aaa')
    assert reason.endswith("b…")


#: Attributes that few or all of the events have, and one that none has.
EXPRESSIONS = st.sampled_from(
    ["id = 'a'", "subject LIKE 'a%'", "priority > 0", "flag", "absent = 1 OR TRUE", "id"]
).map(lambda text: {"sql": text})


@given(st.lists(TREES | EXPRESSIONS | EXPRESSIONS.map(lambda tree: {"not": tree}), max_size=3), EVENTS)
def test_the_verdict_of_a_trace_is_that_of_the_filters(trees: list[dict[str, Any]], one_event: Event) -> None:
    filters = FILTERS.validate_python(trees)
    found = trace(filters, one_event)
    assert all(each.matched for each in found) is matches(filters, one_event)
    assert [each.matched for each in found] == [matches([each], one_event) for each in filters]
