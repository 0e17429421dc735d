"""What the worker's process gets for the benchmarks: named threads, and names that resolve as a benchmark needs.

The interpreter imports this module at its start, since the rig has this folder on the worker's PYTHONPATH. Each Python thread
sets its name in /proc/PID/task/TID/comm (Linux), as Python 3.14 and later do themselves; otherwise all threads have the name of
the program. The hosts of answered.example.com are this machine, and the name server of unanswered.example.com never answers.
"""

import re
import socket
import threading
import time
from pathlib import Path
from typing import Any

#: Seconds until the system's resolver gives up, by default: two tries of 5 s.
_RESOLVER_SECONDS = 10.0

_run = threading.Thread.run
#: The default name of a thread: "Thread-1 (function)".
_UNNAMED = re.compile(r"Thread-\d+ \((.+)\)")


def _named_run(self: threading.Thread) -> None:
    found = _UNNAMED.fullmatch(self.name)
    # The kernel keeps 15 bytes.
    Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text(found[1] if found else self.name)
    _run(self)


threading.Thread.run = _named_run  # type: ignore[method-assign]

_getaddrinfo = socket.getaddrinfo


def _resolve(host: Any, *arguments: Any, **options: Any) -> Any:
    zone = host.partition(".")[2] if isinstance(host, str) else ""
    if zone == "unanswered.example.com":
        time.sleep(_RESOLVER_SECONDS)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    return _getaddrinfo("127.0.0.1" if zone == "answered.example.com" else host, *arguments, **options)


socket.getaddrinfo = _resolve
