"""Supervisor: starts several processes of one program and stops them together.

It starts new interpreters instead of forking, which Temporal's runtime does not support.
"""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Sequence

import structlog

log = structlog.get_logger("bellwire")


async def supervise(commands: Sequence[Sequence[str]], *, stop: asyncio.Event, grace: float) -> int:
    """Run one process per command until `stop` is set, then stop them by SIGTERM; return the exit status.

    If one exits by itself, the others are stopped and the status is 1, so that the service manager restarts all. Processes
    that still run `grace` seconds after SIGTERM are killed. A process that calls `end_with_parent` ends with this one, even
    if this one is killed.
    """
    # Each has its own session, so that Ctrl-C in a terminal reaches only this process, which stops them.
    processes = [
        await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE, start_new_session=True)
        for command in commands
    ]
    log.info("processes.started", pids=[process.pid for process in processes])
    ends = [asyncio.create_task(process.wait()) for process in processes]
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait([stopped, *ends], return_when=asyncio.FIRST_COMPLETED)
    for nth, process in enumerate(processes):
        if process.returncode is None:
            process.terminate()
        elif not stop.is_set():
            log.error("process.ended", process=nth, pid=process.pid, status=_status(process.returncode))
    _, late = await asyncio.wait(ends, timeout=grace)
    for nth, process in enumerate(processes):
        if ends[nth] in late:
            log.error("process.killed", process=nth, pid=process.pid, after_seconds=grace)
            process.kill()
    # A process that had not installed its handler yet ends by the signal itself.
    statuses = set(await asyncio.gather(*ends)) - {-signal.SIGTERM}
    log.info("processes.stopped")
    stopped.cancel()
    return 0 if stop.is_set() and statuses <= {0} else 1


def end_with_parent() -> None:
    """Send this process SIGTERM when its supervisor ends: its standard input, which is never written to, is closed then."""

    def wait() -> None:
        os.read(sys.stdin.fileno(), 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="parent", daemon=True).start()


def _status(returncode: int) -> str:
    return signal.Signals(-returncode).name if returncode < 0 else str(returncode)
