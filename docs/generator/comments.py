"""The `#:` comments of a module, which say what fields, constants and members of enumerations mean."""

import inspect
import tokenize
from enum import StrEnum
from itertools import pairwise
from pathlib import Path


def above(module: Path) -> dict[str, str]:
    """The comment that stands above each assignment of a module, by the name that is assigned."""
    found: dict[str, str] = {}
    comment: list[str] = []
    with module.open("rb") as file:
        tokens = [token for token in tokenize.tokenize(file.readline) if token.type != tokenize.NL]
    for token, following in pairwise(tokens):
        if token.type == tokenize.COMMENT and token.string.startswith("#:"):
            comment.append(token.string.removeprefix("#:").strip())
        elif token.type == tokenize.NAME and following.string in {":", "="} and comment:
            found[token.string] = " ".join(comment)
            comment = []
        elif token.type == tokenize.NEWLINE:
            comment = []
    return found


def members(kind: type[StrEnum]) -> dict[str, str]:
    """The comment above each member of an enumeration, by the member's value; empty where there is none."""
    lines, first = inspect.getsourcelines(kind)
    comment: list[str] = []
    found: dict[str, str] = {}
    assert first
    for line in map(str.strip, lines):
        if line.startswith("#:"):
            comment.append(line.removeprefix("#:").strip())
        elif (name := line.partition(" = ")[0]) in kind.__members__:
            found[str(kind[name])] = " ".join(comment)
            comment = []
    return found
