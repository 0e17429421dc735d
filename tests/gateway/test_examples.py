"""The example publishers of each language, run as their comments say."""

import asyncio
import json
import os
import shutil

import pytest

from bellwire.events import uuid7
from starter.checkout import CHECKOUT
from tests.gateway.conftest import Served

FOLDER = CHECKOUT / "examples" / "publishers"
COMMANDS = {
    "curl": (["curl"], ["sh", str(FOLDER / "publish.sh")]),
    "node": (["node"], ["node", str(FOLDER / "node" / "publish.mjs")]),
    "go": (["go"], ["go", "run", "main.go"]),
}
#: Programs that take more than 5 s to start: a compiler whose cache is empty.
SLOW = {"go"}


async def run(language: str, url: str, key: str, order: str) -> tuple[int | None, str, str]:
    """Exit status and output of an example."""
    needed, command = COMMANDS[language]
    if missing := [program for program in needed if shutil.which(program) is None]:
        reason = f"{missing[0]} is not installed"
        if os.environ.get("BELLWIRE_TEST_LANGUAGES") == "required":
            pytest.fail(f"{reason}, and BELLWIRE_TEST_LANGUAGES says that it is required")
        pytest.skip(reason)
    process = await asyncio.create_subprocess_exec(
        *(*command, order),
        cwd=FOLDER / "go",
        env={**os.environ, "BELLWIRE_URL": url, "BELLWIRE_KEY": key, "GOTOOLCHAIN": "local", "GOPROXY": "off"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    return process.returncode, output.decode(), errors.decode()


@pytest.mark.parametrize(
    "language", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in COMMANDS]
)
async def test_an_example_publishes_and_says_what_is_wrong(served: Served, language: str) -> None:
    key, order = await served.key("publish"), str(uuid7())
    status, output, errors = await run(language, served.url, key, order)
    assert status == 0, errors
    assert json.loads(output)["id"] == f"order-{order}-paid"
    await served.system.client.wait(("/shop/orders", f"order-{order}-paid"), timeout=30)
    (stored,) = await served.system.registry.events.with_id(f"order-{order}-paid")
    assert stored.event.data == {"order": order, "total": "19.90 EUR"}
    status, output, _ = await run(language, served.url, key, order)
    assert (status, json.loads(output)["duplicate"]) == (0, True)
    status, output, errors = await run(language, served.url, "bw_wrong", order)
    assert status != 0
    assert "/v1/problems/unauthenticated" in output + errors
