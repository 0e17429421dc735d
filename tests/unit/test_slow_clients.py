"""The API beside clients that are slow, or that stop half-way: others are served, and nothing of them is left."""

import asyncio
import gc
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast
from unittest.mock import Mock

import pytest

from bellwire.client import Client
from bellwire.keys.api_keys import Scope
from bellwire.registry import Registry
from bellwire.service.http_server import Deadlines, serving_http
from bellwire.service.settings import Settings
from starter.gateway.app import application

CLIENTS = 60
#: Those that the process has open.
FILES = Path("/proc/self/fd")
#: So short that the test ends, and so long that requests of the others are within it.
DEADLINES = Deadlines(head=1.0, body=1.0, response=1.0, idle=1.0)


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[tuple[int, str]]:
    """The port of the API over an empty registry, and an admin key."""
    registry = await Registry.open(f"sqlite:///{folder}/registry.db")
    await registry.migrate()
    key = (await registry.api_keys.create(Scope.parse("admin"))).key
    app = application(Settings(), registry, cast(Client, Mock()))
    async with serving_http(app, host="127.0.0.1", port=0, deadlines=DEADLINES, max_connections=200) as port:
        yield port, key
    await registry.close()


def request(key: str, method: str, path: str, body: bytes = b"", *, length: int | None = None, more: str = "") -> bytes:
    """A request; `length` is the one that it announces."""
    head = f"{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n{more}"
    if body:
        head += f"content-length: {len(body) if length is None else length}\r\n"
    return f"{head}\r\n".encode() + body


def slow(key: str) -> list[bytes]:
    """The beginnings of requests that never end."""
    half, structured = b'{"specversion": ', "content-type: application/cloudevents+json\r\n"
    json_type = "content-type: application/json\r\n"
    return [
        b"",
        b"POST /v1/ev",
        b"GET /v1/channels HTTP/1.1\r\nhost: x\r\nx-a",
        request(key, "POST", "/v1/events", half, length=1_000, more=structured),
        request(key, "POST", "/v1/events", half, length=1_000, more="ce-id: 1\r\n"),
        request(key, "POST", "/v1/subscriptions", half, length=1_000, more=json_type),
        request(key, "POST", "/v1/subscriptions", half, length=1_000, more=f"{json_type}idempotency-key: k\r\n"),
        request(key, "POST", "/v1/event-types", half, length=1_000, more=json_type),
        request("bw_no", "POST", "/v1/events", half, length=1_000, more=structured),
        request(key, "POST", "/v1/events", more=f"{structured}transfer-encoding: chunked\r\n") + b"5\r\n{",
        request(key, "POST", "/v1/events", half, length=1_000, more=f"{structured}expect: 100-continue\r\n"),
    ]


async def response(port: int, sent: bytes) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    async with asyncio.timeout(30):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        body = await reader.readexactly(length)
    writer.close()
    return int(head.split()[1]), body


async def trickle(writer: asyncio.StreamWriter) -> None:
    """A byte from time to time, which postpones no deadline."""
    while not writer.is_closing():
        writer.write(b"x")
        await asyncio.sleep(0.2)


def descriptors() -> int:
    return sum(1 for _ in FILES.iterdir())


@pytest.mark.slow
@pytest.mark.skipif(not FILES.is_dir(), reason="counts file descriptors")
async def test_others_are_served_beside_slow_clients_of_which_nothing_is_left(tmp_path: Path) -> None:
    async with serving(tmp_path) as (port, key):
        listed = request(key, "GET", "/v1/channels")
        created = json.dumps({"type": "slow.client"}).encode()
        assert (await response(port, listed))[0] == 200
        # After the first request, which opens connections to the database.
        tasks, files = len(asyncio.all_tasks()), descriptors()
        beginnings = slow(key)
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(CLIENTS)]
        for number, (_, writer) in enumerate(held):
            writer.write(beginnings[number % len(beginnings)])
        trickling = [asyncio.create_task(trickle(writer)) for _, writer in held[::5]]
        more = "content-type: application/json\r\n"
        for nth in range(20):
            assert (await response(port, listed))[0] == 200
            put = await response(port, request(key, "POST", "/v1/event-types", created, more=more))
            assert put[0] == (200 if nth else 201)
        # Each is closed by its deadline, with a response or without.
        async with asyncio.timeout(30):
            await asyncio.gather(*(reader.read() for reader, _ in held), return_exceptions=True)
        for task in trickling:
            task.cancel()
        await asyncio.gather(*trickling, return_exceptions=True)
        for _, writer in held:
            writer.transport.abort()
        assert (await response(port, listed))[0] == 200
        async with asyncio.timeout(30):
            # Transports close at the next turns of the loop; the idle connection of the last response by its deadline.
            while len(asyncio.all_tasks()) > tasks or descriptors() > files:
                gc.collect()
                await asyncio.sleep(0.05)
