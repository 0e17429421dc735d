"""Values of each type of field: at the limit, one character longer, and where a cut would go through a character."""

import json

import pytest

from activities.wechat.fields import fields_of
from bellwire.errors import TemplateInvalid
from bellwire.targets.chat.wechat_fields import FIELD_TYPES

#: What each type of field may hold, as often as is needed.
FILLINGS = {"character_string": "A1-", "letter": "Ab", "phrase": "已付款", "name": "Ann.", "symbol": "#*"}
FAMILY, FLAG, WAVE = "👨\u200d👩\u200d👧", "🇨🇳", "👋🏽"


def value_of(name: str, value: object) -> str:
    return fields_of(json.dumps({name: value}))[name]["value"]


def filled(kind: str, length: int) -> str:
    filling = FILLINGS.get(kind, "七" if kind in {"thing", "const", "keyword", "car_number"} else "7")
    return (filling * length)[:length]


@pytest.mark.parametrize("kind", FIELD_TYPES)
def test_a_value_of_the_limit_is_sent_as_it_is(kind: str) -> None:
    longest = filled(kind, FIELD_TYPES[kind].limit)
    assert value_of(f"{kind}1", longest) == longest


@pytest.mark.parametrize("kind", [kind for kind, each in FIELD_TYPES.items() if each.ending is not None])
def test_a_longer_value_is_cut_to_the_limit(kind: str) -> None:
    limit, ending = FIELD_TYPES[kind].limit, FIELD_TYPES[kind].ending or ""
    longest = filled(kind, limit)
    for more in (1, 200):
        assert value_of(f"{kind}1", filled(kind, limit + more)) == longest[: limit - len(ending)] + ending


@pytest.mark.parametrize("kind", [kind for kind, each in FIELD_TYPES.items() if each.ending is None])
def test_a_longer_number_is_not_sent(kind: str) -> None:
    with pytest.raises(TemplateInvalid, match=f"{kind}1 has more than the {FIELD_TYPES[kind].limit} characters"):
        value_of(f"{kind}1", filled(kind, FIELD_TYPES[kind].limit + 1))


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("name1", "张" * 10, "张" * 10),
        ("name1", "张" * 11, "张" * 9 + "…"),
        ("name1", "Ann 张" + "x" * 7, "Ann 张xxxx…"),
        ("character_string1", "x" * 33, "x" * 29 + "..."),
        ("phrase1", "已付款待发货", "已付款待发"),
        ("phrase1", "", "无"),
        ("thing1", " \n", "-"),
        ("thing1", None, "-"),
        ("thing1", "x" * 18 + " yz", "x" * 18 + "…"),
    ],
)
def test_an_ellipsis_stands_where_wechat_takes_one(name: str, value: object, expected: str) -> None:
    assert value_of(name, value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("😀" * 20, "😀" * 20),
        ("😀" * 21, "😀" * 19 + "…"),
        ("x" * 17 + FAMILY, "x" * 17 + "…"),
        ("x" * 14 + FAMILY + "yz", "x" * 14 + FAMILY + "…"),
        ("x" * 18 + FLAG + "y", "x" * 18 + "…"),
        (FLAG * 11, FLAG * 9 + "…"),
        ("x" * 18 + WAVE + "y", "x" * 18 + "…"),
        ("x" * 18 + "e\u0301" + "y", "x" * 18 + "…"),
        ("x" * 18 + "❤\ufe0f" + "y", "x" * 18 + "…"),
        ("e" + "\u0301" * 40, "e" + "\u0301" * 18 + "…"),
        ("\u0301" * 40, "\u0301" * 19 + "…"),
    ],
    ids=range(11),
)
def test_no_character_is_cut_in_two(value: str, expected: str) -> None:
    assert value_of("thing1", value) == expected


def test_half_of_a_surrogate_pair_can_be_sent() -> None:
    assert fields_of(r'{"thing1": "\ud83d\ude00 \ud83d"}')["thing1"]["value"] == "😀 \ufffd"
