"""Gives each Python thread its name in /proc/PID/task/TID/comm, which Python does by itself from 3.14 on (Linux).

The interpreter imports this at its start, since the rig puts this folder on the worker's PYTHONPATH. Without it all threads
that Python starts are called as their program.
"""

import re
import threading
from pathlib import Path

_run = threading.Thread.run
#: A thread without a name of its own is called "Thread-1 (function)".
_UNNAMED = re.compile(r"Thread-\d+ \((.+)\)")


def _named_run(self: threading.Thread) -> None:
    found = _UNNAMED.fullmatch(self.name)
    # The kernel keeps 15 bytes.
    Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text(found[1] if found else self.name)
    _run(self)


threading.Thread.run = _named_run  # type: ignore[method-assign]
