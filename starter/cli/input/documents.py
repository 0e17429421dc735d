"""JSON documents that people hand in: one object, an array of objects, or JSON Lines; from a file or from stdin ("-").

What is wrong is collected over the whole input, so that one run names every bad item.
"""

import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from bellwire.events import MAX_INTEGER_DIGITS
from starter.cli.terminal import InputInvalid

#: Problems that are listed one by one; the rest is counted.
MAX_LISTED = 50

_Read = TypeVar("_Read")


@dataclass(frozen=True)
class Item:
    """One object of an input, and where it stands: "line 3", "item 2", or the input's name if it is the only one."""

    where: str
    value: object


def read_text(name: str) -> str:
    """The text of a file, or of stdin for "-". Raises InputInvalid."""
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise InputInvalid(f"{name}: cannot be read: {error.strerror or error}") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputInvalid(f"{_title(name)}: is not UTF-8 (byte {error.start}); save it as UTF-8") from error


def read_items(name: str) -> list[Item]:
    """The objects of a file or of stdin, in order. Raises InputInvalid; of JSON Lines it names each bad one."""
    text, title = read_text(name), _title(name)
    if not text.strip():
        raise InputInvalid(f"{title}: is empty; give a JSON object, an array of objects, or JSON Lines")
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if name.endswith((".jsonl", ".ndjson")) or (len(lines) > 1 and any(_stands_alone(line) for _, line in lines)):
        return list(collect(((Item(f"line {number}", line)) for number, line in lines), _parse_line))
    try:
        value = parse_json(text)
    except ValueError as error:
        raise InputInvalid(f"{title}: is not JSON: {error}") from error
    if not isinstance(value, list):
        return [Item(title, value)]
    if not value:
        raise InputInvalid(f"{title}: is an empty array; there is nothing to do")
    return [Item(f"item {number}", item) for number, item in enumerate(value, 1)]


def read_value(option: str, text: str) -> object:
    """The JSON value of an option: the text, or with @FILE the file's. Raises InputInvalid, which names the option."""
    try:
        return parse_json(read_text(text[1:]) if text.startswith("@") else text)
    except InputInvalid as error:
        raise InputInvalid(f"{option}: {error}") from error
    except ValueError as error:
        raise InputInvalid(f"{option}: is not JSON: {error}") from error


def parse_json(text: str) -> Any:
    """A JSON value. Raises ValueError, also for NaN and Infinity, which JSON does not have, and for a name that stands twice."""
    try:
        return json.loads(text, parse_constant=_refuse, parse_int=_integer, object_pairs_hook=_object)
    except RecursionError as error:
        raise ValueError("nests too deep") from error


def collect(items: Iterable[Item], read: Callable[[Item], _Read]) -> list[_Read]:
    """`read` of each item. Raises one InputInvalid with a line for every item that raised a ValueError."""
    found, problems = [], []
    for item in items:
        try:
            found.append(read(item))
        except ValueError as error:
            problems.append(f"{item.where}: {error}")
    if problems:
        more = [f"and {len(problems) - MAX_LISTED:,} more"] if len(problems) > MAX_LISTED else []
        raise InputInvalid("\n".join(problems[:MAX_LISTED] + more))
    return found


def object_of(item: Item) -> dict[str, Any]:
    """The item's value, which must be a JSON object. Raises InputInvalid."""
    if not isinstance(item.value, dict):
        raise InputInvalid("is not a JSON object")
    return item.value


def _title(name: str) -> str:
    return "stdin" if name == "-" else name


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON value; use null or a string")


def _integer(digits: str) -> int:
    if len(digits.lstrip("-")) > MAX_INTEGER_DIGITS:
        raise ValueError(f"holds an integer of more than {MAX_INTEGER_DIGITS:,} digits; use a string")
    return int(digits)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these pairs. Python would keep the last of two values of one name and lose the first unseen."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice[:80]}: stands twice in one object; leave one of them out")
    return found


def _stands_alone(line: str) -> bool:
    """Whether a line is a whole JSON object that starts in the first column, as in JSON Lines."""
    try:
        return line.startswith("{") and isinstance(parse_json(line), dict)
    except ValueError:
        return False


def _parse_line(item: Item) -> Item:
    try:
        return Item(item.where, parse_json(str(item.value)))
    except ValueError as error:
        raise InputInvalid(f"is not JSON: {error}") from error
