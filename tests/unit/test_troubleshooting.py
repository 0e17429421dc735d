"""The messages that docs/troubleshooting.md explains are messages of the code, word for word."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
PAGE = CHECKOUT / "docs" / "troubleshooting.md"
PRODUCT = ("bellwire", "workflows", "activities", "starter", "worker.py")
#: Spans of headings that name something else than a message: class names, states, paths, metrics and statuses.
OTHERS = re.compile(r"[A-Z][a-z]+(?:[A-Z][a-z]+)+|--[a-z]+|/ready|publish|[a-z_]+_total|(?:HTTP|SMTP) \d.*")
#: Stands for what varies.
VARIES = "…"


def messages() -> list[str]:
    headings = re.findall(r"^### (.+)$", PAGE.read_text(), flags=re.MULTILINE)
    spans = [span for heading in headings for span in re.findall(r"`([^`]+)`", heading)]
    return [span for span in spans if not OTHERS.fullmatch(span)]


@cache
def texts() -> list[str]:
    """Every text of the product code on one line, what f-strings insert as `…`."""
    found = []
    for root in PRODUCT:
        path = CHECKOUT / root
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.JoinedStr):
                    parts = [part.value if isinstance(part, ast.Constant) else VARIES for part in node.values]
                    found.append("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return [" ".join(text.split()) for text in found]


def test_symptoms_are_explained_for_each_part() -> None:
    assert len(re.findall(r"^### ", PAGE.read_text(), flags=re.MULTILINE)) >= 25
    assert len(messages()) >= 25


@pytest.mark.parametrize("message", messages())
def test_an_explained_message_is_one_of_the_code(message: str) -> None:
    # What varies may also be a text that the code inserts from elsewhere.
    pieces = [piece.strip() for piece in message.split(VARIES) if piece.strip()]
    pattern = re.compile(".*".join(map(re.escape, pieces)))
    assert any(pattern.search(text) for text in texts()), f"no text of the code is like {message!r}"


def test_log_events_that_pages_name_are_logged() -> None:
    logged = set(texts())
    parts = (
        "attempt|delivery|egress|event|inline|operational_event|operational_events|process|relay|sms|template|worker"
    )
    named = {
        (page.name, span)
        for page in [*PAGE.parent.glob("*.md"), *(PAGE.parent / "how-to").glob("*.md")]
        for span in re.findall(rf"`((?:{parts})\.[a-z_]+)`", page.read_text())
    }
    assert len(named) >= 8
    assert {(page, span) for page, span in named if span not in logged} == set()
