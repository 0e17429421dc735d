"""Event type patterns: `order.paid` itself, `order.*` for all types below order at any depth, `*` for every type."""

from typing import Annotated

from pydantic import Field

from bellwire.models import skip_when_trusted


def _check(pattern: str) -> str:
    head = pattern.removesuffix("*")
    if pattern != "*" and ("*" in head or (head != pattern and not head.endswith(".")) or head == "."):
        raise ValueError(
            "is not a pattern; write a type (order.paid), a type and all below it (order.*), or * for every type"
        )
    if any(character.isspace() or not character.isprintable() for character in pattern):
        raise ValueError(
            "holds white space or a control character; patterns are dotted words, such as order.paid or order.*"
        )
    return pattern


TypePattern = Annotated[str, Field(min_length=1, max_length=256), skip_when_trusted(_check)]


def patterns_matching(event_type: str) -> list[str]:
    """Every pattern that would match the type: `order.paid` is matched by `order.paid`, `order.*` and `*`.

    The registry looks these up in an index, so a match costs as many look-ups as the type has words.
    """
    words = event_type.split(".")
    below = [".".join(words[:depth]) + ".*" for depth in range(len(words) - 1, 0, -1)]
    return list(dict.fromkeys([event_type, *below, "*"]))


def type_matches(pattern: str, event_type: str) -> bool:
    """Whether the pattern wants events of this type."""
    return pattern in patterns_matching(event_type)
