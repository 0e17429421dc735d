"""Type patterns, compared with a simple matcher."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from bellwire.filters import TypePattern, patterns_matching, type_matches

CHECKED: TypeAdapter[str] = TypeAdapter(TypePattern)
#: Few words, so that patterns often match; including empty words and stars.
WORDS = st.sampled_from(["order", "paid", "o", "", "*", "\u00e9"])
TYPES = st.lists(WORDS, min_size=1, max_size=5).map(".".join).filter(bool)


@st.composite
def types_and_patterns(draw: st.DrawFn) -> tuple[str, str]:
    """A type, and a pattern with a prefix of this or another type."""
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


def simple_match(pattern: str, event_type: str) -> bool:
    if pattern == "*":
        return True
    return event_type.startswith(pattern[:-1]) if pattern.endswith(".*") else pattern == event_type


@given(types_and_patterns())
def test_patterns_match_as_the_simple_matcher_does(drawn: tuple[str, str]) -> None:
    event_type, pattern = drawn
    assert type_matches(pattern, event_type) is (simple_match(pattern, event_type) or pattern == event_type)


@given(TYPES)
def test_a_type_has_at_most_one_pattern_per_word(event_type: str) -> None:
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
def test_the_patterns_of_a_type_are_ordered_from_specific_to_general(event_type: str, patterns: list[str]) -> None:
    assert patterns_matching(event_type) == patterns


@pytest.mark.parametrize("pattern", ["*", "order", "order.*", "order.paid", "a.b.c.*", "\u8ba2\u5355.*", "a" * 256])
def test_valid_patterns_are_accepted(pattern: str) -> None:
    assert CHECKED.validate_python(pattern) == pattern


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("", "at least 1"),
        ("a" * 257, "at most 256"),
        ("order*", "is not a valid pattern"),
        ("*.paid", "is not a valid pattern"),
        ("order.*.paid", "is not a valid pattern"),
        ("order.**", "is not a valid pattern"),
        ("**", "is not a valid pattern"),
        (".*", "is not a valid pattern"),
        ("order paid", "white space"),
        ("order.*\n", "is not a valid pattern"),
        ("order\n", "white space"),
        ("order\u200b", "control character"),
        ("order\x00", "control character"),
    ],
)
def test_an_invalid_pattern_is_refused(pattern: str, problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        CHECKED.validate_python(pattern)
