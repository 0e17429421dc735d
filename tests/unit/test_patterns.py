"""Type patterns, beside the plainest matcher there is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from bellwire.filters import TypePattern, patterns_matching, type_matches

CHECKED: TypeAdapter[str] = TypeAdapter(TypePattern)
#: Few letters, so that types and patterns often meet; empty words and stars included.
WORDS = st.sampled_from(["order", "paid", "o", "", "*", "\u00e9"])
TYPES = st.lists(WORDS, min_size=1, max_size=5).map(".".join).filter(bool)


@st.composite
def types_and_patterns(draw: st.DrawFn) -> tuple[str, str]:
    """A type, and a pattern of its own beginning or of another's."""
    event_type = draw(TYPES)
    words = draw(st.just(event_type) | TYPES).split(".")
    beginning = ".".join(words[: draw(st.integers(1, len(words)))])
    return event_type, draw(st.sampled_from([beginning, f"{beginning}.*"]).filter(is_pattern) | st.just("*"))


def is_pattern(text: str) -> bool:
    try:
        CHECKED.validate_python(text)
    except ValidationError:
        return False
    return True


def plainly(pattern: str, event_type: str) -> bool:
    if pattern == "*":
        return True
    return event_type.startswith(pattern[:-1]) if pattern.endswith(".*") else pattern == event_type


@given(types_and_patterns())
def test_patterns_match_as_the_plain_matcher_does(drawn: tuple[str, str]) -> None:
    event_type, pattern = drawn
    assert type_matches(pattern, event_type) is (plainly(pattern, event_type) or pattern == event_type)


@given(TYPES)
def test_a_type_is_looked_up_once_per_word_and_no_pattern_twice(event_type: str) -> None:
    patterns = patterns_matching(event_type)
    assert len(patterns) == len(set(patterns)) <= event_type.count(".") + 2
    assert {event_type, "*"} <= set(patterns)


@pytest.mark.parametrize(
    ("event_type", "patterns"),
    [
        ("order.paid", ["order.paid", "order.*", "*"]),
        ("order", ["order", "*"]),
        ("a.b.c", ["a.b.c", "a.b.*", "a.*", "*"]),
        ("order.", ["order.", "order.*", "*"]),
        ("*", ["*"]),
    ],
)
def test_the_patterns_of_a_type_go_from_special_to_general(event_type: str, patterns: list[str]) -> None:
    assert patterns_matching(event_type) == patterns


@pytest.mark.parametrize("pattern", ["*", "order", "order.*", "order.paid", "a.b.c.*", "\u8ba2\u5355.*", "a" * 256])
def test_patterns_are_types_types_with_a_star_or_a_star(pattern: str) -> None:
    assert CHECKED.validate_python(pattern) == pattern


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("", "at least 1"),
        ("a" * 257, "at most 256"),
        ("order*", "is not a pattern"),
        ("*.paid", "is not a pattern"),
        ("order.*.paid", "is not a pattern"),
        ("order.**", "is not a pattern"),
        ("**", "is not a pattern"),
        (".*", "is not a pattern"),
        ("order paid", "white space"),
        ("order.*\n", "is not a pattern"),
        ("order\n", "white space"),
        ("order\u200b", "control character"),
        ("order\x00", "control character"),
    ],
)
def test_a_bad_pattern_is_refused(pattern: str, problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        CHECKED.validate_python(pattern)
