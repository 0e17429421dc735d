"""Mails that people or mail servers pass in: one or more from stdin, a pipe, a file or an mbox file, or those of a Maildir."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from starter.operations.problems import InputInvalid

#: The line that starts each mail of an mbox file, and what some mail servers pipe: a sender, a day and a time. Other lines that
#: start with "From " belong to a mail.
_FROM_LINE = re.compile(rb"From .*\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)\b.*\d{1,2}:\d{2}")
#: What may come before the first mail of an mbox file: a byte order mark and blank lines.
_BLANK = b"\xef\xbb\xbf \t\r\n"
#: Bytes of a line that are read at a time.
_MAX_LINE = 1 << 16


def read_mails(name: str, *, max_bytes: int) -> Iterator[tuple[str, bytes]]:
    """Each mail of a file, a folder or, for "-", stdin: its place, and its first `max_bytes` bytes. Raises InputInvalid.

    Every source is read once and to its end: a pipe cannot be read again, and a mail server treats a broken one as a failure.
    """
    if name == "-":
        yield from _in_stream(sys.stdin.buffer, "stdin", max_bytes)
        return
    path = Path(name)
    try:
        if path.is_dir():
            for file in _in_maildir(path):
                with file.open("rb") as stream:
                    yield str(file), stream.read(max_bytes)
        else:
            with path.open("rb") as stream:
                yield from _in_stream(stream, name, max_bytes)
    except OSError as error:
        raise InputInvalid(f"cannot be read: {error.strerror or error}", field=name) from error


def is_stream(name: str) -> bool:
    """Whether what is read cannot be read again: stdin, a pipe, a socket."""
    return name == "-" or not (Path(name).is_file() or Path(name).is_dir())


def _in_maildir(folder: Path) -> list[Path]:
    if not (folder / "new").is_dir() or not (folder / "cur").is_dir():
        raise InputInvalid(
            "is not a Maildir: it has no folders new and cur", field=str(folder), remedy="name files instead"
        )
    return sorted(file for part in ("cur", "new") for file in (folder / part).iterdir() if file.is_file())


def _in_stream(stream: IO[bytes], name: str, max_bytes: int) -> Iterator[tuple[str, bytes]]:
    """The mail of a stream, or the mails if it starts like an mbox file."""
    mail: list[bytes] = []
    number, size, is_mbox, at_line_start, begun = 1, 0, False, True, False
    for piece in iter(lambda: stream.readline(_MAX_LINE), b""):
        text = piece if begun else piece.lstrip(_BLANK)
        if at_line_start and (is_mbox or not begun) and _FROM_LINE.match(text):
            if is_mbox:
                yield f"{name} mail {number}", b"".join(mail)
                number = number + 1
            is_mbox, mail, size = True, [], 0
        elif size < max_bytes:
            mail.append(piece[: max_bytes - size])
            size += len(piece)
        begun = begun or bool(text)
        at_line_start = piece.endswith(b"\n")
    yield f"{name} mail {number}" if is_mbox and number > 1 else name, b"".join(mail)
