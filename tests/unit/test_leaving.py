"""How a process that talked to Temporal ends: in order, however soon after the last answer."""

import subprocess
import sys

import pytest
from temporalio.testing import WorkflowEnvironment

#: Many answers come at the same time, right before the end; without a pause one process in six dies of a signal.
PROGRAM = """
import asyncio
import sys

from bellwire.connection import connect


async def main():
    client = await connect(target_host=sys.argv[1], tls=False, api_key=None)
    await asyncio.gather(*(client.service_client.check_health() for _ in range(300)))


asyncio.run(main())
"""


@pytest.mark.slow
def test_no_process_dies_of_the_last_answer(dev_server: WorkflowEnvironment) -> None:
    address = dev_server.client.service_client.config.target_host
    ends = [
        subprocess.run([sys.executable, "-c", PROGRAM, address], capture_output=True, text=True, check=False)
        for _ in range(25)
    ]
    assert [(end.returncode, end.stderr) for end in ends] == [(0, "")] * 25


def test_whoever_connects_pauses_once_before_the_interpreter_shuts_down() -> None:
    program = """
import asyncio, atexit, threading, time
from bellwire.connection import connect
from bellwire.errors import TemporalUnavailable

def late():
    asked.wait()
    time.sleep(0.005)
    print("let go", flush=True)

asked = threading.Event()
threading.Thread(target=late, daemon=True).start()

async def main():
    for _ in range(2):
        try:
            await connect(target_host="127.0.0.1:1")
        except TemporalUnavailable:
            pass

asyncio.run(main())
atexit.register(asked.set)  # the last thing before the pause
"""
    end = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (end.returncode, end.stdout, end.stderr) == (0, "let go\n", "")
