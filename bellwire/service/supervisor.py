"""Supervision: several processes of one program, started and ended together.

Fresh interpreters and no forks, which Temporal's runtime does not survive.
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
    """Run a process of each command until `stop` is set, and then end them by SIGTERM; the exit status.

    If one ends by itself, the others are told to stop and the status is 1, so that what runs this starts all again. Whoever
    is still there `grace` seconds after SIGTERM is killed. A process that calls `end_with_parent` ends with this one,
    however this one ends.
    """
    # A session of its own for each: Ctrl-C in a terminal reaches this process alone, which passes it on.
    processes = [
        await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE, start_new_session=True)
        for command in commands
    ]
    log.info("processes.started", pids=[process.pid for process in processes])
    ends = [asyncio.create_task(process.wait()) for process in processes]
    asked = asyncio.create_task(stop.wait())
    await asyncio.wait([asked, *ends], return_when=asyncio.FIRST_COMPLETED)
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
    # One that had not begun to work ends of the signal itself.
    statuses = set(await asyncio.gather(*ends)) - {-signal.SIGTERM}
    log.info("processes.stopped")
    asked.cancel()
    return 0 if stop.is_set() and statuses <= {0} else 1


def end_with_parent() -> None:
    """Send this process SIGTERM once the one that supervises it has gone: its standard input, which nobody writes, ends then."""

    def wait() -> None:
        os.read(sys.stdin.fileno(), 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="parent", daemon=True).start()


def _status(returncode: int) -> str:
    return signal.Signals(-returncode).name if returncode < 0 else str(returncode)
