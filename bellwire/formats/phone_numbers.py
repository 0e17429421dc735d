"""Phone numbers: the one form in which a number is looked up, suppressed, erased and sent, which is E.164 in ASCII digits.

Targets must be written in it. What people type and providers call back with is read in other spellings too.
"""

import re
import unicodedata

#: E.164: + and at most 15 digits.
_E164 = re.compile(r"\+[1-9][0-9]{6,14}")
#: What people write between digits. Dashes and spaces of other kinds are found by their category.
_BETWEEN = frozenset("()./-")
#: A number as providers write it that leave out the +. A shorter one could be a national number.
_WITHOUT_PLUS = re.compile(r"[1-9][0-9]{10,14}")


def is_number(text: str) -> bool:
    """Whether the text is a number in E.164."""
    return _E164.fullmatch(text) is not None


def canonical_number(text: str) -> str:
    """The number in E.164, from any spelling with a country code: `+1 (415) 555-0123`, `0014155550123`, digits of any script.

    Raises ValueError.
    """
    number = _spelled_out(text).removeprefix("tel:")
    if number.startswith("00"):
        number = f"+{number[2:]}"
    if not _E164.fullmatch(number):
        raise ValueError("is not an E.164 number; write + and the country code, digits only, such as +14155550123")
    return number


def number_key(text: str) -> str:
    """What equals for all spellings of one number. Takes any text, such as a short code."""
    try:
        return canonical_number(text)
    except ValueError:
        plain = _spelled_out(text)
        return f"+{plain}" if _WITHOUT_PLUS.fullmatch(plain) else _spelled_out(plain.casefold())


def _spelled_out(text: str) -> str:
    """The text with ASCII digits, and without what stands between digits."""
    for _ in range(3):  # again for what composes once something between it is gone
        text = "".join(map(_plain, unicodedata.normalize("NFKC", text)))
    return text


def _plain(character: str) -> str:
    """The ASCII digit of a digit, nothing of what stands between digits, any other character as it is."""
    if character.isascii():
        return "" if character in _BETWEEN or character.isspace() else character
    if (digit := unicodedata.decimal(character, None)) is not None:
        return str(digit)
    return "" if unicodedata.category(character) in {"Cf", "Pd", "Zs", "Zl", "Zp"} else character
