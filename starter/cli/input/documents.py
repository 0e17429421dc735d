"""JSON documents from files, from stdin ("-") and from options."""

import sys
from pathlib import Path

from starter.operations.documents import Item, items_of, parse_json
from starter.operations.problems import InputInvalid


def read_text(name: str) -> str:
    """The text of a file, or of stdin for "-". Raises InputInvalid."""
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise InputInvalid(f"cannot be read: {error.strerror or error}", field=name) from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputInvalid(
            f"is not UTF-8 (byte {error.start})", field=_title(name), remedy="save it as UTF-8"
        ) from error


def read_items(name: str) -> list[Item]:
    """The items of a file or of stdin, in order. Raises InputInvalid."""
    return items_of(read_text(name), _title(name), json_lines=name.endswith((".jsonl", ".ndjson")))


def read_value(option: str, text: str) -> object:
    """The JSON value of an option: the text itself, or with @FILE the file's. Raises InputInvalid, which names the option."""
    try:
        return parse_json(read_text(text[1:]) if text.startswith("@") else text)
    except InputInvalid as error:
        raise InputInvalid(str(error), field=option) from error
    except ValueError as error:
        raise InputInvalid(f"is not valid JSON: {error}", field=option) from error


def _title(name: str) -> str:
    return "stdin" if name == "-" else name
