"""Mails that people or mail servers pass in: one from stdin, one per file, or all of an mbox file or a Maildir."""

import mailbox
import sys
from collections.abc import Iterator
from pathlib import Path

from starter.operations.problems import InputInvalid

#: Starts each mail of an mbox, and what some mail servers pipe.
_FROM_LINE = b"From "
#: Bytes read at a time of the part that is dropped.
_DISCARD_BYTES = 1 << 16


def read_mails(name: str, *, max_bytes: int) -> Iterator[tuple[str, bytes]]:
    """Each mail of a file, a folder or, for "-", stdin: its place, and its first `max_bytes` bytes. Raises InputInvalid."""
    if name == "-":
        raw = sys.stdin.buffer.read(max_bytes)
        while sys.stdin.buffer.read(_DISCARD_BYTES):
            pass  # a mail server treats a broken pipe as a failure, so read to the end
        yield "stdin", _without_from_line(raw)
        return
    path = Path(name)
    try:
        if path.is_dir():
            for file in _in_maildir(path):
                yield str(file), _head(file, max_bytes)
        elif _head(path, len(_FROM_LINE)) == _FROM_LINE:
            yield from _in_mbox(path, max_bytes)
        else:
            yield name, _head(path, max_bytes)
    except OSError as error:
        raise InputInvalid(f"cannot be read: {error.strerror or error}", field=name) from error


def _in_maildir(folder: Path) -> list[Path]:
    if not (folder / "new").is_dir() or not (folder / "cur").is_dir():
        raise InputInvalid(
            "is not a Maildir: it has no folders new and cur", field=str(folder), remedy="name files instead"
        )
    return sorted(file for part in ("cur", "new") for file in (folder / part).iterdir() if file.is_file())


def _in_mbox(path: Path, max_bytes: int) -> Iterator[tuple[str, bytes]]:
    box = mailbox.mbox(path, create=False)
    try:
        for number, key in enumerate(box.iterkeys(), 1):
            with box.get_file(key) as file:
                yield f"{path} mail {number}", file.read(max_bytes)
    finally:
        box.close()


def _head(path: Path, max_bytes: int) -> bytes:
    with path.open("rb") as file:
        return file.read(max_bytes)


def _without_from_line(raw: bytes) -> bytes:
    return raw.partition(b"\n")[2] if raw.startswith(_FROM_LINE) else raw
