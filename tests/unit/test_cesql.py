"""CESQL beyond the conformance suite: values and errors by the text of the specification, positions, bounds, and any text."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellwire.filters import EventView
from bellwire.filters.cesql import CesqlError, evaluate, parse
from bellwire.filters.cesql.parser import MAX_CHARACTERS, MAX_DEPTH
from tests.factories import event
from tests.unit.test_cesql_suite import outcome

SEEN = event(id="1", subject="order/42", time="2026-11-23T09:00:00+01:00", count=7, yes=True, hop="5", text="a%b")


@pytest.mark.parametrize(
    ("expression", "value", "error"),
    [
        # Attributes keep their types; times and URIs are strings. The data is no attribute.
        ("count", 7, None),
        ("yes", True, None),
        ("source", "/shop", None),
        ("time", "2026-11-23T09:00:00+01:00", None),
        ("SUBJECT", "order/42", None),
        ("tenant", "acme", None),
        ("data", False, "missingAttribute"),
        ("EXISTS data", False, None),
        ("absent", False, "missingAttribute"),
        # Casts: the right operand decides, and for IN the left one.
        ("hop = 5", True, None),
        ("5 = hop", True, None),
        ("count = '7'", True, None),
        ("count = '07'", False, None),
        ("'07' = count", True, None),
        ("yes = 1", True, None),
        ("1 = yes", True, None),
        ("2 = yes", True, None),
        ("'true' = yes", True, None),
        ("yes = 'True'", False, None),
        ("subject = 1", False, "cast"),
        ("subject != 1", False, "cast"),
        ("subject < 1", False, "cast"),
        ("'b' > 'a'", False, "cast"),
        ("'2' < '10'", True, None),
        ("TRUE > FALSE", True, None),
        ("hop IN (4, 5)", True, None),
        ("count IN ('x', 7)", False, "cast"),
        ("count IN (7, 'x')", True, None),
        ("count NOT IN (1, 2)", True, None),
        ("absent IN (1)", False, "missingAttribute"),
        ("1 IN (absent)", False, "missingAttribute"),
        ("10 AND 1", True, None),
        ("0 OR 'true'", True, None),
        ("'no' AND TRUE", False, "cast"),
        ("NOT 'no'", True, "cast"),
        ("-'a'", 0, "cast"),
        ("'a' + 1", 0, "cast"),
        ("' 1' + 1", 0, "cast"),
        ("'+1' + 1", 2, None),
        ("INT('2147483647')", 2147483647, None),
        ("INT('2147483648')", 0, "cast"),
        ("INT('')", 0, "cast"),
        ("INT('\u0661')", 0, "cast"),
        ("BOOL('yes')", False, "cast"),
        ("BOOL('True')", True, None),
        ("STRING(count)", "7", None),
        ("STRING(absent)", "", "missingAttribute"),
        ("IS_INT('12') AND IS_INT(TRUE) AND NOT IS_INT('a')", True, None),
        ("IS_BOOL('true') AND IS_BOOL(1) AND NOT IS_BOOL('a')", True, None),
        # Arithmetic has 32 bits, and rounds towards 0.
        ("2147483647 + 1", 0, "math"),
        ("-2147483648 - 1", 0, "math"),
        ("65536 * 65536", 0, "math"),
        ("--2147483648", 0, "math"),
        ("-2147483648 / -1", 0, "math"),
        ("-2147483648", -2147483648, None),
        ("-7 / 2", -3, None),
        ("7 / -2", -3, None),
        ("-7 % 3", -1, None),
        ("7 % -3", 1, None),
        ("-2147483648 % -1", 0, None),
        ("4-1", 3, None),
        ("4 -1", 3, None),
        ("+4 + +1", 5, None),
        ("0010", 10, None),
        ("1 / 0 = 0", False, "math"),
        ("(1 / 0) + 5", 0, "math"),
        ("(2147483647 + 1) LIKE '0'", False, "math"),
        # Precedence: unary operators, LIKE and IN, * / %, + -, comparisons, then AND, OR and XOR from left to right.
        ("NOT FALSE = FALSE", False, None),
        ("1 + 2 * 3 = 7", True, None),
        ("10 - 4 - 3", 3, None),
        ("2 * 7 / 3 % 3", 1, None),
        ("-2 * -3", 6, None),
        ("NOT 'false' LIKE 'tr%'", True, None),
        ("1 + 1 IN (2)", 1, None),
        ("1 < 2 = TRUE", True, None),
        ("TRUE OR TRUE AND FALSE", False, None),
        ("FALSE AND FALSE OR TRUE", True, None),
        ("TRUE XOR TRUE XOR TRUE", True, None),
        ("FALSE AND absent", False, None),
        ("TRUE OR absent", True, None),
        ("TRUE AND TRUE AND absent", False, "missingAttribute"),
        ("absent OR TRUE", False, "missingAttribute"),
        ("FALSE AND NOSUCH()", False, None),
        # LIKE
        ("text LIKE 'a\\%b'", True, None),
        ("'axb' LIKE 'a\\%b'", False, None),
        ("'a\\xb' LIKE 'a\\\\%b'", False, None),
        ("'' LIKE ''", True, None),
        ("'' LIKE '%'", True, None),
        ("'' LIKE '_'", False, None),
        ("'aa' LIKE 'a%a'", True, None),
        ("'a' LIKE 'a%a'", False, None),
        ("'xa' LIKE '_a%a'", False, None),
        ("'a\nb' LIKE 'a_b'", True, None),
        ("'a\nb' LIKE 'a%b'", True, None),
        ("'a.b' LIKE 'a.b' AND NOT ('axb' LIKE 'a.b')", True, None),
        ("'ABC' LIKE 'abc'", False, None),
        ("'mississippi' LIKE '%_ss%_pi'", True, None),
        ("TRUE = ('a' not like 'b')", True, None),
        # Strings
        ("'it''s' = \"it's\"", True, None),
        ("'\\n' = '\n'", False, None),
        ("LENGTH('\\\\')", 2, None),
        ("LENGTH('😀é')", 2, None),
        # Functions; their names are case-insensitive.
        ("length(subject)", 8, None),
        ("CONCAT('a', 1, TRUE)", "a1true", None),
        ("CONCAT_WS('-', 'a', 'b', 3)", "a-b-3", None),
        ("concat_ws('-')", "", None),
        ("CONCAT_WS()", False, "missingFunction"),
        ("LEFT(subject)", False, "missingFunction"),
        ("nosuch(subject)", False, "missingFunction"),
        ("nosuch(absent) = 1", False, "missingFunction"),
        ("TRIM('\t\u2003 a b \u3000')", "a b", None),
        ("TRIM('\x1ca\x1f')", "\x1ca\x1f", None),
        ("UPPER('aé')", "AÉ", None),
        ("LEFT('abc', 0)", "", None),
        ("RIGHT('abc', 0)", "", None),
        ("RIGHT('abc', 3)", "abc", None),
        ("LEFT('abc', '2')", "ab", None),
        ("LEFT('abc', 'x')", "", "cast"),
        ("LEFT('abc', -1)", "abc", "functionEvaluation"),
        ("LENGTH(LEFT('abc', -1))", 0, "functionEvaluation"),
        ("(LEFT('abc', -1))", "abc", "functionEvaluation"),
        ("SUBSTRING('abc', -3)", "abc", None),
        ("SUBSTRING('abc', 3, 9)", "c", None),
        ("SUBSTRING('abc', 3, 0)", "", None),
        ("SUBSTRING('abc', 1, -1)", "", "functionEvaluation"),
        ("SUBSTRING('abc', 4)", "", "functionEvaluation"),
        ("SUBSTRING('abc', -4)", "", "functionEvaluation"),
        ("SUBSTRING('', 0)", "", None),
        ("ABS(-2147483648) = 2147483647", False, "math"),
        ("ABS(absent)", 0, "missingAttribute"),
        ("LOWER(1 / 0)", "", "math"),
    ],
)
def test_values_and_errors(expression: str, value: object, error: str | None) -> None:
    found, kind = outcome(expression, SEEN)
    assert (found, type(found), kind) == (value, type(value), error)
    assert outcome(expression, SEEN.structured()) == (found, kind)
    assert evaluate(parse(expression), EventView(SEEN))[0] == found


def test_a_time_that_the_publisher_did_not_give_does_not_exist_until_the_event_is_sent() -> None:
    new = event()
    assert outcome("EXISTS time", new) == (False, None)
    assert outcome("EXISTS time", type(new).parse(new.to_json())) == (True, None)


@pytest.mark.parametrize(
    ("expression", "position", "problem"),
    [
        ("", 1, "expected a value, the name of an attribute, or (, not the end"),
        ("type = ", 8, "expected a value"),
        ("type = 'a' subject", 12, "expected an operator or the end, not subject"),
        ("type == 'a'", 7, "expected a value, the name of an attribute, or (, not ="),
        ("(type = 'a'", 12, "expected ), not the end"),
        ("type = 'a", 8, "the string is not closed; end it with '"),
        ("type = 'a\\'", 8, "the string is not closed"),
        ("type ~ 'a'", 6, "'~' is not part of the language"),
        ("order-id = 1 + .5", 16, "'.' is not part of the language"),
        ("type LIKE subject", 11, "expected the pattern of LIKE, which is a string in quotes, not subject"),
        ("type LIKE 1", 11, "expected the pattern of LIKE"),
        ("type NOT 'a'", 6, "expected an operator or the end, not NOT"),
        ("type IN 'a'", 9, "expected the list of IN, such as ('a', 'b'), not a string"),
        ("type IN ()", 10, "expected a value"),
        ("type IN ('a',)", 14, "expected a value"),
        ("EXISTS 'a'", 8, "expected the name of an attribute, not a string"),
        ("EXISTS 1", 8, "expected the name of an attribute, not 1"),
        ("2147483648", 1, "the number is out of range (32-bit integer)"),
        ("1 = -2147483649", 6, "the number is out of range (32-bit integer)"),
        ("1" * 4000, 1, "the number is out of range (32-bit integer)"),
        ("+ 1", 3, "expected the digits of a number after +"),
        ("my_name = 1", 1, "my_name is not the name of an attribute; write 1 to 64 letters and digits"),
        ("a2() = 1", 1, "a2 is not the name of a function"),
        ("_a()", 1, "_a is not the name of a function"),
        ("LEFT('a', 1", 12, "expected ), not the end"),
        ("AND", 1, "expected a value, the name of an attribute, or (, not AND"),
        ("é = 1", 1, "'é' is not part of the language"),
        ("(" * 60 + "1" + ")" * 60, MAX_DEPTH + 2, "is nested deeper than 50 levels; flatten it"),
        ("NOT " * 200 + "yes", 804, "is nested deeper than 100 operations; flatten it"),
        ("1" + " + 1" * 150, 403, "is nested deeper than 100 operations; flatten it"),
        ("1 IN (" + "1, " * 1000 + "1)", 3005, "has more than 1,000 parts; shorten it"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_errors_of_the_syntax_have_a_position_and_say_what_was_expected(
    expression: str, position: int, problem: str
) -> None:
    with pytest.raises(CesqlError) as refused:
        parse(expression)
    assert refused.value.kind == "parse"
    assert problem in refused.value.message
    assert refused.value.position == position
    assert str(refused.value).startswith(f"position {position}: ")


def test_long_expressions_are_refused() -> None:
    with pytest.raises(CesqlError, match=r"has 4,097 characters, the limit is 4,096; shorten it") as refused:
        parse("a" * (MAX_CHARACTERS + 1))
    assert refused.value.kind == "parse"


def test_long_lists_of_conditions_are_flat() -> None:
    assert outcome(" OR ".join(f"count = {number}" for number in range(200, 0, -1)), SEEN) == (True, None)


@pytest.mark.parametrize(
    "pattern", ["%a" * 500 + "b", "%a_" * 300 + "b", "a%" * 500 + "c%d", "_%" * 500 + "b", "%" * 1000 + "b"]
)
def test_like_does_not_backtrack(pattern: str) -> None:
    expression, long = parse(f"text LIKE '{pattern}'"), {"text": "a" * 8_000}
    began = time.thread_time()
    assert evaluate(expression, long) == (False, None)
    assert time.thread_time() - began < 1.0


def test_a_value_that_is_too_long_for_a_pattern_with_underscores_is_an_error() -> None:
    value, error = evaluate(parse(f"text LIKE '{'%a_' * 300}b'"), {"text": "a" * 200_000})
    assert value is False
    assert error is not None
    assert (error.kind, error.message) == ("generic", "a value of 200,000 characters is too long for this pattern")


def test_texts_that_functions_make_are_bounded() -> None:
    many = f"LENGTH(CONCAT({', '.join(['text'] * 100)}))"
    assert outcome(many, {"text": "a" * 9_000}) == (900_000, None)
    assert outcome(many, {"text": "a" * 11_000}) == (0, "functionEvaluation")


WORDS = """AND OR XOR NOT LIKE IN EXISTS TRUE false ( ) , = != <> < >= + - * / % 'a' "true" '%' 0 7 -1 2147483647 count yes
subject absent ABS( LEFT( LENGTH( CONCAT( INT( BOOL( NOSUCH( (1 (TRUE) subject="""
TOKENS = st.sampled_from(WORDS.split())
LIKE = st.text("ab%_\\", max_size=8)


@given(st.lists(TOKENS, max_size=12).map(" ".join) | st.text(max_size=40))
def test_any_text_is_evaluated_or_refused_at_a_position(text: str) -> None:
    try:
        expression = parse(text)
    except CesqlError as error:
        refused = error
    else:
        value, failed = evaluate(expression, SEEN)
        assert type(value) in ({expression.type} if expression.type else {str, int, bool})
        assert not isinstance(value, int) or -(2**31) <= value < 2**31
        again, error_again = evaluate(expression, SEEN.structured())
        assert (again, str(error_again)) == (value, str(failed))
        return
    assert refused.kind == "parse"
    assert 1 <= refused.position <= len(text) + 1


def fits(text: str, pattern: str) -> bool:
    """A simple matcher of LIKE."""
    if not pattern:
        return not text
    if pattern[0] == "%":
        return fits(text, pattern[1:]) or (bool(text) and fits(text[1:], pattern))
    if pattern[:2] in {"\\%", "\\_"}:
        return text[:1] == pattern[1] and fits(text[1:], pattern[2:])
    return bool(text) and pattern[0] in {text[0], "_"} and fits(text[1:], pattern[1:])


@given(st.text("ab%_\\", max_size=8), LIKE)
def test_like_matches_as_the_simple_matcher_does(text: str, pattern: str) -> None:
    if pattern.endswith("\\"):  # would escape the quote
        pattern += "a"
    values: dict[str, Any] = {"text": text}
    assert evaluate(parse(f"text LIKE '{pattern}'"), values) == (fits(text, pattern), None)
