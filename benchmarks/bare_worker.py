"""The worker of the bare workflows, one process with one queue: `python -m benchmarks.bare_worker ADDRESS`.

Its activities are on the queue of its workflows, so the server dispatches them eagerly, as for any small service.
"""

import asyncio
import signal
import sys

import aiohttp
from temporalio.worker import PollerBehaviorAutoscaling, Worker

from bellwire.temporal.connection import connect
from benchmarks.bare import QUEUE, Empty, Poster, PostOnce


async def serve(address: str) -> None:
    """Work until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    client = await connect(target_host=address, namespace="default", tls=False, api_key=None)
    async with (
        aiohttp.ClientSession() as session,
        Worker(
            client,
            task_queue=QUEUE,
            workflows=[Empty, PostOnce],
            activities=[Poster(session).post],
            workflow_task_poller_behavior=PollerBehaviorAutoscaling(initial=2),
            activity_task_poller_behavior=PollerBehaviorAutoscaling(initial=2),
        ),
    ):
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
