"""Exiting: a process that talked to Temporal exits cleanly, even right after the last response."""

import subprocess
import sys

import pytest
from temporalio.testing import WorkflowEnvironment

#: Many responses arrive at once, right before the exit. Without a delay, one process in six dies by a signal.
PROGRAM = """
import asyncio
import sys

from bellwire.temporal.connection import connect


async def main():
    client = await connect(target_host=sys.argv[1], tls=False, api_key=None)
    await asyncio.gather(*(client.service_client.check_health() for _ in range(300)))


asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_process_crashes_after_the_last_response(dev_server: WorkflowEnvironment) -> None:
    address = dev_server.client.service_client.config.target_host
    ends = [
        subprocess.run([sys.executable, "-c", PROGRAM, address], capture_output=True, text=True, check=False)
        for _ in range(25)
    ]
    assert [(end.returncode, end.stderr) for end in ends] == [(0, "")] * 25


def test_connecting_delays_the_exit_once() -> None:
    program = """
import asyncio, time
from bellwire.errors import TemporalUnavailable
from bellwire.temporal.connection import connect

time.sleep = lambda seconds: print("delayed", 0 < seconds < 1, flush=True)

async def main():
    for _ in range(2):
        try:
            await connect(target_host="127.0.0.1:1")
        except TemporalUnavailable:
            pass

asyncio.run(main())
print("exiting", flush=True)
"""
    end = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (end.returncode, end.stdout, end.stderr) == (0, "exiting\ndelayed True\n", "")
