"""JSON documents of one item or many: an object, an array of objects, or JSON Lines.

Problems are collected over the whole document, so that one error names every bad item.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError

from bellwire.errors import BellwireError
from bellwire.formats import strict_json
from bellwire.formats.json_values import MAX_INTEGER_DIGITS
from starter.operations.problems import InputInvalid, Problem, problems_of

#: Problems that are listed one by one; further ones are counted.
MAX_LISTED = 50

_Model = TypeVar("_Model")


@dataclass(frozen=True)
class Item:
    """One item of a document, and its place: "line 3", "item 2", or the document's name if it has one item."""

    place: str
    value: object


def items_of(text: str, name: str, *, json_lines: bool = False) -> list[Item]:
    """The items of a document, in order; `json_lines` says that it is JSON Lines although that does not show.

    Raises InputInvalid, for JSON Lines with a problem for each bad line.
    """
    if not text.strip():
        raise InputInvalid("is empty", field=name, remedy="give a JSON object, an array of objects, or JSON Lines")
    lines = [Item(f"line {number}", line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    is_array = text.lstrip().startswith("[")
    if json_lines or (len(lines) > 1 and not is_array and any(_is_object(str(line.value)) for line in lines)):
        return collect(lines, _parse_line)
    try:
        value = parse_json(text)
    except ValueError as error:
        raise InputInvalid(f"is not valid JSON: {error}", field=name) from error
    if not isinstance(value, list):
        return [Item(name, value)]
    if not value:
        raise InputInvalid("is an empty array", field=name, remedy="give at least one object")
    return [Item(f"item {number}", item) for number, item in enumerate(value, 1)]


def collect(items: Iterable[Item], read: Callable[[Item], _Model]) -> list[_Model]:
    """`read` of each item. Raises one InputInvalid with the problems of every item for which `read` raised a ValueError."""
    found, problems = [], []
    for item in items:
        try:
            found.append(read(item))
        except (ValidationError, BellwireError, ValueError) as error:
            problems += problems_of(error, place=item.place)
    if problems:
        more = len(problems) - MAX_LISTED
        raise InputInvalid.of(problems[:MAX_LISTED] + ([Problem(message=f"and {more:,} more")] if more > 0 else []))
    return found


def object_of(item: Item) -> dict[str, Any]:
    """The item's value, which must be a JSON object. Raises InputInvalid."""
    if not isinstance(item.value, dict):
        raise InputInvalid("is not a JSON object")
    return item.value


def parse_json(text: str) -> Any:
    """A JSON value. Raises ValueError, also for NaN and Infinity, which JSON does not have, and for a name given twice."""
    try:
        return strict_json.loads(text, parse_int=_integer, object_pairs_hook=_object)
    except RecursionError as error:
        raise ValueError("nests too deep") from error


def _integer(digits: str) -> int:
    if len(digits.lstrip("-")) > MAX_INTEGER_DIGITS:
        raise ValueError(f"holds an integer of more than {MAX_INTEGER_DIGITS:,} digits; use a string")
    return int(digits)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these pairs. Python's own parser keeps the last of two values with one name and drops the first."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice[:80]}: is given twice in one object; remove one of them")
    return found


def _is_object(line: str) -> bool:
    """Whether a line is a whole JSON object that starts in the first column, as in JSON Lines."""
    try:
        return line.startswith("{") and isinstance(parse_json(line), dict)
    except ValueError:
        return False


def _parse_line(item: Item) -> Item:
    try:
        return Item(item.place, parse_json(str(item.value)))
    except ValueError as error:
        raise InputInvalid(f"is not valid JSON: {error}") from error
