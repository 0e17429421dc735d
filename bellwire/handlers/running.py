"""Runs handlers: registers them, then polls the service's task queue."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta

from temporalio.worker import Worker

from bellwire.client import Client
from bellwire.handlers.calling import Caller
from bellwire.handlers.declared import Handler
from bellwire.handlers.registering import Registering, register
from bellwire.handlers.threads import DaemonThreads
from bellwire.targets.handler import handler_queue

#: Maximum activities of a process at a time. Each has up to 200 calls, of which the handlers' concurrency lets some run.
MAX_ACTIVITIES = 100
#: Maximum threads for functions that are not async.
MAX_THREADS = 200


async def run(
    service: str, declared: Sequence[Handler], client: Client, registration: Registering, *, grace: float
) -> None:
    """Run handlers until SIGTERM, SIGINT or a cancel."""
    stop = asyncio.Event()
    with _set_by_signals(stop):
        stopped = asyncio.create_task(stop.wait())
        registered = asyncio.create_task(register(service, client, registration))
        try:
            await asyncio.wait({registered, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if stop.is_set():
                return
            await registered
            async with _polling(service, declared, client, grace=grace):
                await stopped
        finally:
            stopped.cancel()
            registered.cancel()
            await asyncio.gather(stopped, registered, return_exceptions=True)


@asynccontextmanager
async def running(
    service: str, declared: Sequence[Handler], client: Client, registration: Registering, *, grace: float
) -> AsyncIterator[None]:
    """Run handlers while the body runs."""
    await register(service, client, registration)
    async with _polling(service, declared, client, grace=grace):
        yield


@asynccontextmanager
async def _polling(service: str, declared: Sequence[Handler], client: Client, *, grace: float) -> AsyncIterator[None]:
    """Call functions while the body runs. Leaving begins no more, and gives those that run `grace` seconds."""
    threads = sum(handler.concurrency for handler in declared if not handler.is_async)
    executor = DaemonThreads(min(max(threads, 1), MAX_THREADS))
    worker = Worker(
        client.temporal,
        task_queue=handler_queue(service),
        activities=[Caller(declared, executor).call_handlers],
        max_concurrent_activities=MAX_ACTIVITIES,
        graceful_shutdown_timeout=timedelta(seconds=grace),
        # Short, so that a cancel reaches the activity soon.
        max_heartbeat_throttle_interval=timedelta(seconds=2),
    )
    try:
        async with worker:
            yield
    finally:
        # A thread cannot be stopped: one that still runs ends with the process, which does not wait for it.
        executor.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _set_by_signals(stop: asyncio.Event) -> Iterator[None]:
    """Set the event on SIGTERM and SIGINT, where this program may: in its main thread, and not on Windows."""
    loop, added = asyncio.get_running_loop(), []
    for each in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(each, stop.set)
        except (NotImplementedError, RuntimeError, ValueError):
            continue
        added.append(each)
    try:
        yield
    finally:
        for each in added:
            loop.remove_signal_handler(each)
