"""Mails that people or mail servers hand in: one from stdin, one a file, or all of an mbox file or a Maildir."""

import mailbox
import sys
from collections.abc import Iterator
from pathlib import Path

from starter.cli.terminal import InputInvalid

#: Begins each mail of an mbox, and what some mail servers pipe.
_FROM_LINE = b"From "
#: Bytes read at a time of what is not kept.
_DRAINED = 1 << 16


def mails_of(name: str, *, most: int) -> Iterator[tuple[str, bytes]]:
    """Each mail of a file, a folder or, for "-", stdin: where it lies, and its first `most` bytes. Raises InputInvalid."""
    if name == "-":
        raw = sys.stdin.buffer.read(most)
        while sys.stdin.buffer.read(_DRAINED):
            pass  # or whoever pipes it would take a broken pipe for a failure
        yield "stdin", _without_from_line(raw)
        return
    path = Path(name)
    try:
        if path.is_dir():
            for file in _in_maildir(path):
                yield str(file), _head(file, most)
        elif _head(path, len(_FROM_LINE)) == _FROM_LINE:
            yield from _in_mbox(path, most)
        else:
            yield name, _head(path, most)
    except OSError as error:
        raise InputInvalid(f"{name}: cannot be read: {error.strerror or error}") from error


def _in_maildir(folder: Path) -> list[Path]:
    if not (folder / "new").is_dir() or not (folder / "cur").is_dir():
        raise InputInvalid(f"{folder}: is a folder and no Maildir, which has new and cur; name files instead")
    return sorted(file for part in ("cur", "new") for file in (folder / part).iterdir() if file.is_file())


def _in_mbox(path: Path, most: int) -> Iterator[tuple[str, bytes]]:
    box = mailbox.mbox(path, create=False)
    try:
        for number, key in enumerate(box.iterkeys(), 1):
            with box.get_file(key) as file:
                yield f"{path} mail {number}", file.read(most)
    finally:
        box.close()


def _head(path: Path, most: int) -> bytes:
    with path.open("rb") as file:
        return file.read(most)


def _without_from_line(raw: bytes) -> bytes:
    return raw.partition(b"\n")[2] if raw.startswith(_FROM_LINE) else raw
