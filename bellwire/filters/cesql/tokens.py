"""Splits the text of a CESQL expression into tokens (CESQL 1.0 §2)."""

import re
from enum import Enum, auto
from typing import NamedTuple

from bellwire.filters.cesql.errors import CesqlError, ErrorKind

KEYWORDS = frozenset({"AND", "OR", "XOR", "NOT", "LIKE", "IN", "EXISTS", "TRUE", "FALSE"})

_TOKEN = re.compile(
    r"""
      (?P<space>[ \t\r\n]+)
    | (?P<word>[A-Za-z0-9_]+)
    | (?P<string>'(?:[^'\\]|\\.|'')*' | "(?:[^"\\]|\\.|"")*")
    | (?P<symbol>!=|<>|>=|<=|[=<>+\-*/%(),])
    """,
    re.VERBOSE | re.DOTALL,
)
_DIGITS = re.compile(r"[0-9]+")
#: A quote within a string: behind a backslash, or doubled as in SQL. Other backslashes stand for themselves.
_ESCAPED = {quote: re.compile(rf"\\{quote}|{quote}{quote}") for quote in "'\""}


class Kind(Enum):
    #: `text` is in upper case.
    KEYWORD = auto()
    #: The name of an attribute or a function, as written.
    NAME = auto()
    #: Digits, without a sign.
    INTEGER = auto()
    #: `text` has no quotes, and quotes in it are no longer escaped.
    STRING = auto()
    SYMBOL = auto()
    END = auto()


class Token(NamedTuple):
    kind: Kind
    text: str
    #: Where it begins and ends, in characters from 0.
    start: int
    end: int


def tokens(text: str) -> list[Token]:
    """Return the tokens and one of kind END. Raises CesqlError."""
    found, position = [], 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise CesqlError(ErrorKind.PARSE, _unknown(text[position]), position + 1)
        if match.lastgroup != "space":
            found.append(_token(match))
        position = match.end()
    return [*found, Token(Kind.END, "", len(text), len(text))]


def _token(match: re.Match[str]) -> Token:
    written, span = match[0], match.span()
    match match.lastgroup:
        case "string":
            quote = written[0]
            return Token(Kind.STRING, _ESCAPED[quote].sub(quote, written[1:-1]), *span)
        case "symbol":
            return Token(Kind.SYMBOL, written, *span)
    if _DIGITS.fullmatch(written):
        return Token(Kind.INTEGER, written, *span)
    if written.upper() in KEYWORDS:
        return Token(Kind.KEYWORD, written.upper(), *span)
    return Token(Kind.NAME, written, *span)


def _unknown(character: str) -> str:
    if character in "'\"":
        return f"the string is not closed; end it with {character}"
    return f"{character!r} is not part of the language; strings are in quotes, such as 'a-b'"
