"""Patterns on data: what matches as EventBridge and Event Ruler document it, what is refused and where, and bounds."""

import json
import math
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellwire.filters import Data, EventView, Exact, Filter, Not, matches, trace
from bellwire.filters.data import PatternError, check_pattern, compile_pattern
from tests.factories import event, subscription

DATA: dict[str, Any] = {
    "state": "running",
    "count": 5,
    "limit": 301.8,
    "zero": 0,
    "on": True,
    "off": False,
    "nothing": None,
    "empty": "",
    "none": [],
    "ip": "10.0.1.33",
    "ip6": "2001:db8::ff",
    "path": "dir1/sub/a*b.png",
    "windows": "c:\\a",
    "tags": ["red", "Green", 7],
    "deep": [["a", ["b"]], "c"],
    "detail": {"region": "eu-1", "owner": {"name": "Ann"}},
    "staff": [{"first": "Anna", "last": "Smith"}, {"first": "John", "last": "Jones", "boss": True}],
    "teams": [[{"first": "Peter"}], [{"first": "Mary", "roles": ["admin", "dev"]}]],
    "$x": "dollar",
}


@pytest.mark.parametrize(
    ("pattern", "matched"),
    [
        # Exact values: texts are case-sensitive; types differ, but 5 and 5.0 are one number.
        ({"state": ["running"]}, True),
        ({"state": ["stopped", "running"]}, True),
        ({"state": ["Running"]}, False),
        ({"state": ["run"]}, False),
        ({"count": [5]}, True),
        ({"count": [5.0]}, True),
        ({"count": ["5"]}, False),
        ({"limit": [3.018e2]}, True),
        ({"on": [True]}, True),
        ({"on": [1]}, False),
        ({"zero": [False]}, False),
        ({"off": [False]}, True),
        ({"off": [0]}, False),
        ({"nothing": [None]}, True),
        ({"missing": [None]}, False),
        ({"empty": [""]}, True),
        ({"nothing": [""]}, False),
        ({"state": ["running"], "count": [5]}, True),
        ({"state": ["running"], "count": [6]}, False),
        # Prefix and suffix
        ({"state": [{"prefix": "run"}]}, True),
        ({"state": [{"prefix": "Run"}]}, False),
        ({"state": [{"prefix": {"equals-ignore-case": "RUN"}}]}, True),
        ({"state": [{"suffix": "ing"}]}, True),
        ({"state": [{"suffix": "ING"}]}, False),
        ({"state": [{"suffix": {"equals-ignore-case": "ING"}}]}, True),
        ({"count": [{"prefix": "5"}]}, False),
        ({"missing": [{"prefix": "a"}]}, False),
        ({"state": ["x", {"prefix": "y"}, {"suffix": "ing"}]}, True),
        # The empty text: every text has it.
        ({"state": [{"prefix": ""}]}, True),
        ({"empty": [{"suffix": ""}]}, True),
        ({"state": [{"suffix": {"equals-ignore-case": ""}}]}, True),
        ({"count": [{"prefix": ""}]}, False),
        ({"missing": [{"suffix": ""}]}, False),
        # Ignore case
        ({"state": [{"equals-ignore-case": "RUNNING"}]}, True),
        ({"state": [{"equals-ignore-case": "RUNNIN"}]}, False),
        # Anything but: any other value, but there has to be one.
        ({"state": [{"anything-but": "running"}]}, False),
        ({"state": [{"anything-but": "stopped"}]}, True),
        ({"state": [{"anything-but": ["stopped", "running"]}]}, False),
        ({"state": [{"anything-but": ["stopped", "lost"]}]}, True),
        ({"state": [{"anything-but": 5}]}, True),
        ({"count": [{"anything-but": 5}]}, False),
        ({"count": [{"anything-but": [5.0, 6]}]}, False),
        ({"count": [{"anything-but": [6, 7]}]}, True),
        ({"nothing": [{"anything-but": "a"}]}, True),
        ({"nothing": [{"anything-but": [None]}]}, False),
        ({"missing": [{"anything-but": "a"}]}, False),
        ({"state": [{"anything-but": {"prefix": "run"}}]}, False),
        ({"state": [{"anything-but": {"prefix": ["init", "run"]}}]}, False),
        ({"state": [{"anything-but": {"prefix": "init"}}]}, True),
        ({"count": [{"anything-but": {"prefix": "5"}}]}, True),
        ({"state": [{"anything-but": {"suffix": ["ing"]}}]}, False),
        ({"state": [{"anything-but": {"suffix": "ed"}}]}, True),
        ({"state": [{"anything-but": {"equals-ignore-case": ["RUNNING", "x"]}}]}, False),
        ({"state": [{"anything-but": {"equals-ignore-case": "STOPPED"}}]}, True),
        ({"path": [{"anything-but": {"wildcard": "*/sub/*.png"}}]}, False),
        ({"path": [{"anything-but": {"wildcard": ["*.jar", "*.class"]}}]}, True),
        # Numbers
        ({"count": [{"numeric": [">", 0, "<=", 5]}]}, True),
        ({"count": [{"numeric": ["<=", 5, ">", 0]}]}, True),
        ({"count": [{"numeric": [">", 5, "<=", 9]}]}, False),
        ({"count": [{"numeric": ["<", 5]}]}, False),
        ({"count": [{"numeric": [">=", 5]}]}, True),
        ({"count": [{"numeric": ["=", 5]}]}, True),
        ({"limit": [{"numeric": ["=", 3.018e2]}]}, True),
        ({"limit": [{"numeric": [">", 301.79, "<", 301.81]}]}, True),
        ({"state": [{"numeric": [">", 0]}]}, False),
        ({"on": [{"numeric": ["=", 1]}]}, False),
        ({"missing": [{"numeric": ["<", 1]}]}, False),
        # Wildcards
        ({"path": [{"wildcard": "dir*.png"}]}, True),
        ({"path": [{"wildcard": "dir*/*/*.png"}]}, True),
        ({"path": [{"wildcard": "*"}]}, True),
        ({"empty": [{"wildcard": "*"}]}, True),
        ({"path": [{"wildcard": "dir1"}]}, False),
        ({"path": [{"wildcard": "dir*.jpg"}]}, False),
        ({"path": [{"wildcard": "*a\\*b*"}]}, True),
        ({"state": [{"wildcard": "r\\*g"}]}, False),
        ({"windows": [{"wildcard": "c:\\\\*"}]}, True),
        ({"state": [{"wildcard": "runn*nning"}]}, False),
        # Addresses
        ({"ip": [{"cidr": "10.0.0.0/8"}]}, True),
        ({"ip": [{"cidr": "10.0.0.0/24"}]}, False),
        ({"ip": [{"cidr": "10.0.1.33/32"}]}, True),
        ({"ip": [{"cidr": "10.0.1.1/24"}]}, True),
        ({"ip": [{"cidr": "0.0.0.0/0"}]}, True),
        ({"ip": [{"cidr": "::/0"}]}, False),
        ({"ip6": [{"cidr": "2001:db8::/32"}]}, True),
        ({"ip6": [{"cidr": "2001:db9::/32"}]}, False),
        ({"state": [{"cidr": "0.0.0.0/0"}]}, False),
        ({"count": [{"cidr": "0.0.0.0/0"}]}, False),
        # Exists looks at values: not at objects and empty lists.
        ({"state": [{"exists": True}]}, True),
        ({"state": [{"exists": False}]}, False),
        ({"nothing": [{"exists": True}]}, True),
        ({"missing": [{"exists": True}]}, False),
        ({"missing": [{"exists": False}]}, True),
        ({"missing": [{"exists": False}], "state": ["running"]}, True),
        ({"missing": {"deeper": [{"exists": False}]}}, True),
        ({"state": {"deeper": [{"exists": False}]}}, True),
        ({"missing": {"deeper": [{"exists": True}]}}, False),
        ({"detail": [{"exists": True}]}, False),
        ({"detail": [{"exists": False}]}, True),
        ({"none": [{"exists": True}]}, False),
        ({"none": [{"exists": False}]}, True),
        ({"missing": ["a", {"exists": False}]}, True),
        ({"state": ["a", {"exists": False}]}, False),
        # Objects
        ({"detail": {"region": ["eu-1"]}}, True),
        ({"detail": {"region": ["eu-1"], "owner": {"name": [{"prefix": "A"}]}}}, True),
        ({"detail": {"region": ["eu-1"], "owner": {"name": ["Bob"]}}}, False),
        ({"detail": ["eu-1"]}, False),
        ({"state": {"region": ["eu-1"]}}, False),
        # Lists: any item, also of lists within.
        ({"tags": ["green", "red"]}, True),
        ({"tags": ["green"]}, False),
        ({"tags": [7]}, True),
        ({"tags": [{"prefix": "Gr"}]}, True),
        ({"tags": [{"anything-but": "red"}]}, True),
        ({"tags": [{"exists": True}]}, True),
        ({"deep": ["b"]}, True),
        ({"deep": ["d"]}, False),
        # Fields of one object match in the same item of a list.
        ({"staff": {"first": ["Anna"]}}, True),
        ({"staff": {"first": ["Anna"], "last": ["Smith"]}}, True),
        ({"staff": {"first": ["Anna"], "last": ["Jones"]}}, False),
        ({"staff": {"last": ["Smith"], "boss": [{"exists": False}]}}, True),
        ({"staff": {"last": ["Jones"], "boss": [{"exists": False}]}}, False),
        ({"staff": {"boss": [{"exists": False}]}}, False),
        ({"staff": {"nickname": [{"exists": False}]}}, True),
        ({"none": {"first": [{"exists": False}]}}, True),
        ({"none": {"first": ["Anna"]}}, False),
        ({"tags": {"first": ["red"]}}, False),
        ({"tags": {"first": [{"exists": False}]}}, True),
        ({"teams": {"first": ["Peter"]}}, True),
        ({"teams": {"first": ["Mary"], "roles": ["dev"]}}, True),
        ({"teams": {"first": ["Peter"], "roles": ["dev"]}}, False),
        # $or
        ({"$or": [{"state": ["lost"]}, {"count": [{"numeric": [">", 4]}]}]}, True),
        ({"$or": [{"state": ["lost"]}, {"count": [{"numeric": [">", 5]}]}]}, False),
        ({"state": ["running"], "$or": [{"count": [1]}, {"limit": [1]}]}, False),
        ({"$or": [{"state": ["lost"]}, {"state": ["running"], "count": [5]}]}, True),
        ({"$or": [{"a": [1]}, {"$or": [{"b": [1]}, {"count": [5]}]}]}, True),
        ({"detail": {"$or": [{"region": ["us-1"]}, {"owner": {"name": ["Ann"]}}]}}, True),
        ({"staff": {"first": ["Anna"], "$or": [{"last": ["Jones"]}, {"boss": [True]}]}}, False),
        ({"staff": {"first": ["John"], "$or": [{"last": ["Smith"]}, {"boss": [True]}]}}, True),
        ({"$x": ["dollar"]}, True),
    ],
    ids=json.dumps,
)
def test_patterns_match_as_documented(pattern: dict[str, Any], matched: bool) -> None:
    check_pattern(pattern)
    assert compile_pattern(pattern).matches(DATA) is matched
    (found,) = trace([Data(data=pattern)], event(data=DATA))
    assert found.matched is matched
    assert len(found.reason) < 600


@pytest.mark.parametrize("data", [None, "running", 5, True, [], [{"state": "running"}], "{}"])
def test_data_that_is_not_an_object_matches_no_pattern(data: object) -> None:
    wanted = [Data(data={"state": [{"exists": False}]})]
    assert not matches(wanted, event(data=data))
    assert trace(wanted, event(data=data))[0].reason.endswith("; a pattern matches an object only")


@pytest.mark.parametrize(
    ("pattern", "path", "problem"),
    [
        ({}, "", "must be an object with at least one field"),
        ({"a": "x"}, "a", 'must be a list of at least 1 alternative, such as ["paid", {"prefix": "re"}], or an object'),
        ({"a": []}, "a", "must be a list of at least 1 alternative"),
        ({"a": None}, "a", "must be a list"),
        ({"a": {}}, "a", "must be an object with at least one field"),
        ({"a": {"b": {"c": 5}}}, "a.b.c", "must be a list"),
        ({"a": {"prefix": "x"}}, "a.prefix", "is a condition; write it in the list of a field"),
        ({"a": ["x", ["y"]]}, "a.1", "must be a text, a number, true, false, null, or a condition"),
        ({"a": [{}]}, "a.0", "must be an object with one of prefix"),
        ({"a": [{"regex": "x"}]}, "a.0", "must be an object with one of prefix, suffix, equals-ignore-case, wildcard"),
        ({"a": [{"prefix": "x", "suffix": "y"}]}, "a.0", "must be an object with one of"),
        (
            {"a": [{"anything-but": {"prefix": ""}}]},
            "a.0.anything-but.prefix",
            "must be a text of at least 1 character",
        ),
        ({"a": [{"wildcard": ""}]}, "a.0.wildcard", "must be a text of at least 1 character"),
        ({"a": [{"prefix": 5}]}, "a.0.prefix", "must be a text"),
        ({"a": [{"suffix": {"wildcard": "a"}}]}, "a.0.suffix", "must be an object with one of equals-ignore-case"),
        ({"a": [{"suffix": {"equals-ignore-case": 1}}]}, "a.0.suffix.equals-ignore-case", "must be a text"),
        ({"a": [{"equals-ignore-case": ["x"]}]}, "a.0.equals-ignore-case", "must be a text"),
        ({"a": [{"anything-but": []}]}, "a.0.anything-but", "must be a text, a number, true, false or null, or a list"),
        ({"a": [{"anything-but": [["x"]]}]}, "a.0.anything-but", "must be a text, a number, true, false or null"),
        ({"a": [{"anything-but": {"numeric": ["=", 5]}}]}, "a.0.anything-but", "one of prefix, suffix, equals-ignore"),
        ({"a": [{"anything-but": {"prefix": []}}]}, "a.0.anything-but.prefix", "must have at least 1 text"),
        ({"a": [{"anything-but": {"suffix": ["x", 5]}}]}, "a.0.anything-but.suffix", "must be a text"),
        ({"a": [{"numeric": []}]}, "a.0.numeric", "must be a list of comparisons and numbers"),
        ({"a": [{"numeric": [">", "5"]}]}, "a.0.numeric", "must be a list of comparisons and numbers"),
        ({"a": [{"numeric": [">", True]}]}, "a.0.numeric", "must be a list of comparisons and numbers"),
        ({"a": [{"numeric": [[], 5]}]}, "a.0.numeric", "must be a list of comparisons and numbers"),
        ({"a": [{"numeric": ["!=", 5]}]}, "a.0.numeric", "must be a list of comparisons and numbers"),
        ({"a": [{"numeric": [">", 5, ">", 6]}]}, "a.0.numeric", "must be a lower bound and a larger upper one"),
        ({"a": [{"numeric": [">", 5, "<", 5]}]}, "a.0.numeric", "must be a lower bound and a larger upper one"),
        ({"a": [{"numeric": ["<", 1, ">", 2]}]}, "a.0.numeric", "must be a lower bound and a larger upper one"),
        ({"a": [{"numeric": ["=", 1, "<", 2]}]}, "a.0.numeric", "must be a lower bound and a larger upper one"),
        ({"a": [{"exists": "true"}]}, "a.0.exists", "must be true or false"),
        ({"a": [{"wildcard": "a**b"}]}, "a.0.wildcard", "has two * in a row; write one"),
        ({"a": [{"wildcard": "a\\b"}]}, "a.0.wildcard", "has a backslash before another character"),
        ({"a": [{"wildcard": "a\\"}]}, "a.0.wildcard", "has a backslash before another character"),
        ({"a": [{"cidr": "10.0.0/8"}]}, "a.0.cidr", "must be a range of IP addresses, such as 10.0.0.0/8"),
        ({"a": [{"cidr": "10.0.0.0/33"}]}, "a.0.cidr", "must be a range of IP addresses"),
        ({"$or": {"a": ["x"]}}, "$or", "must be a list of at least 2 patterns, one of which has to match"),
        ({"$or": [{"a": ["x"]}]}, "$or", "must be a list of at least 2 patterns"),
        ({"$or": [{"a": ["x"]}, {"b": 5}]}, "$or.1.b", "must be a list of at least 1 alternative"),
        ({"$or": [{"a": ["x"]}, "b"]}, "$or.1", "must be an object with at least one field"),
        ({"a": ["x"] * 501}, "", "has 501 alternatives, the limit is 500; shorten it"),
        ({"a": [{"anything-but": {"prefix": ["x"] * 501}}]}, "", "has 501 alternatives, the limit is 500; shorten it"),
        ({"a": ["x", {"anything-but": [1] * 500}]}, "", "has 501 alternatives, the limit is 500; shorten it"),
        # 1e400 of JSON
        ({"a": [math.inf]}, "a.0", "must be a text, a number, true, false, null, or a condition"),
        (
            {"a": [{"anything-but": [1, -math.inf]}]},
            "a.0.anything-but",
            "must be a text, a number, true, false or null",
        ),
        ({"a": [{"numeric": ["<", math.inf]}]}, "a.0.numeric", "must be a list of comparisons and numbers"),
        ({"a": [{"numeric": ["=", math.nan]}]}, "a.0.numeric", "must be a list of comparisons and numbers"),
        # Half of a surrogate pair, which JSON may have
        ({"a": ["\ud800"]}, "", "contains \\ud800, half of a surrogate pair; write the whole character"),
        ({"a\udfff": ["x"]}, "", "contains \\udfff, half of a surrogate pair; write the whole character"),
        ({"a": ["x" * 17_000]}, "", "characters of JSON, the limit is 16,384; shorten it"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_an_invalid_pattern_is_refused_and_its_place_named(pattern: dict[str, Any], path: str, problem: str) -> None:
    with pytest.raises(PatternError) as refused:
        check_pattern(pattern)
    assert (".".join(refused.value.path), problem in refused.value.problem) == (path, True)


def nested(levels: int) -> Any:
    pattern: Any = ["x"]
    for _ in range(levels):
        pattern = {"a": pattern}
    return pattern


@pytest.mark.parametrize("levels", [22, 500, 100_000])
def test_patterns_that_are_nested_too_deep_are_refused(levels: int) -> None:
    check_pattern(nested(20))
    with pytest.raises(PatternError, match="is nested deeper than 20 levels; flatten it"):
        check_pattern(nested(levels))


@pytest.mark.parametrize("pattern", ["*a" * 500 + "*b", "a*" * 500 + "c", "*ab" * 300])
def test_a_wildcard_does_not_backtrack(pattern: str) -> None:
    compiled, data = compile_pattern({"a": [{"wildcard": pattern}]}), {"a": "a" * 200_000}
    began = time.thread_time()
    assert not compiled.matches(data)
    assert time.thread_time() - began < 1.0


def test_a_large_pattern_does_not_match_data_with_very_many_values() -> None:
    wanted = Data(data={"items": {"$or": [{f"f{number}": ["x"]} for number in range(400)]}})
    assert matches([wanted], event(data={"items": [{}] * 100 + [{"f399": "x"}]}))
    large = EventView(event(data={"items": [{}] * 50_000 + [{"f399": "x"}]}))
    began = time.thread_time()
    assert not wanted.matches(large)
    assert time.thread_time() - began < 1.0
    reason = "the data has 50,004 values and 1 character of text, which are too many for this pattern"
    assert trace([wanted], large)[0].reason == reason


@pytest.mark.parametrize(
    ("condition", "data"),
    [
        # Not one comparison, but as many as the list has
        ({"anything-but": {"prefix": [f"p{number}" for number in range(500)]}}, ["x"] * 40_000),
        # One value that is long
        ({"anything-but": {"wildcard": ["*a" * 10 + "*b"] * 500}}, ["a" * 240_000]),
    ],
    ids=["list", "characters"],
)
def test_what_a_condition_lists_and_long_texts_count_too(condition: dict[str, Any], data: list[str]) -> None:
    wanted = Data(data={"a": [condition]})
    assert matches([wanted], event(data={"a": ["x"]}))
    large = EventView(event(data={"a": data}))
    began = time.thread_time()
    assert not wanted.matches(large)
    assert time.thread_time() - began < 1.0
    assert trace([wanted], large)[0].reason.endswith("too many for this pattern")


def test_the_filters_of_a_subscription_share_one_bound() -> None:
    one = {"a": [{"wildcard": f"*{number}*"} for number in range(20)] + ["x"]}
    wanted: list[Filter] = [Exact(exact={"type": "order.paid"}), Not(not_=Data(data={"b": ["x"]}))]
    wanted += [Data(data=one)] * 98
    assert matches(wanted, event(data={"a": ["x"]}))
    large = EventView(event(data={"a": ["y"] * 40_000 + ["x"]}))
    assert matches(wanted[:3], large)
    began = time.thread_time()
    assert not matches(wanted, large)
    found = trace(wanted, large)
    assert time.thread_time() - began < 1.0
    assert [each.matched for each in found] == [True] + [False] * 99
    assert found[2].reason.endswith("which are too many for the patterns of all filters together")


def test_a_trace_tries_each_filter_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However deep it is within others."""
    tried = list[EventView]()
    original = Exact._compile

    def compiled(self: Exact) -> Callable[[EventView], bool]:
        test = original(self)

        def counted(view: EventView) -> bool:
            tried.append(view)
            return test(view)

        return counted

    monkeypatch.setattr(Exact, "_compile", compiled)
    wanted = subscription(filters=[{"any": [{"not": {"exact": {"type": "a"}}}]}])
    (found,) = trace(wanted.filters, event(type="order.paid"))
    assert (found.matched, len(tried)) == (True, 1)


def test_a_very_large_whole_number_is_a_number() -> None:
    check_pattern({"a": [10**400], "b": [{"numeric": ["<", 10**400]}]})


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ({"state": ["lost"]}, 'data.state is "running", which does not match ["lost"]'),
        ({"missing": ["lost"]}, 'data.missing is not set, which does not match ["lost"]'),
        (
            {"state": ["running"], "detail": {"owner": {"name": ["Bob"]}}},
            'data.detail.owner.name is "Ann", which does n',
        ),
        ({"missing": {"a": ["x"]}}, 'data.missing.a is not set, which does not match ["x"]'),
        ({"staff": {"first": ["Anna"], "last": ["Jones"]}}, "data.staff has 2 items, none of which matches {"),
        ({"$or": [{"state": ["a"]}, {"count": [1]}]}, 'none of 2 patterns of $or matches: data.state is "running", wh'),
        (
            {"state": ["running"], "detail": {"region": ["eu-1"]}},
            'data.state is "running", data.detail.region is "eu-1"',
        ),
        ({"$or": [{"state": ["a"]}, {"count": [5]}]}, "data.count is 5"),
        ({"missing": [{"exists": False}]}, "data.missing is not set"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_trace_names_the_first_field_that_fails_or_the_values_that_match(
    pattern: dict[str, Any], reason: str
) -> None:
    (found,) = trace([Data(data=pattern)], event(data=DATA))
    assert found.dialect == "data"
    assert found.reason.startswith(reason)


KEYS = st.sampled_from(["a", "b", "c"])
SCALARS = st.sampled_from(["x", "xy", "", 0, 1, 2.5, True, None])
ANY_DATA = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3))
CONDITIONS = st.sampled_from(
    [
        {"prefix": "x"},
        {"suffix": "y"},
        {"exists": True},
        {"exists": False},
        {"numeric": [">", 0]},
        {"wildcard": "*y"},
        {"anything-but": ["x", 1]},
        {"anything-but": {"prefix": "x"}},
        {"equals-ignore-case": "X"},
    ]
)
PATTERNS = st.recursive(
    st.dictionaries(KEYS, st.lists(SCALARS | CONDITIONS, min_size=1, max_size=2), min_size=1, max_size=2),
    lambda inner: (
        st.dictionaries(KEYS, inner, min_size=1, max_size=2)
        | st.lists(inner, min_size=2, max_size=2).map(lambda patterns: {"$or": patterns})
    ),
    max_leaves=5,
)


@given(PATTERNS, ANY_DATA)
def test_the_verdict_of_a_trace_is_that_of_the_pattern(pattern: dict[str, Any], data: object) -> None:
    wanted, one_event = Data(data=pattern), event(data=data)
    (found,) = trace([wanted], one_event)
    assert found.matched is matches([wanted], one_event)
    assert (
        "does not match" in found.reason or "none of" in found.reason or "; a pattern" in found.reason
    ) or found.matched


@given(st.dictionaries(KEYS | st.just("$or"), ANY_DATA), ANY_DATA)
def test_any_pattern_is_compiled_or_refused(pattern: dict[str, Any], data: object) -> None:
    try:
        check_pattern(pattern)
    except PatternError:
        return
    assert compile_pattern(pattern).matches(data) in {True, False}
