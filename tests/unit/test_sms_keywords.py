"""The words by which recipients of SMS opt out and in."""

import time

import pytest

from bellwire.sms.keywords import (
    MAINLAND_START_WORDS,
    MAINLAND_STOP_WORDS,
    START_WORDS,
    STOP_WORDS,
    Keyword,
    keyword_of,
)

STOP, START = Keyword.STOP, Keyword.START


def test_each_word_is_known_where_it_is_used() -> None:
    for words, keyword in ((STOP_WORDS, STOP), (START_WORDS, START)):
        assert {keyword_of(word) for word in words} == {keyword_of(word, mainland=True) for word in words} == {keyword}
    for words, keyword in ((MAINLAND_STOP_WORDS, STOP), (MAINLAND_START_WORDS, START)):
        assert {keyword_of(word, mainland=True) for word in words} == {keyword}
        assert {keyword_of(word) for word in words} == {None}


@pytest.mark.parametrize(
    "text", ["Td", " \uff34\uff24。", "【退订】", "回复TD", "回T", "TD退订", "回复 n", "T 退订", "回R\n", "\u200b退订!"]
)
def test_spelling_and_what_people_copy_with_the_word_do_not_matter(text: str) -> None:
    assert keyword_of(text, mainland=True) is STOP


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "不",
        "no",
        "回复",
        "TD 1234",
        "请退订我的酒店",
        "退订了吗",
        "订阅退订",
        "我要开始",
        "T" * 101,
        " " * 100 + "T",
    ],
)
def test_another_text_is_no_keyword(text: str) -> None:
    assert keyword_of(text, mainland=True) is None


def test_a_text_of_any_length_is_read_in_no_time() -> None:
    began = time.perf_counter()
    assert keyword_of("a" + "!" * 1_000_000 + "a") is None
    assert time.perf_counter() - began < 0.1
