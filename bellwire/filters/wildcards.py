"""Texts with gaps: `a*b` of data patterns and `a%b` of CESQL. The time is linear in the length of a value; nothing backtracks."""

from collections.abc import Callable, Sequence


def with_gaps(parts: Sequence[str]) -> Callable[[str], bool]:
    """Return what checks that a text is these parts in order, with any characters, or none, between them."""
    first, *middle, last = parts if len(parts) > 1 else (*parts, "")
    if len(parts) == 1:
        return first.__eq__
    inner = [part for part in middle if part]
    shortest = len(first) + len(last)
    if not inner:
        return lambda text: len(text) >= shortest and text.startswith(first) and text.endswith(last)

    def fits(text: str) -> bool:
        if not (text.startswith(first) and text.endswith(last)):
            return False
        # The first place where a part occurs leaves the most room for those after it.
        position, end = len(first), len(text) - len(last)
        for part in inner:
            position = text.find(part, position, end)
            if position < 0:
                return False
            position += len(part)
        return position <= end

    return fits
