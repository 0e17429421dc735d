"""The messages of WeChat's callbacks, in XML or JSON, as plain mappings."""

import json
import re
from collections.abc import Mapping
from typing import Any
from xml.etree.ElementTree import Element, ParseError, XMLParser

#: Levels of elements, and elements of a message. WeChat's have 4 and about 20.
MAX_DEPTH, MAX_ELEMENTS = 8, 500
#: Members of a list that are read; a dialog of WeChat asks for up to 5 templates.
MAX_ITEMS = 50

_DECLARES = re.compile(rb"<!\s*(DOCTYPE|ENTITY)", re.IGNORECASE)


class MessageInvalid(Exception):
    """The body is not a message of WeChat."""


def parse(body: bytes) -> dict[str, Any]:
    """The message. An element with elements of the same name is a list of them. Raises MessageInvalid."""
    return _parse_json(body) if body.lstrip()[:1] == b"{" else _parse_xml(body)


def items(message: Mapping[str, Any], event: str) -> list[Mapping[str, Any]]:
    """The `List` of an event, which is an object if it has one member and an array if it has several."""
    of_event = message.get(event)
    found = of_event.get("List") if isinstance(of_event, Mapping) else message.get("List")
    each = found if isinstance(found, list) else [found]
    return [one for one in each[:MAX_ITEMS] if isinstance(one, Mapping)]


def text_of(message: Mapping[str, Any], *names: str) -> str:
    """The first of these fields that has a text or a number; empty if it has characters that no field of WeChat has."""
    for name in names:
        value = message.get(name)
        if isinstance(value, str | int) and not isinstance(value, bool):
            text = str(value).strip()
            return text if text.isprintable() else ""
    return ""


def _parse_json(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise MessageInvalid("invalid JSON") from error
    if not isinstance(document, dict):
        raise MessageInvalid("not an object")
    return document


def _parse_xml(body: bytes) -> dict[str, Any]:
    # UTF-8 only, so that a declaration cannot hide in another encoding. Entities can only be declared there.
    if _DECLARES.search(body):
        raise MessageInvalid("a document type")
    try:
        body.decode()
        parser = XMLParser(encoding="utf-8")  # noqa: S314 - a document type is refused
        parser.feed(body)
        root = parser.close()
    except (ParseError, ValueError) as error:
        raise MessageInvalid("invalid XML") from error
    if sum(1 for _ in root.iter()) > MAX_ELEMENTS:
        raise MessageInvalid("too many elements")
    value = _value(root, MAX_DEPTH)
    if not isinstance(value, dict):
        raise MessageInvalid("no elements")
    return value


def _value(element: Element, depth: int) -> Any:
    if depth == 0:
        raise MessageInvalid("too deep")
    if not len(element):
        return element.text or ""
    found: dict[str, Any] = {}
    for child in element:
        value = _value(child, depth - 1)
        if child.tag not in found:
            found[child.tag] = value
        elif isinstance(found[child.tag], list):
            found[child.tag].append(value)
        else:
            found[child.tag] = [found[child.tag], value]
    return found
