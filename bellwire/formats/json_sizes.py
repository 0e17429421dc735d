"""Sizes of JSON in bytes, as it is sent: Temporal's limits count the encoded value, quotes and escapes included."""

import json


def json_bytes(value: object, *, ascii_only: bool = False) -> int:
    """Bytes of the value as compact JSON.

    Payloads are UTF-8. `ascii_only` is the form of search attributes, where other characters are escaped: six bytes for
    each Cyrillic letter, twelve for an emoji.
    """
    text = json.dumps(value, ensure_ascii=ascii_only, separators=(",", ":"))
    return len(text) if ascii_only else len(text.encode(errors="replace"))


def cut_to_json(text: str, max_bytes: int) -> str:
    """The longest beginning of the text that has at most `max_bytes` as a JSON string in UTF-8."""
    if json_bytes(text) <= max_bytes:
        return text
    size = json_bytes("")
    for position, character in enumerate(text):
        size += json_bytes(character) - json_bytes("")
        if size > max_bytes:
            return text[:position]
    return text
