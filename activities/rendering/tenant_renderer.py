"""TenantTemplates: renders what tenants wrote in processes of its own, where a hostile template burns nothing but itself.

Templates of operators are trusted to mean well; those of tenants are not, and whatever Jinja2 and Python do with one is
done in a child that has no secrets, no files, no network, little memory and a deadline. One that oversteps is killed and
replaced.
"""

import asyncio
import hashlib
import json
import signal
import sys
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from activities.rendering.sandbox.framing import HEADER, frame, length
from activities.rendering.sandbox.output import Fault
from bellwire.errors import TemplateInvalid

log = structlog.get_logger("bellwire")

#: Seconds that a child has to start, and to compile the parts of a subscription.
START_SECONDS, COMPILE_SECONDS = 30.0, 5.0
#: Seconds for which parts that overstepped are not tried again, so that one tenant's many deliveries do not hold up others.
BARRED_SECONDS = 60.0
#: Parts that are remembered as barred.
MAX_BARRED = 1_000

_CHECKOUT = Path(__file__).parents[2]


class _Overstepped(TemplateInvalid):
    """The child was killed."""


class TenantTemplates:
    """Up to `processes` children, started when they are first needed, each with `memory` bytes.

    `timeout`: seconds for rendering the parts of one delivery. Close it, or children live until this process ends.
    """

    def __init__(self, *, processes: int = 2, timeout: float = 1.0, memory: int = 256 * 1024 * 1024) -> None:
        self._timeout, self._memory = timeout, memory
        self._slots = asyncio.Semaphore(processes)
        self._idle: list[_Child] = []
        self._children: set[_Child] = set()
        self._barred: OrderedDict[str, tuple[float, str]] = OrderedDict()

    @property
    def pids(self) -> list[int]:
        """The process ids of the children there are."""
        return sorted(child.pid for child in self._children)

    async def render(
        self, sources: Mapping[str, str], parts: Sequence[str], context: Mapping[str, Any]
    ) -> dict[str, str]:
        """The texts of these parts. Raises TemplateInvalid, which names the part, line and reason; no data."""
        answer = await self._answer(sources, {"parts": list(parts), "context": context})
        texts: dict[str, str] = answer["texts"]
        return texts

    async def check(self, sources: Mapping[str, str]) -> None:
        """Compile the parts. Raises TemplateInvalid, which names the part, line and reason."""
        await self._answer(sources, None)

    async def _answer(self, sources: Mapping[str, str], question: Mapping[str, Any] | None) -> dict[str, Any]:
        digest = _digest(sources)
        self._refuse_barred(digest)
        async with self._slots:
            self._refuse_barred(digest)  # while this waited
            child = self._idle.pop() if self._idle else await self._start()
            try:
                answer = await self._ask(child, digest, sources, question)
            except _Overstepped as error:
                self._bar(digest, str(error))
                raise
            finally:
                if child.alive:
                    self._idle.append(child)
                else:
                    self._children.discard(child)
        if "fault" in answer:
            raise TemplateInvalid(Fault(*answer["fault"]).told(", ".join(sources)))
        return answer

    async def close(self) -> None:
        """End the children."""
        await asyncio.gather(*(child.end() for child in list(self._children)))
        self._children.clear()
        self._idle.clear()

    async def _start(self) -> "_Child":
        try:
            child = await _Child.start(self._memory, cpu=max(self._timeout, COMPILE_SECONDS) + 1)
        except (OSError, _Overstepped) as error:
            log.error("template.process_failed", error=type(error).__name__)  # noqa: TRY400 - no more is known
            raise TemplateInvalid("template process did not start") from error
        self._children.add(child)
        return child

    async def _ask(
        self, child: "_Child", digest: str, sources: Mapping[str, str], question: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        if question is None:
            return await child.ask(_to_compile(digest, sources), seconds=COMPILE_SECONDS)
        rendering = frame({"digest": digest, **question})
        answer = await child.ask(rendering, seconds=self._timeout)
        if "unknown" not in answer:
            return answer
        compiled = await child.ask(_to_compile(digest, sources), seconds=COMPILE_SECONDS)
        return compiled if "fault" in compiled else await child.ask(rendering, seconds=self._timeout)

    def _bar(self, digest: str, reason: str) -> None:
        self._barred[digest] = (time.monotonic() + BARRED_SECONDS, reason)
        while len(self._barred) > MAX_BARRED:
            self._barred.popitem(last=False)

    def _refuse_barred(self, digest: str) -> None:
        until, reason = self._barred.get(digest, (0.0, ""))
        if time.monotonic() < until:
            raise TemplateInvalid(reason)


class _Child:
    """One process, which answers one question at a time. Dead once it has overstepped or was interrupted."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.alive = True

    @classmethod
    async def start(cls, memory: int, *, cpu: float) -> "_Child":
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-E", "-s", "-m", "activities.rendering.sandbox.child", str(memory), str(cpu)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            cwd=_CHECKOUT,
            env={},
            # Ctrl-C in a terminal is for the worker, which ends its children itself.
            start_new_session=True,
        )
        child = cls(process)
        await child.ask(b"", seconds=START_SECONDS)
        return child

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ask(self, question: bytes, *, seconds: float) -> dict[str, Any]:
        """The answer. Raises TemplateInvalid after killing a child that takes longer, or that died."""
        assert self._process.stdin
        assert self._process.stdout
        try:
            async with asyncio.timeout(seconds):
                self._process.stdin.write(question)
                await self._process.stdin.drain()
                size = length(await self._process.stdout.readexactly(HEADER))
                answer: dict[str, Any] = json.loads(await self._process.stdout.readexactly(size))
        except TimeoutError as error:
            await self.end()
            raise _Overstepped(f"template took too long: more than {seconds:g} s") from error
        except (EOFError, OSError, ValueError) as error:
            await self.end()
            if self._process.returncode == -signal.SIGXCPU:
                raise _Overstepped("template took too long: its process was ended") from error
            raise _Overstepped("template too large: its process was ended") from error
        except BaseException:  # cancelled: an answer to nobody may come
            self._kill()
            raise
        return answer

    async def end(self) -> None:
        self._kill()
        await self._process.wait()

    def _kill(self) -> None:
        self.alive = False
        with suppress(ProcessLookupError):
            self._process.kill()


def _to_compile(digest: str, sources: Mapping[str, str]) -> bytes:
    return frame({"digest": digest, "sources": dict(sources)})


def _digest(sources: Mapping[str, str]) -> str:
    return hashlib.blake2b(json.dumps(sources, sort_keys=True).encode(), digest_size=16).hexdigest()
