"""File: a file that is attached to a mail, with a safe name and a valid media type."""

import re
from dataclasses import dataclass

from activities.rendering.text import valid_unicode, without_invisible
from bellwire.formats.media_types import UNKNOWN, essence

#: Longest file name in characters. Encoded, it keeps its header line below the 998 characters of RFC 5322 §2.1.1.
MAX_FILE_NAME = 100

#: Types that structure a mail; an attachment must not have one.
_STRUCTURE = ("multipart/", "message/")
_FORBIDDEN_IN_NAMES = re.compile(r"[\\/:*?\"<>|]+")


@dataclass(frozen=True, kw_only=True)
class File:
    """An attached file. `type` is a media type without parameters."""

    name: str
    type: str
    content: bytes


def file_name(text: str) -> str:
    """A file name that is valid on every system: no folder, no control character, no dot at either end."""
    last = without_invisible(valid_unicode(text)).replace("\\", "/").rstrip("/").rpartition("/")[2]
    name = _FORBIDDEN_IN_NAMES.sub("_", last).strip(" .")
    if len(name) > MAX_FILE_NAME:
        stem, dot, extension = name.rpartition(".")
        name = (
            stem[: MAX_FILE_NAME - 1 - len(extension)] + dot + extension
            if dot and len(extension) <= 10
            else name[:MAX_FILE_NAME]
        )
    return name.strip(" .") or "file"


def media_type(text: str | None) -> str:
    """The media type without its parameters; application/octet-stream if it is invalid or structures a mail."""
    found = essence(text)
    return found if found and not found.startswith(_STRUCTURE) else UNKNOWN
