"""Event type patterns: `order.paid` for one type, `order.*` for all types below order at any depth, `*` for all types."""

from typing import Annotated

from pydantic import Field

from bellwire.models import skip_when_trusted


def _check(pattern: str) -> str:
    head = pattern.removesuffix("*")
    if pattern != "*" and ("*" in head or (head != pattern and not head.endswith(".")) or head == "."):
        raise ValueError("is not a valid pattern; write a type (order.paid), a prefix (order.*), or * for all types")
    if any(character.isspace() or not character.isprintable() for character in pattern):
        raise ValueError(
            "contains white space or a control character; write dotted words, such as order.paid or order.*"
        )
    return pattern


TypePattern = Annotated[str, Field(min_length=1, max_length=256), skip_when_trusted(_check)]


def patterns_matching(event_type: str) -> list[str]:
    """Return all patterns that match the type: `order.paid` is matched by `order.paid`, `order.*` and `*`.

    The registry looks these up in an index, so a match costs one lookup per word of the type.
    """
    words = event_type.split(".")
    below = [".".join(words[:depth]) + ".*" for depth in range(len(words) - 1, 0, -1)]
    return list(dict.fromkeys([event_type, *below, "*"]))


def type_matches(pattern: str, event_type: str) -> bool:
    """Whether the pattern matches the type."""
    return pattern in patterns_matching(event_type)
