"""Filters, compared with a simple evaluator."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from bellwire.errors import SubscriptionInvalid, fields_in_error
from bellwire.events import Event
from bellwire.filters import All, Exact, Filter, Not, Prefix, matches
from bellwire.filters import Any as AnyOf
from bellwire.filters.dialects import MAX_DEPTH
from tests.factories import event

FILTERS: TypeAdapter[tuple[Filter, ...]] = TypeAdapter(tuple[Filter, ...])

#: Few letters, so that filters often match.
VALUES = st.sampled_from(["a", "b", "ab", "ba"])
NAMES = st.sampled_from(["id", "id", "type", "type", "subject", "priority", "flag", "absent", "data"])
LEAVES = st.builds(
    lambda dialect, values: {dialect: values},
    st.sampled_from(["exact", "prefix", "suffix"]),
    st.dictionaries(NAMES, VALUES | st.sampled_from(["true", "1", "-1"]), min_size=1, max_size=2),
)
#: At most seven levels, which is within MAX_DEPTH.
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.builds(
            lambda dialect, items: {dialect: items},
            st.sampled_from(["all", "any"]),
            st.lists(inner, min_size=1, max_size=3),
        )
        | st.builds(lambda item: {"not": item}, inner)
    ),
    max_leaves=7,
).filter(lambda tree: levels(tree) <= MAX_DEPTH)
EVENTS = st.builds(
    lambda attributes: event(**{name: value for name, value in attributes.items() if value is not None}),
    st.fixed_dictionaries(
        {
            "id": VALUES,
            "type": VALUES,
            "subject": st.none() | VALUES,
            "priority": st.none() | st.integers(-11, 11),
            "flag": st.none() | st.booleans(),
        }
    ),
)


def levels(tree: dict[str, Any]) -> int:
    ((dialect, inner),) = tree.items()
    if dialect == "not":
        return 1 + levels(inner)
    return 1 + max(map(levels, inner)) if dialect in {"all", "any"} else 1


def evaluate(tree: dict[str, Any], one_event: Event) -> bool:
    ((dialect, inner),) = tree.items()
    if dialect == "not":
        return not evaluate(inner, one_event)
    if dialect in {"all", "any"}:
        results = [evaluate(item, one_event) for item in inner]
        return all(results) if dialect == "all" else any(results)
    attributes = {name: value for name, value in one_event.structured().items() if name != "data"}
    for name, wanted in inner.items():
        if name not in attributes:
            return False
        value = attributes[name]
        text = json.dumps(value) if isinstance(value, bool) else str(value)
        fits = {
            "exact": text == wanted,
            "prefix": text[: len(wanted)] == wanted,
            "suffix": text[-len(wanted) :] == wanted,
        }
        if not fits[dialect]:
            return False
    return True


def negated(times: int) -> dict[str, Any]:
    tree: dict[str, Any] = {"exact": {"type": "order.paid"}}
    for _ in range(times):
        tree = {"not": tree}
    return tree


@given(st.lists(TREES, max_size=3), EVENTS)
def test_filters_match_as_the_simple_evaluator_does(trees: list[dict[str, Any]], one_event: Event) -> None:
    assert matches(FILTERS.validate_python(trees), one_event) is all(evaluate(tree, one_event) for tree in trees)


@given(st.lists(TREES, max_size=3))
def test_filters_are_restored_from_their_json(trees: list[dict[str, Any]]) -> None:
    filters = FILTERS.validate_python(trees)
    assert FILTERS.dump_python(filters, mode="json") == trees
    assert FILTERS.validate_json(FILTERS.dump_json(filters)) == filters


@given(TREES, EVENTS)
def test_a_filter_or_its_negation_matches(tree: dict[str, Any], one_event: Event) -> None:
    assert matches(FILTERS.validate_python([tree]), one_event) is not matches(
        FILTERS.validate_python([{"not": tree}]), one_event
    )


@pytest.mark.parametrize(
    ("tree", "wanted"),
    [
        ({"exact": {"type": "order.paid"}}, True),
        ({"exact": {"type": "Order.Paid"}}, False),
        ({"exact": {"type": "order.paid", "source": "/other"}}, False),
        ({"prefix": {"source": "/sh"}}, True),
        ({"suffix": {"type": ".paid"}}, True),
        ({"exact": {"subject": "x"}}, False),
        ({"not": {"exact": {"subject": "x"}}}, True),
        ({"any": [{"exact": {"subject": "x"}}, {"exact": {"type": "order.paid"}}]}, True),
        ({"any": [{"exact": {"subject": "x"}}, {"exact": {"type": "other"}}]}, False),
        ({"all": [{"exact": {"subject": "x"}}, {"exact": {"type": "order.paid"}}]}, False),
        ({"exact": {"flag": "true"}}, True),
        ({"exact": {"priority": "7"}}, True),
        ({"exact": {"data": "x"}}, False),
        ({"prefix": {"time": "2026-11-23T08"}}, True),
    ],
)
def test_filters_read_attributes_in_their_string_form(tree: dict[str, Any], wanted: bool) -> None:
    one_event = event(time="2026-11-23T08:00:00Z", flag=True, priority=7, data="x")
    assert matches(FILTERS.validate_python([tree]), one_event) is wanted


def test_no_filters_match_every_event() -> None:
    assert matches((), event())


def test_filters_may_be_written_as_models() -> None:
    written = All(all=(Not(not_=Exact(exact={"type": "a"})), AnyOf(any=(Prefix(prefix={"source": "/shop"}),))))
    assert matches([written], event())
    assert FILTERS.validate_json(FILTERS.dump_json((written,))) == (written,)


@pytest.mark.parametrize(
    ("tree", "field", "problem"),
    [
        (5, "0", "is not a valid filter"),
        (None, "0", "is not a valid filter"),
        ([], "0", "is not a valid filter"),
        ({}, "0", "is not a valid filter"),
        ({"regex": "a"}, "0", "write one of exact, prefix, suffix, all, any, not, sql, data"),
        ({"sql": ""}, "0.sql", "at least 1 character"),
        ({"sql": 5}, "0.sql", "must be a string"),
        (
            {"sql": "type = 'a' AND"},
            "0.sql",
            "position 15: expected a value, the name of an attribute, or (, not the end",
        ),
        ({"sql": "TRUE OR NOSUCH(type)"}, "0.sql", "position 9: NOSUCH is not a function; functions are ABS"),
        ({"sql": "LEFT(type) = 'a'"}, "0.sql", "position 1: LEFT does not take 1 argument"),
        ({"sql": "CONCAT(type, 'a')"}, "0.sql", "is of type String; write a condition, which is true or false"),
        ({"sql": "1 + 1"}, "0.sql", "is of type Integer; write a condition"),
        ({"sql": "a" * 5000}, "0.sql", "must have at most 4096 characters"),
        ({"data": []}, "0.data", "must be an object"),
        ({"data": {"order": {"amount": [{"numeric": [">"]}]}}}, "0.data.order.amount.0.numeric", "must be a list of"),
        (
            {"not": {"data": {"status": "paid"}}},
            "0.not.data.status",
            'must be a list of at least 1 alternative, such as ["p',
        ),
        ({"exact": {"type": "a"}, "prefix": {"type": "a"}}, "0", "is not a valid filter"),
        ({1: {}}, "0", "is not a valid filter"),
        ({"exact": {}}, "0.exact", "at least 1"),
        ({"exact": "type"}, "0.exact", "must be an object"),
        ({"exact": {"type": ""}}, "0.exact.type", "at least 1"),
        ({"prefix": {"type": 5}}, "0.prefix.type", "must be a string"),
        ({"suffix": {"Type": "a"}}, "0.suffix.Type", "is not the name of an attribute"),
        ({"exact": {"type\n": "a"}}, "0.exact.type\n", "is not the name of an attribute"),
        ({"all": []}, "0.all", "at least 1"),
        ({"any": {"exact": {"type": "a"}}}, "0.any", "must be a list"),
        ({"any": [{"exact": {"type": "a"}}, {"sql": ""}]}, "0.any.1.sql", "at least 1 character"),
        ({"not": [{"exact": {"type": "a"}}]}, "0.not", "is not a valid filter"),
        ({"not": {"exact": {"type": 1}}}, "0.not.exact.type", "must be a string"),
        (negated(MAX_DEPTH), "0", "is nested deeper than 10 levels"),
        (negated(200), "0", "is nested deeper than 10 levels"),
        (negated(10_000), "0", "is nested deeper than 10 levels"),
        ({"all": [{"any": [negated(MAX_DEPTH - 2)]}]}, "0", "is nested deeper than 10 levels"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, str) else "",
)
def test_an_invalid_filter_is_refused_and_its_path_named(tree: object, field: str, problem: str) -> None:
    with pytest.raises(ValidationError) as refused:
        FILTERS.validate_python([tree])
    text = fields_in_error(refused.value)
    assert text.startswith((f"{field}: ", f"{field}.[key]: "))
    assert problem in text


def test_filters_may_be_nested_up_to_the_limit() -> None:
    assert matches(FILTERS.validate_python([negated(MAX_DEPTH - 1)]), event()) is (MAX_DEPTH % 2 == 1)


def test_models_cannot_be_nested_beyond_the_limit() -> None:
    nested = Not(not_=Exact(exact={"type": "a"}))
    for _ in range(MAX_DEPTH - 1):
        nested = Not(not_=nested)
    with pytest.raises(SubscriptionInvalid, match=r"^not: is nested deeper than 10 levels"):
        Not(not_=nested)


def test_json_that_is_nested_too_deep_is_refused() -> None:
    with pytest.raises(ValidationError, match="recursion limit exceeded"):
        FILTERS.validate_json("[" + '{"not":' * 10_000 + "0" + "}" * 10_000 + "]")
