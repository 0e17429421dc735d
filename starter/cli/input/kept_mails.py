"""Keeps mails that could not be used, as files, until an operator has looked at them."""

import hashlib
import os
from pathlib import Path

from bellwire.errors import BellwireError

#: Mails that a folder holds at most, and bytes that are kept of each. Beyond that nothing is kept, and the mail server has to
#: keep its mails: a folder that anyone can fill by mail must not fill the disk.
MAX_MAILS, MAX_BYTES = 10_000, 1024 * 1024


class NotKept(BellwireError):
    """The mail could not be written to the folder for mails that could not be used."""


def keep_mail(folder: Path, raw: bytes) -> Path:
    """Write the mail into the folder, under a name by its content, so that it is kept once. Raises NotKept."""
    file = folder / f"{hashlib.sha256(raw).hexdigest()[:32]}.eml"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if file.exists():
            return file
        if sum(1 for _ in os.scandir(folder)) >= MAX_MAILS:
            raise NotKept(f"{folder} holds {MAX_MAILS} mails that could not be used: look at them, and delete them")
        part = folder / f".{file.name}.{os.getpid()}"
        part.touch(mode=0o600)
        part.write_bytes(raw[:MAX_BYTES])
        part.replace(file)
    except OSError as error:
        raise NotKept(
            f"a mail that could not be used cannot be kept in {folder}: {error.strerror or error}; "
            "set BELLWIRE_BOUNCES_UNREAD to a folder that can be written to"
        ) from error
    return file
