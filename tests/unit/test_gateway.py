"""The gateway as a server of its own."""

import asyncio
import sys
from pathlib import Path

import aiohttp

from bellwire.registry import Registry
from starter.local.processes import free_port

CHECKOUT = Path(__file__).parents[2]


async def test_the_gateway_answers_until_it_is_told_to_stop(tmp_path: Path) -> None:
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
                    async with session.get(f"http://127.0.0.1:{port}/ready") as answer:
                        assert (answer.status, await answer.json()) == (200, {"ready": True})
                    break
                except aiohttp.ClientConnectorError:
                    await asyncio.sleep(0.05)
        taken = await asyncio.create_subprocess_exec(
            *command, cwd=CHECKOUT, env={"BELLWIRE_REGISTRY_URL": url}, stderr=asyncio.subprocess.PIPE
        )
        _, said = await taken.communicate()
        assert (taken.returncode, b"cannot listen on" in said) == (1, True)
    finally:
        process.terminate()
        await process.communicate()
    assert process.returncode == 0
