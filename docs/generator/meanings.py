"""What rows of reference pages mean, where the code has no sentence for it: meanings.toml."""

import re
import tomllib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

FILE = Path(__file__).with_name("meanings.toml")

REMEDY = (
    'Add a line for what is missing, such as "<name>" = "<what it means>", remove the others, and run make reference.'
)
_PLACEHOLDER = re.compile(r"<[^<>]*>")


class MeaningsDiffer(Exception):
    """meanings.toml and the code disagree; add what is missing there, and remove what no longer exists."""


@cache
def read() -> dict[str, dict[str, object]]:
    """The file's tables, by their names."""
    return tomllib.loads(FILE.read_text())


def of(table: str, names: Iterable[str]) -> dict[str, str]:
    """The meaning of each name. Raises MeaningsDiffer if the table has more or fewer."""
    found = {name: str(text) for name, text in read()[table].items()}
    compare(table, found, names)
    return found


def grouped(table: str, names: Iterable[str]) -> dict[str, dict[str, str]]:
    """The same for a table of tables: the meanings of each name, by the titles of the groups."""
    groups = {
        title: {name: str(text) for name, text in group.items()}
        for title, group in read()[table].items()
        if isinstance(group, dict)
    }
    compare(table, [name for group in groups.values() for name in group], names)
    return groups


def compare(table: str, described: Iterable[str], names: Iterable[str]) -> None:
    """Raises MeaningsDiffer, which lists what is missing and what is superfluous.

    Placeholders may differ: the code has the names of its variables, the page has names for readers.
    """
    here, there = ({_PLACEHOLDER.sub("<>", name): name for name in each} for each in (described, names))
    problems = [f"missing: {there[name]!r}" for name in sorted(there.keys() - here.keys())]
    problems += [f"no longer in the code: {here[name]!r}" for name in sorted(here.keys() - there.keys())]
    if problems:
        raise MeaningsDiffer(f"{FILE} [{table}]: {'; '.join(problems)}. {REMEDY}")


def table(name: str) -> dict[str, str]:
    """A table that stands for itself."""
    return {key: str(text) for key, text in read()[name].items()}
