"""Pieces of Markdown."""

import re
from collections.abc import Iterable, Sequence

#: Stands at the top of each generated page; readers do not see it.
MARK = "<!-- Made from the code by `make reference`. Changes here are lost. -->\n"


def document(title: str, *parts: str) -> str:
    """A page of paragraphs, tables and sections."""
    return f"{MARK}\n# {title}\n\n" + "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; bars in its cells are escaped."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def code(text: object) -> str:
    """Text in the font of code."""
    return f"`{text}`"


def codes(texts: Iterable[object]) -> str:
    """Texts in the font of code, with commas; "none" for none."""
    return ", ".join(map(code, texts)) or "none"


def sentence(text: str) -> str:
    """Text that begins with a capital letter and ends with a full stop."""
    text = " ".join(text.split())
    return text if not text else text[0].upper() + text[1:] + ("" if text[-1] in ".!?" else ".")


#: Plain text that reads better as code (options, variables, patterns with a star), or that Markdown would take for marks.
_TOKEN = re.compile(
    r"(?P<code>(?<![\w/-])--[a-z][a-z-]+|(?:BELLWIRE|TEMPORAL)_[A-Z_]*\*?|[a-z]\w*(?:\.\w+)*\.\*|(?<= )\*(?=[ .,]))"
    r"|(?P<mark>[*<\[\]])"
)


def prose(text: str) -> str:
    """A sentence of plain text as Markdown; what stands in backticks stays."""
    parts = re.split(r"(`[^`]*`)", sentence(text))
    return "".join(part if part.startswith("`") else _TOKEN.sub(_marked, part) for part in parts)


def _marked(found: re.Match[str]) -> str:
    return code(found["code"]) if found["code"] else f"\\{found['mark']}"
