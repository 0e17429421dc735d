"""Child processes of the embedded stack: start, wait until ready, stop; and the signals that end the stack."""

import asyncio
import os
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from starter.operations.problems import OperationError

#: Seconds between two checks of whether a process is ready.
POLL_SECONDS = 0.05
#: Lines of a process's log that are shown when it fails.
TAIL_LINES = 30


#: Files of the stack, such as its databases, are for their owner only.
PRIVATE_UMASK = 0o077


def _private_file(path: Path) -> BinaryIO:
    path.touch(mode=0o600)
    return path.open("wb")


class ProcessFailed(OperationError):
    """A process of the stack did not start, or ended unexpectedly."""


class Process:
    """A child process whose output goes to a log file.

    It runs in a session of its own, so that Ctrl-C in the terminal reaches only its parent. The parent then stops its
    children in order: a worker must stop before its server does.
    """

    def __init__(self, name: str, child: asyncio.subprocess.Process, log: Path) -> None:
        self.name, self.log = name, log
        self._child = child

    @property
    def pid(self) -> int:
        return self._child.pid

    @classmethod
    async def start(cls, name: str, command: Sequence[str], *, environment: Mapping[str, str], log: Path) -> Self:
        """Start `command` with exactly this environment. Raises ProcessFailed if it cannot be started."""
        with _private_file(log) as output:
            try:
                child = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=asyncio.subprocess.STDOUT,
                    env=dict(environment),
                    start_new_session=True,
                    umask=PRIVATE_UMASK,
                )
            except OSError as error:
                raise ProcessFailed(f"{name}: cannot be started: {error}") from error
        return cls(name, child, log)

    async def until(self, ready: Callable[[], Awaitable[bool]], *, timeout: float) -> None:
        """Wait until `ready` returns True. Raises ProcessFailed with the end of the log if the process ends or takes too long."""
        try:
            async with asyncio.timeout(timeout):
                while not await ready():
                    if self._child.returncode is not None:
                        raise self._failed("ended during its start")
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError as error:
            raise self._failed(f"was not ready within {timeout:g} s") from error

    async def ended(self) -> None:
        """Wait until the process ends without `stop`, and raise ProcessFailed: no process of the stack should."""
        await self._child.wait()
        raise self._failed("ended unexpectedly")

    async def stop(self, *, grace: float) -> None:
        """End the process: SIGTERM, and SIGKILL if it still runs after `grace` seconds."""
        if self._child.returncode is not None:
            return
        self._child.terminate()
        try:
            await asyncio.wait_for(self._child.wait(), grace)
        except TimeoutError:
            self._child.kill()
            await self._child.wait()

    def _failed(self, what: str) -> ProcessFailed:
        lines = self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        status = "" if self._child.returncode is None else f" (exit status {self._child.returncode})"
        return ProcessFailed("\n".join([f"{self.name}: {what}{status}; the end of {self.log}:", *lines]))


@dataclass
class Interrupt:
    """Whether a signal has ended the body of `interruptible`."""

    happened: bool = False


@asynccontextmanager
async def interruptible() -> AsyncIterator[Interrupt]:
    """SIGINT, SIGTERM and SIGHUP cancel the body, once: further signals must not interrupt the clean-up."""
    interrupt, body, loop = Interrupt(), asyncio.current_task(), asyncio.get_running_loop()
    assert body is not None

    def stop() -> None:
        if not interrupt.happened:
            interrupt.happened = True
            body.cancel()

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in signals:
        loop.add_signal_handler(number, stop)
    try:
        yield interrupt
    except asyncio.CancelledError:
        if not interrupt.happened:
            raise
        body.uncancel()
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


#: Ports that this process was given.
_GIVEN: set[int] = set()


def free_ports(number: int) -> int:
    """The first of `number` consecutive loopback ports that are free now.

    They are below the range of ephemeral ports, any of which the system may give to a connection before it is used. A process
    gets each of them once, since a program may not listen yet when the next port is asked for.
    """
    while True:
        first = 10_000 + secrets.randbelow(20_000)
        ports = set(range(first, first + number))
        if ports.isdisjoint(_GIVEN) and not any(map(port_in_use, ports)):
            _GIVEN.update(ports)
            return first


def free_port() -> int:
    """A loopback port that is free now."""
    return free_ports(1)


def port_in_use(port: int) -> bool:
    """Whether a loopback port is in use."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def environment_without(*prefixes: str) -> dict[str, str]:
    """This process's environment without the variables that start with one of these."""
    return {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
