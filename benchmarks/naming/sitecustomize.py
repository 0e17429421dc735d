"""Sets the name of each Python thread in /proc/PID/task/TID/comm (Linux). Python 3.14 and later do so themselves.

The interpreter imports this module at its start, since the rig has this folder on the worker's PYTHONPATH. Without it, all
threads have the name of the program.
"""

import re
import threading
from pathlib import Path

_run = threading.Thread.run
#: The default name of a thread: "Thread-1 (function)".
_UNNAMED = re.compile(r"Thread-\d+ \((.+)\)")


def _named_run(self: threading.Thread) -> None:
    found = _UNNAMED.fullmatch(self.name)
    # The kernel keeps 15 bytes.
    Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text(found[1] if found else self.name)
    _run(self)


threading.Thread.run = _named_run  # type: ignore[method-assign]
