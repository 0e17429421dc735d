"""Budget: the limit on the work of one rendering. It counts steps and not seconds, so that the result is reproducible.

A step is one execution of a template block, one call, or 64 characters that are read or produced. Values are charged before
they are produced, so the budget bounds memory as well as time.
"""

import re
from string import Formatter
from typing import Any

from jinja2.exceptions import TemplateRuntimeError

from activities.rendering.sandbox.written_text import WrittenText

#: Steps of one rendering: enough for thousands of rows, and at most about a second.
MAX_STEPS = 100_000
#: Characters of one value: of a string, or of a list or object written as text.
MAX_CHARACTERS = 512 * 1024
#: Largest width, indentation, precision or count that a template may pass to a filter.
MAX_WIDTH = 1_000
#: Bits of an integer: those of the largest one in an event, and some more for arithmetic.
MAX_BITS = 4_096

_STEP_BITS = 6  # 64 characters are a step
_PLAIN = re.compile(r"%%|%\(\w*\)")
#: In a format without its plain names: a width or precision of four digits or from an argument, or an unusual name.
_WIDE = re.compile(r"%(?:\(|[#0\- +]*(?:\*|\d{4}|\d*\.(?:\*|\d{4})))")
_WIDE_FIELD = re.compile(r"\d{4}|[{}]")


class LimitExceeded(TemplateRuntimeError):
    """The template exceeds a limit. The message names it."""


def too_large() -> LimitExceeded:
    return LimitExceeded(f"too large: a value of more than {MAX_CHARACTERS:,} characters")


class Budget:
    """The steps that are left for one rendering. Call `reset` before the next one."""

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

    def charge_size(self, characters: int) -> None:
        """Charge a value of this size before it is produced. Raises LimitExceeded."""
        if characters > MAX_CHARACTERS:
            raise too_large()
        self.spend(1 + (characters >> _STEP_BITS))

    def charge(self, value: Any) -> Any:
        """Charge a value that is read, or that was produced at once, and return it. Raises LimitExceeded."""
        kind = type(value)
        if kind is int:
            if value.bit_length() > MAX_BITS:
                raise LimitExceeded("too large: a number with more digits than an event can hold")
        elif isinstance(value, str):
            self.charge_size(len(value))
        elif isinstance(value, list | tuple | dict | range | WrittenText):
            self.charge_size(size(value))
        return value


def size(value: Any) -> int:
    """The approximate number of characters of the value as text. Counting stops above MAX_CHARACTERS."""
    total, pending = 0, [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            total += len(item) + 2
        elif isinstance(item, list | tuple):
            total += 2 + 2 * len(item)
            if total <= MAX_CHARACTERS:
                pending.extend(item)
        elif isinstance(item, dict):
            total += 2 + 2 * len(item)
            if total <= MAX_CHARACTERS:
                pending.extend(item)
                pending.extend(item.values())
        elif isinstance(item, range):
            total += 4 * len(item)
        elif isinstance(item, WrittenText):
            total += len(item.text)
        elif type(item) is int:
            total += 1 + (item.bit_length() >> 1)
        else:
            total += 4
        if total > MAX_CHARACTERS:
            return total
    return total


def size_repeated(left: Any, right: Any) -> int:
    """The size of `left * right` if one of them is a sequence, else 0."""
    for value, times in ((left, right), (right, left)):
        if isinstance(value, str | list | tuple) and isinstance(times, int):
            return size(value) * max(times, 0)
    return 0


def size_of_power(base: Any, exponent: Any) -> int:
    """The bits of `base ** exponent` if both are integers, else 0."""
    return base.bit_length() * abs(exponent) if isinstance(base, int) and isinstance(exponent, int) else 0


def size_formatted(text: str, values: Any) -> int:
    """The largest possible size of `text % values`. Raises LimitExceeded for a width above MAX_WIDTH or from an argument."""
    if _WIDE.search(_PLAIN.sub(lambda found: "" if found[0] == "%%" else "%", text)):
        raise LimitExceeded(f"too large: a format width of more than {MAX_WIDTH:,}, or a computed one")
    return len(text) + text.count("%") * (size(values) + MAX_WIDTH)


def size_str_format(text: str, values: Any) -> int:
    """The largest possible size of `text.format(values)`. Raises LimitExceeded as `size_formatted` does."""
    if any(spec and _WIDE_FIELD.search(spec) for _, _, spec, _ in Formatter().parse(text)):
        raise LimitExceeded(f"too large: a format width of more than {MAX_WIDTH:,}, or a computed one")
    return len(text) + text.count("{") * (size(values) + MAX_WIDTH)


def size_replaced(text: str, old: str, new: str) -> int:
    """The largest possible size of `text.replace(old, new)`."""
    return len(text) + (text.count(old) if old else len(text) + 1) * len(new)


def bounded_width(value: Any) -> int:
    """A width that a template passes, 0 if it is not an integer. Raises LimitExceeded above MAX_WIDTH."""
    if isinstance(value, int) and abs(value) > MAX_WIDTH:
        raise LimitExceeded(f"too large: a width or count of more than {MAX_WIDTH:,}")
    return value if isinstance(value, int) else 0
