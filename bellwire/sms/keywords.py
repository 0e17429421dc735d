"""The words by which recipients of SMS opt out and in again."""

import re
from enum import StrEnum

from bellwire.formats.mailboxes import folded

#: https://help.twilio.com/articles/223134027
STOP_WORDS = frozenset({"stop", "stopall", "unsubscribe", "cancel", "end", "quit", "revoke", "optout"})
START_WORDS = frozenset({"start", "yes", "unstop"})
#: What SMS in mainland China offer besides ("回TD退订", "拒收请回复R"), alone or with 退订, and what people write instead.
MAINLAND_STOP_WORDS = frozenset(
    {"td", "t", "n", "r", "0000", "退订", "退訂", "取消", "取消订阅", "取消訂閱", "拒收", "拒绝", "拒絕", "停止"}
)
MAINLAND_START_WORDS = frozenset({"订阅", "訂閱", "恢复订阅", "恢復訂閱", "重新订阅", "重新訂閱", "开始", "開始"})
#: Maximum characters of a text that is one of them.
MAX_TEXT = 100

#: What may stand around a word: spaces, marks, and characters that are not seen.
_NO_WORD = re.compile(r"^[\W_]+|[\W_]+$")
#: What people copy from the SMS before the word, "回复TD", and after it, "TD退订".
_BEFORE, _AFTER = re.compile(r"^(?:回复?|回覆)[\W_]*"), re.compile(r"[\W_]*退[订訂]$")


class Keyword(StrEnum):
    """What a word means."""

    STOP = "STOP"
    START = "START"


def keyword_of(text: str, *, mainland: bool = False) -> Keyword | None:
    """The keyword that the whole text is; None if it is another text. `mainland`: the words of mainland China count too."""
    if len(text) > MAX_TEXT:
        return None
    word = folded(_NO_WORD.sub("", text))
    if not mainland:
        return Keyword.STOP if word in STOP_WORDS else Keyword.START if word in START_WORDS else None
    bare = _BEFORE.sub("", word)
    if {word, bare, _AFTER.sub("", bare)} & (STOP_WORDS | MAINLAND_STOP_WORDS):
        return Keyword.STOP
    return Keyword.START if {word, bare} & (START_WORDS | MAINLAND_START_WORDS) else None
