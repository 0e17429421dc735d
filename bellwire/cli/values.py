"""Values of options and arguments: JSON, files and times."""

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bellwire.cli.gateway import InputInvalid
from bellwire.formats import strict_json
from bellwire.formats.durations import is_duration, parse_duration
from bellwire.formats.timestamps import parse_timestamp


def read_text(name: str) -> str:
    """The text of a file, or of stdin for "-". Raises InputInvalid."""
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputInvalid(f"{name}: cannot be read: {error}") from error


def read_json(option: str, text: str) -> Any:
    """The JSON of an option: the text itself, or with @FILE the file's. Raises InputInvalid."""
    try:
        return strict_json.loads(read_text(text[1:]) if text.startswith("@") else text)
    except (ValueError, RecursionError) as error:
        raise (
            error if isinstance(error, InputInvalid) else InputInvalid(f"{option}: is not valid JSON: {error}")
        ) from error


def read_time(option: str, text: str) -> datetime:
    """A time, or how long ago it was: 2026-11-29T08:00:00Z or 2h. Raises InputInvalid."""
    try:
        if is_duration(text):
            return datetime.now(UTC) - timedelta(seconds=parse_duration(text))
        return parse_timestamp(text)
    except ValueError as error:
        raise InputInvalid(f"{option}: {error}; write 2h for two hours ago, or 2026-11-29T08:00:00Z") from error
