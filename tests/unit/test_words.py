"""The glossary and the words in use: every term is used outside the glossary, and no retired word is used anywhere."""

import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
GLOSSARY = CHECKOUT / "docs" / "glossary.md"
#: Files and folders where a retired word fails the test.
CHECKED = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Makefile",
    "README.md",
    "README.zh-CN.md",
    "activities",
    "bellwire",
    "benchmarks",
    "docker-compose.yml",
    "docs",
    "examples",
    "pyproject.toml",
    "starter",
    "tests",
    "worker.py",
    "workflows",
)
#: Where a term of the glossary may be used.
USED_IN = ("bellwire", "workflows", "activities", "starter", "worker.py", "docs", "README.md")
#: Files of data, which hold what others wrote or what was recorded.
DATA = {".json", ".png", ".svg", ".gz", ".lock"}

#: Words of the former vocabulary that have no other meaning here, as regular expressions of whole words, in any case.
#: A space stands for any white space. A part of an identifier counts as a word: `most_parts`, `MOST_PARTS`.
ANY_CASE = (
    "ail(?:s|ed|ing)?",
    "anew",
    "attempt_trial",
    "before all calendars",
    "bit by bit",
    "by a hair",
    "came_to_something",
    "days in no time",
    "discreet",
    "doomed",
    "far(?:es|ed|ing)",
    "flight\\.unrecorded",
    "flown",
    "garbage answer",
    "half an answer",
    "heed(?:s|ed|ing)?",
    "left in peace",
    "mend(?:s|ed|ing)?",
    "nobody wants it",
    "on_trial",
    "orphans?",
    "ours",
    "owed",
    "paced",
    "pacing",
    "passed_over",
    "receivers that ail",
    "relay\\.passed_over",
    "say_json",
    "send_at_once",
    "sms\\.obstructed",
    "somebody listens on port",
    "stands twice",
    "strangers?",
    "subscription\\.tried",
    "swept",
    "take_on",
    "that is no token",
    "the file says it all",
    "try_out",
    "unswept",
    "untold",
    "what came of it",
    "whoever",
    "wish(?:es|ed)?",
)
#: Former names of classes and constants, which are ordinary words in another case.
EXACT_CASE = (
    "(?<![A-Z]_)AT_ONCE",
    "Announce",
    "Blanked",
    "Book",
    "Concern",
    "Controlled",
    "Descriptions",
    "FileRefused",
    "FirstRounds?",
    "FirstRoundResult",
    "Flights",
    "Gathered",
    "HeldBack",
    "Holder",
    "LEAVING",
    "LIMITED_AT_ONCE",
    "LONGEST_[A-Z_]+",
    "Located?",
    "LocateInput",
    "MOST_[A-Z_]+",
    "News",
    "NotNow",
    "Patience",
    "Ruling",
    "Standing",
    "TRYING",
    "Trials?",
    "Verb",
    "Verdict",
    "WELL",
    "_locate",
    "(?<!\\w)_told",
)
RETIRED = re.compile(
    rf"(?<![A-Za-z])(?:(?i:{'|'.join(ANY_CASE)})|{'|'.join(EXACT_CASE)})(?![A-Za-z])".replace(" ", r"\s+"),
)


@cache
def tracked() -> tuple[Path, ...]:
    """The files under version control; without a checkout, those of the tree that tools have not made."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=CHECKOUT, capture_output=True, check=False)
    if listed.returncode == 0:
        names = [CHECKOUT / name for name in listed.stdout.decode().split("\0") if name]
        return tuple(path for path in names if path.is_file())
    made = {".venv", "build", "dist", "__pycache__"}
    return tuple(path for path in sorted(CHECKOUT.rglob("*")) if path.is_file() and not made & set(path.parts))


def texts(roots: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Name and text of the tracked files below the roots, without files of data and this one."""
    for path in tracked():
        name = path.relative_to(CHECKOUT).as_posix()
        if path.suffix in DATA or path == Path(__file__):
            continue
        if any(name == root or name.startswith(f"{root}/") for root in roots):
            yield name, path.read_text(errors="replace")


def terms() -> list[str]:
    return re.findall(r"^\*\*(.+)\*\*$", GLOSSARY.read_text(), flags=re.MULTILINE)


@cache
def used() -> str:
    """Everything where terms may be used, in lower case, words separated by single spaces."""
    found = " ".join(text for name, text in texts(USED_IN) if name != "docs/glossary.md")
    return " ".join(re.sub(r"[-_]", " ", found).lower().split())


def test_the_glossary_lists_each_term_once_and_in_order() -> None:
    found = [term.lower() for term in terms()]
    assert len(found) >= 40
    assert found == sorted(set(found))


@pytest.mark.parametrize("term", terms())
def test_a_term_of_the_glossary_is_used(term: str) -> None:
    words = " ".join(re.sub(r"[-_]", " ", term).lower().split())
    plural = f"{words[:-1]}ies" if words.endswith("y") else f"{words}s"
    assert re.search(rf"\b(?:{re.escape(words)}|{re.escape(plural)})\b", used())


@pytest.mark.parametrize("name", [name for name, _ in texts(CHECKED)])
def test_no_retired_word_is_used(name: str) -> None:
    text = dict(texts((name,)))[name]
    found = [
        f"line {text.count(chr(10), 0, match.start()) + 1}: {match.group()}"
        for match in RETIRED.finditer(re.sub(r"https?://\S+", lambda url: " " * len(url.group()), text))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("text", "is_retired"),
    [
        ("a wish", True),
        ("wishful", False),
        ("MOST_PARTS = 3", True),
        ("at_most_three_parts", False),
        ("self._told = True", True),
        ("tenant_is_told", False),
        ("the mail fails", False),
        ("an ailing receiver", True),
        ("class Trial:", True),
        ("a trial account", False),
        ("_unswept = set()", True),
    ],
)
def test_words_are_matched_whole(text: str, is_retired: bool) -> None:
    assert bool(RETIRED.search(text)) is is_retired
