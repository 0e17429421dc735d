"""TenantRenderer: renders templates of tenants, and finishes large pages of HTML, in child processes.

Templates of operators are trusted, those of tenants and the data of events are not. A child process has no secrets, no files,
no network, limited memory and a deadline. One that exceeds a limit is killed and replaced.
"""

import asyncio
import hashlib
import json
import signal
import sys
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import structlog

from activities.rendering.fair_slots import FairSlots
from activities.rendering.html.final import FinalHtml
from activities.rendering.sandbox.faults import Fault
from activities.rendering.sandbox.framing import HEADER, frame, length
from bellwire.errors import TemplateInvalid

log = structlog.get_logger("bellwire")

#: Seconds in which a child has to start, and to compile the templates of a subscription.
START_SECONDS, COMPILE_SECONDS = 30.0, 5.0
#: The part of the timeout whose CPU time makes a tenant slow. Slow tenants share half of the children.
LONG = 0.25
#: Seconds to wait for a turn. Then the delivery is deferred, so that a tenant whose templates are slow does not keep the
#: worker's activities.
PATIENCE_SECONDS = 10.0
#: Seconds for which templates that exceeded a limit are refused, so that they do not delay other deliveries.
BLOCK_SECONDS = 60.0
#: Sets of templates that are remembered as blocked.
MAX_BLOCKED = 1_000

_CHECKOUT = Path(__file__).parents[2]


class _LimitExceeded(TemplateInvalid):
    """The child exceeded a limit and was killed."""


class TenantRenderer:
    """Renders in up to `processes` children with `memory` bytes each, which start when they are needed.

    `timeout`: seconds to render the templates of one delivery. `patience`: seconds to wait for a child.

    Close it, or the children live until this process ends.
    """

    def __init__(
        self,
        *,
        processes: int = 2,
        timeout: float = 1.0,
        memory: int = 256 * 1024 * 1024,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self._timeout, self._memory, self._patience = timeout, memory, patience
        self._slots = FairSlots(processes)
        self._idle: list[_Child] = []
        self._children: set[_Child] = set()
        self._replacing: set[asyncio.Task[None]] = set()
        #: By digest: when the block ends, and the error message.
        self._blocked: OrderedDict[str, tuple[float, str]] = OrderedDict()

    @property
    def pids(self) -> list[int]:
        """The process ids of the children."""
        return sorted(child.pid for child in self._children)

    async def render(
        self, sources: Mapping[str, str], names: Sequence[str], context: Mapping[str, Any], *, tenant: str = ""
    ) -> dict[str, str]:
        """Render the templates `names` of `sources`. The HTML of a mail is finished; its text is derived if it has none.

        Raises TemplateInvalid with name, line and problem, without data.
        """
        response = await self._request(sources, {"names": list(names), "context": context}, tenant)
        texts: dict[str, str] = response["texts"]
        return texts

    async def finish(self, html: str, *, tenant: str, with_text: bool) -> FinalHtml:
        """Finish a page that an operator's template rendered. Raises TemplateInvalid."""
        request = frame({"html": html, "with_text": with_text})
        async with self._child(tenant) as child:
            response = await child.request(request, seconds=self._timeout)
        if "fault" in response:
            raise TemplateInvalid(Fault(*response["fault"]).message("email.html"))
        return FinalHtml(response["html"], response["text"])

    async def check(self, sources: Mapping[str, str]) -> None:
        """Compile the templates. Raises TemplateInvalid with name, line and problem."""
        await self._request(sources, None, tenant="")

    async def close(self) -> None:
        """Kill the children."""
        for task in self._replacing:
            task.cancel()
        await asyncio.gather(*self._replacing, return_exceptions=True)
        await asyncio.gather(*(child.end() for child in list(self._children)))
        self._children.clear()
        self._idle.clear()

    async def _request(
        self, sources: Mapping[str, str], rendering: Mapping[str, Any] | None, tenant: str
    ) -> dict[str, Any]:
        """Render, or only compile if `rendering` is None."""
        digest = _digest(sources)
        self._refuse_blocked(digest)
        async with self._child(tenant) as child:
            self._refuse_blocked(digest)  # it may have been blocked while this waited
            try:
                response = await self._request_of(child, digest, sources, rendering)
            except _LimitExceeded as error:
                self._block(digest, str(error))
                raise
        if "fault" in response:
            raise TemplateInvalid(Fault(*response["fault"]).message(", ".join(sources)))
        return response

    @asynccontextmanager
    async def _child(self, tenant: str) -> AsyncIterator["_Child"]:
        """An idle child, or a new one. A killed one keeps its slot until it is replaced: others need not wait for that."""
        try:
            async with asyncio.timeout(self._patience):
                await self._slots.acquire(tenant)
        except TimeoutError:
            raise TemplateInvalid(f"template waited too long: no turn within {self._patience:g} s") from None
        child = None
        try:
            child = self._idle.pop() if self._idle else await self._start()
            yield child
        finally:
            if child is None:
                self._slots.release(tenant)
            elif child.alive:
                if child.cpu_seconds > self._timeout * LONG:
                    self._slots.mark_slow(tenant)
                self._idle.append(child)
                self._slots.release(tenant)
            else:
                self._slots.mark_slow(tenant)
                self._children.discard(child)
                replacing = asyncio.create_task(self._replace(tenant))
                self._replacing.add(replacing)
                replacing.add_done_callback(self._replacing.discard)

    async def _replace(self, tenant: str) -> None:
        try:
            self._idle.append(await self._start())
        except TemplateInvalid:
            pass  # the next request tries again
        finally:
            self._slots.release(tenant)

    async def _start(self) -> "_Child":
        try:
            child = await _Child.start(self._memory, cpu=max(self._timeout, COMPILE_SECONDS) + 1)
        except (OSError, _LimitExceeded) as error:
            log.error("template.process_failed", error=type(error).__name__)  # noqa: TRY400 - no more is known
            raise TemplateInvalid("template process did not start") from error
        self._children.add(child)
        return child

    async def _request_of(
        self, child: "_Child", digest: str, sources: Mapping[str, str], rendering: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        if rendering is None:
            return await child.request(_compile_request(digest, sources), seconds=COMPILE_SECONDS)
        request = frame({"digest": digest, **rendering})
        response = await child.request(request, seconds=self._timeout)
        if "unknown" not in response:
            return response
        compiled = await child.request(_compile_request(digest, sources), seconds=COMPILE_SECONDS)
        return compiled if "fault" in compiled else await child.request(request, seconds=self._timeout)

    def _block(self, digest: str, reason: str) -> None:
        self._blocked[digest] = (time.monotonic() + BLOCK_SECONDS, reason)
        while len(self._blocked) > MAX_BLOCKED:
            self._blocked.popitem(last=False)

    def _refuse_blocked(self, digest: str) -> None:
        until, reason = self._blocked.get(digest, (0.0, ""))
        if time.monotonic() < until:
            raise TemplateInvalid(reason)


class _Child:
    """A child process that handles one request at a time. It is dead after it exceeded a limit or was interrupted."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.alive = True
        #: CPU time of the last request.
        self.cpu_seconds = 0.0

    @classmethod
    async def start(cls, memory: int, *, cpu: float) -> "_Child":
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-E", "-s", "-m", "activities.rendering.sandbox.child", str(memory), str(cpu)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            cwd=_CHECKOUT,
            env={},
            # Ctrl-C in a terminal goes to the worker only, which ends its children itself.
            start_new_session=True,
        )
        child = cls(process)
        await child.request(b"", seconds=START_SECONDS)
        return child

    @property
    def pid(self) -> int:
        return self._process.pid

    async def request(self, request: bytes, *, seconds: float) -> dict[str, Any]:
        """Write a request and read the response. Raises TemplateInvalid after killing a child that took longer or died."""
        assert self._process.stdin
        assert self._process.stdout
        try:
            async with asyncio.timeout(seconds):
                self._process.stdin.write(request)
                await self._process.stdin.drain()
                size = length(await self._process.stdout.readexactly(HEADER))
                response: dict[str, Any] = json.loads(await self._process.stdout.readexactly(size))
        except TimeoutError as error:
            await self.end()
            raise _LimitExceeded(f"template took too long: more than {seconds:g} s") from error
        except (EOFError, OSError, ValueError) as error:
            await self.end()
            if self._process.returncode == -signal.SIGXCPU:
                raise _LimitExceeded("template took too long: its process was killed") from error
            raise _LimitExceeded("template too large: its process was killed") from error
        except BaseException:  # cancelled: the response may still come, and must not reach the next request
            self._kill()
            raise
        self.cpu_seconds = response.pop("cpu_seconds", 0.0)
        return response

    async def end(self) -> None:
        self._kill()
        await self._process.wait()

    def _kill(self) -> None:
        self.alive = False
        with suppress(ProcessLookupError):
            self._process.kill()


def _compile_request(digest: str, sources: Mapping[str, str]) -> bytes:
    return frame({"digest": digest, "sources": dict(sources)})


def _digest(sources: Mapping[str, str]) -> str:
    return hashlib.blake2b(json.dumps(sources, sort_keys=True).encode(), digest_size=16).hexdigest()
