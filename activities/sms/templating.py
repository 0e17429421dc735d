"""Placeholders in the requests of configured providers, and JSON pointers into their responses."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

#: {to}, {text}, {sender}, {idempotency_key} (32 characters), {delivery} (its id).
PLACEHOLDERS = frozenset({"to", "text", "sender", "idempotency_key", "delivery"})

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


def placeholders_in(text: str) -> set[str]:
    """The names of all placeholders in a text."""
    return set(_PLACEHOLDER.findall(text))


def substitute(template: Any, values: Mapping[str, str], *, url_encode: bool = False) -> Any:
    """The template with placeholders replaced in every text of it. `url_encode`: the template is a URL."""
    match template:
        case str():
            return _PLACEHOLDER.sub(
                lambda found: quote(values[found[1]], safe="") if url_encode else values[found[1]], template
            )
        case dict():
            return {key: substitute(value, values) for key, value in template.items()}
        case list() | tuple():
            return [substitute(value, values) for value in template]
        case _:
            return template


def json_pointer(document: Any, pointer: str) -> Any:
    """The value at a JSON pointer (RFC 6901); None if there is none."""
    for step in pointer.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(document, dict):
            document = document.get(name)
        elif isinstance(document, list) and re.fullmatch("[0-9]{1,9}", name) and int(name) < len(document):
            document = document[int(name)]
        else:
            return None
    return document
