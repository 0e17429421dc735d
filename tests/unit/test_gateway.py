"""The gateway as a process."""

import asyncio
import sys
from pathlib import Path

import aiohttp

from bellwire.registry import Registry
from starter.local.processes import free_port

CHECKOUT = Path(__file__).parents[2]


async def test_the_gateway_serves_until_it_is_stopped(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/registry.db"
    registry = await Registry.open(url)
    await registry.migrate()
    await registry.close()
    port = free_port()
    command = (sys.executable, "-m", "starter", "gateway", "--port", str(port))
    process = await asyncio.create_subprocess_exec(
        *command, cwd=CHECKOUT, env={"BELLWIRE_REGISTRY_URL": url}, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr
    try:
        assert b"listening" in await process.stderr.readline()
        async with aiohttp.ClientSession() as session:
            while True:
                try:
                    async with session.get(f"http://127.0.0.1:{port}/ready") as response:
                        assert (response.status, await response.json()) == (200, {"ready": True})
                    break
                except aiohttp.ClientConnectorError:
                    await asyncio.sleep(0.05)
        second = await asyncio.create_subprocess_exec(
            *command, cwd=CHECKOUT, env={"BELLWIRE_REGISTRY_URL": url}, stderr=asyncio.subprocess.PIPE
        )
        _, errors = await second.communicate()
        assert (second.returncode, b"cannot listen on" in errors) == (1, True)
    finally:
        process.terminate()
        await process.communicate()
    assert process.returncode == 0
