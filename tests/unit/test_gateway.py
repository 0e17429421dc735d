"""The gateway as a process."""

import asyncio
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from starlette.requests import Request

from bellwire.keys.api_keys import Scope
from bellwire.keys.keyring import new_entry
from bellwire.registry import Registry
from starter.gateway.metrics import is_local
from starter.local.processes import free_port

CHECKOUT = Path(__file__).parents[2]
TOKEN = "t" * 40


@asynccontextmanager
async def gateway(
    folder: Path, **settings: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, int, aiohttp.ClientSession, Path]]:
    """The process once it serves, its port, a client, and its log. It must end with status 0."""
    url = f"sqlite:///{folder}/registry.db"
    registry = await Registry.open(url)
    await registry.migrate()
    await registry.close()
    port, log = free_port(), folder / "gateway.log"
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "starter", "gateway", "--port", str(port)),
            cwd=CHECKOUT,
            env={"BELLWIRE_REGISTRY_URL": url, "TEMPORAL_CONFIG_FILE": os.devnull, **settings},
            stderr=file,
        )
    try:
        async with asyncio.timeout(30), aiohttp.ClientSession() as session:
            while process.returncode is None:
                try:
                    async with session.get(f"http://127.0.0.1:{port}/ready") as response:
                        assert (response.status, await response.json()) == (200, {"ready": True})
                    break
                except aiohttp.ClientConnectorError:
                    await asyncio.sleep(0.05)
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
            yield process, port, session, log
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()
    assert process.returncode == 0, log.read_text()


async def test_the_gateway_serves_until_it_is_stopped(tmp_path: Path) -> None:
    async with gateway(tmp_path) as (_, port, _, log):
        assert f"listening on http://127.0.0.1:{port}" in log.read_text()
        second = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "starter", "gateway", "--port", str(port)),
            cwd=CHECKOUT,
            env={"BELLWIRE_REGISTRY_URL": f"sqlite:///{tmp_path}/registry.db"},
            stderr=asyncio.subprocess.PIPE,
        )
        _, errors = await second.communicate()
        assert (second.returncode, b"cannot listen on" in errors, b"listening on" in errors) == (1, True, False)


@pytest.mark.skipif(sys.platform != "linux", reason="sets the limits of another process")
@pytest.mark.slow
async def test_half_requests_without_end_leave_it_reachable_and_its_log_short(tmp_path: Path) -> None:
    keys = {"BELLWIRE_ENCRYPTION_KEYS": new_entry("k1"), "BELLWIRE_CODEC_TOKENS": TOKEN}
    async with gateway(tmp_path, **keys) as (process, port, session, log):
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (256, 1024))
        body = f"POST /codec/decode HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nX-Namespace: default\r\n"
        held = []
        for number in range(400):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"{body}Content-Length: 30\r\n\r\nhalf".encode() if number % 2 else b"GET /ready HTTP/1.1\r\n")
            held.append(writer)
        async with session.get(f"http://127.0.0.1:{port}/ready") as response:
            assert response.status == 200
        for writer in held:
            writer.transport.abort()
        async with session.get(f"http://127.0.0.1:{port}/ready") as response:
            assert response.status == 200
        assert "Traceback" not in log.read_text()
        assert len(log.read_text().splitlines()) < 5


async def test_metrics_need_an_admin_key_from_elsewhere(tmp_path: Path) -> None:
    async with gateway(tmp_path) as (_, port, session, _):
        registry = await Registry.open(f"sqlite:///{tmp_path}/registry.db")
        keys = {scope: (await registry.api_keys.create(Scope.parse(scope))).key for scope in ("admin", "publish")}
        await registry.close()
        for headers, status in (
            ({}, 200),
            ({"x-forwarded-for": "192.0.2.1"}, 401),
            ({"x-forwarded-for": "192.0.2.1", "authorization": f"Bearer {keys['publish']}"}, 403),
            ({"x-forwarded-for": "192.0.2.1", "authorization": f"Bearer {keys['admin']}"}, 200),
        ):
            async with session.get(f"http://127.0.0.1:{port}/metrics", headers=headers) as response:
                assert response.status == status, headers
                expected = "text/plain" if status == 200 else "application/problem+json"
                assert response.content_type == expected
        for path in ("/health", "/ready"):
            async with session.get(f"http://127.0.0.1:{port}{path}", headers={"via": "1.1 proxy"}) as response:
                assert response.status == 200


@pytest.mark.parametrize(
    ("client", "headers", "local"),
    [
        (("127.0.0.1", 1), [], True),
        (("::1", 1), [], True),
        (("10.0.0.5", 1), [], False),
        (("127.0.0.1", 1), [(b"forwarded", b"for=192.0.2.1")], False),
        (("127.0.0.1", 1), [(b"via", b"1.1 proxy")], False),
        (("proxy.sock", 1), [], False),
        (None, [], False),
    ],
)
def test_a_local_program_is_one_that_no_proxy_speaks_for(
    client: tuple[str, int] | None, headers: list[tuple[bytes, bytes]], local: bool
) -> None:
    assert is_local(Request({"type": "http", "client": client, "headers": headers})) is local
