"""LIKE (CESQL 1.0 §3.4.3): % stands for any characters, _ for one, and a backslash before either takes it literally."""

import re
from collections.abc import Callable

from bellwire.filters.cesql.errors import ErrorKind, EvaluationError
from bellwire.filters.wildcards import with_gaps

#: Maximum product of the lengths of a value and of a pattern with _, since each position may be compared with the whole pattern.
MAX_STEPS = 10_000_000

_TOKEN = re.compile(r"\\[%_]|%+|_|[^%_\\]+|\\", re.DOTALL)


def like(pattern: str) -> Callable[[str], bool]:
    """Return what checks a value. Raises EvaluationError if the value is too long for a pattern with _."""
    parts: list[list[str | None]] = [[]]  # None stands for any character
    for written in _TOKEN.findall(pattern):
        if written[0] == "%":
            parts.append([])
        elif written == "_":
            parts[-1].append(None)
        else:
            parts[-1].append(written[1] if written in {r"\%", r"\_"} else written)
    if not any(None in part for part in parts):
        return with_gaps(["".join(filter(None, part)) for part in parts])
    return _with_any(pattern, ["".join("." if text is None else re.escape(text) for text in part) for part in parts])


def _with_any(pattern: str, parts: list[str]) -> Callable[[str], bool]:
    first, *others = parts
    # An atomic group keeps the first place where its part occurs, so that no other one is tried.
    middle = "".join(f"(?>.*?{part})" for part in others[:-1] if part)
    found = re.compile(first + middle + (f".*{others[-1]}" if others else ""), re.DOTALL)
    size = len(pattern)

    def fits(value: str) -> bool:
        if len(value) * size > MAX_STEPS:
            raise EvaluationError(
                ErrorKind.GENERIC, f"a value of {len(value):,} characters is too long for this pattern"
            )
        return found.fullmatch(value) is not None

    return fits
