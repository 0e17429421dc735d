"""The stack of `python -m starter dev`, as a developer uses it: its gateway, its admin key, and the line that can be pasted."""

import asyncio
import json
import re
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from bellwire.registry import Registry
from starter.checkout import CHECKOUT
from starter.local.processes import environment_without


@asynccontextmanager
async def running_dev(folder: Path, until: str, *options: str) -> AsyncIterator[str]:
    """What the command prints up to this line, while its stack runs. It must end with status 0."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "starter", "dev", "--free-ports", "--folder", str(folder), *options),
        cwd=CHECKOUT,
        env=environment_without("BELLWIRE_", "TEMPORAL_"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        printed = ""
        async with asyncio.timeout(60):
            while not printed.endswith(f"\n{until}\n"):
                line = await process.stdout.readline()
                assert line, printed
                printed += line.decode()
        yield printed
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), 60)
    assert process.returncode == 0


@pytest.mark.slow
async def test_the_json_has_the_gateway_and_an_admin_key_that_works_until_the_stack_stops(tmp_path: Path) -> None:
    async with running_dev(tmp_path, "}", "--json") as printed, aiohttp.ClientSession() as session:
        ready = json.loads(printed)
        headers = {"authorization": f"Bearer {ready['admin_key']}"}
        async with session.get(f"{ready['gateway']}/v1/api-keys", headers=headers) as response:
            keys = (await response.json())["items"]
            assert (response.status, [key["scope"] for key in keys]) == (200, ["admin"])
        for path in ("health", "ready"):
            async with session.get(f"{ready['gateway']}/{path}") as response:
                assert response.status == 200, path
        async with session.get(f"{ready['gateway']}/metrics") as response:
            metrics = await response.text()
        assert re.search(
            r'^bellwire_http_requests_total{.*route="/v1/api-keys".*status="200"} 1$', metrics, re.MULTILINE
        )
    registry = await Registry.open(f"sqlite:///{tmp_path}/registry.db")
    assert [key.revoked_at is not None for key in await registry.api_keys.list()] == [True]
    assert [entry.action for entry in await registry.audit_log.list()] == ["api_key.revoked", "api_key.created"]
    await registry.close()


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.slow
async def test_the_printed_command_publishes_when_it_is_pasted(tmp_path: Path) -> None:
    async with running_dev(tmp_path, "Ctrl-C stops everything.") as printed:
        found = re.search(r"^curl .*\\\n.*$", printed, re.MULTILINE)
        assert found
        assert re.search(r"^admin key +bw_", printed, re.MULTILINE)
        curl = await asyncio.create_subprocess_shell(found[0], stdout=asyncio.subprocess.PIPE)
        response, _ = await asyncio.wait_for(curl.communicate(), 60)
        receipt = json.loads(response)
        assert (receipt["source"], receipt["settled"]) == ("/shop", True)
