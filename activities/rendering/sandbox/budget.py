"""Budget: how much one rendering may do. It is counted in steps and not in seconds, so that a template always ends alike.

A step is one pass through a block of a template, or one call, or the reading or making of 64 characters. As whatever a
template makes is paid for before it is made, the budget bounds memory as well as time.
"""

import re
from collections.abc import Iterable, Iterator
from string import Formatter
from typing import Any

from jinja2.exceptions import TemplateRuntimeError

#: Steps of one rendering: thousands of rows, and a second at the very most.
MAX_STEPS = 100_000
#: Characters of one value, be it a string or, as text, a list or an object.
MAX_CHARACTERS = 512 * 1024
#: Largest width, indentation, precision or count that a filter is asked for.
MAX_WIDTH = 1_000
#: Bits of a whole number: those of the longest one in an event, and room to add.
MAX_BITS = 4_096

_STEP_BITS = 6  # 64 characters are a step
_PLAIN = re.compile(r"%%|%\(\w*\)")
#: In a text without its plain names: a width or precision of four digits, one that is an argument, or an odd name.
_WIDE = re.compile(r"%(?:\(|[#0\- +]*(?:\*|\d{4}|\d*\.(?:\*|\d{4})))")
_WIDE_FIELD = re.compile(r"\d{4}|[{}]")


class LimitExceeded(TemplateRuntimeError):
    """The template does more than one may. The message says which limit."""


def too_large() -> LimitExceeded:
    return LimitExceeded(f"too large: a value of more than {MAX_CHARACTERS:,} characters")


class Budget:
    """The steps that are left. One rendering after the other: `reset` before each."""

    def __init__(self) -> None:
        self._left = MAX_STEPS

    def reset(self) -> None:
        self._left = MAX_STEPS

    @property
    def spent(self) -> int:
        return MAX_STEPS - self._left

    def spend(self, steps: int = 1) -> None:
        self._left -= steps
        if self._left < 0:
            raise LimitExceeded(f"took too long: more than {MAX_STEPS:,} steps")

    def make(self, characters: int) -> None:
        """Pay for a value before it is made."""
        if characters > MAX_CHARACTERS:
            raise too_large()
        self.spend(1 + (characters >> _STEP_BITS))

    def weigh(self, value: Any) -> Any:
        """`value`, paid for as something that is read or was made as a whole."""
        kind = type(value)
        if kind is int:
            if value.bit_length() > MAX_BITS:
                raise LimitExceeded("too large: a number of more digits than an event can hold")
        elif isinstance(value, str):
            self.make(len(value))
        elif isinstance(value, list | tuple | dict | range):
            self.make(size(value))
        return value

    def counted(self, values: Iterable[Any]) -> Iterator[Any]:
        """The values, a step for each."""
        for value in values:
            self.spend()
            yield value


def size(value: Any) -> int:
    """About how many characters the value has as text. Stops counting once it is too large."""
    total, rest = 0, [value]
    while rest:
        item = rest.pop()
        if isinstance(item, str):
            total += len(item) + 2
        elif isinstance(item, list | tuple):
            total += 2 + 2 * len(item)
            if total <= MAX_CHARACTERS:
                rest.extend(item)
        elif isinstance(item, dict):
            total += 2 + 2 * len(item)
            if total <= MAX_CHARACTERS:
                rest.extend(item)
                rest.extend(item.values())
        elif isinstance(item, range):
            total += 4 * len(item)
        elif type(item) is int:
            total += 1 + (item.bit_length() >> 1)
        else:
            total += 4
        if total > MAX_CHARACTERS:
            return total
    return total


def size_repeated(left: Any, right: Any) -> int:
    """The size of `left * right`, if one of them is a sequence."""
    for value, times in ((left, right), (right, left)):
        if isinstance(value, str | list | tuple) and isinstance(times, int):
            return size(value) * max(times, 0)
    return 0


def size_of_power(base: Any, exponent: Any) -> int:
    """Bits of `base ** exponent`, if both are whole numbers."""
    return base.bit_length() * abs(exponent) if isinstance(base, int) and isinstance(exponent, int) else 0


def size_formatted(text: str, values: Any) -> int:
    """The most characters that `text % values` can have. Raises LimitExceeded for a width beyond MAX_WIDTH."""
    if _WIDE.search(_PLAIN.sub(lambda found: "" if found[0] == "%%" else "%", text)):
        raise LimitExceeded(f"too large: a format of more than {MAX_WIDTH:,} characters, or one that is computed")
    return len(text) + text.count("%") * (size(values) + MAX_WIDTH)


def size_filled(text: str, values: Any) -> int:
    """The same for `text.format(values)`."""
    if any(spec and _WIDE_FIELD.search(spec) for _, _, spec, _ in Formatter().parse(text)):
        raise LimitExceeded(f"too large: a format of more than {MAX_WIDTH:,} characters, or one that is computed")
    return len(text) + text.count("{") * (size(values) + MAX_WIDTH)


def size_replaced(text: str, old: str, new: str) -> int:
    """The most characters that `text.replace(old, new)` can have."""
    return len(text) + (text.count(old) if old else len(text) + 1) * len(new)


def bounded_width(value: Any) -> int:
    """A width that a template asks for. Raises LimitExceeded beyond MAX_WIDTH."""
    if isinstance(value, int) and abs(value) > MAX_WIDTH:
        raise LimitExceeded(f"too large: a width or count of more than {MAX_WIDTH:,}")
    return value if isinstance(value, int) else 0
