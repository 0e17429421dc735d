"""The command `bellwire` against a gateway: what developers do from a terminal."""

import asyncio
import io
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from aiohttp import web

from bellwire import Event
from bellwire.cli.app import run as command
from bellwire.events import uuid7
from bellwire.webhooks import verify
from starter.local.processes import environment_without, free_port
from tests.acceptance.conftest import running_gateway
from tests.gateway.conftest import Served


@dataclass
class Done:
    status: int
    output: str
    errors: str

    @property
    def json(self) -> Any:
        return json.loads(self.output)


def started(url: str, key: str, *arguments: str) -> Any:
    return asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from bellwire.cli import main; main()", *arguments),
        env={**environment_without("BELLWIRE_", "TEMPORAL_"), "BELLWIRE_URL": url, "BELLWIRE_KEY": key},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def run(served: Served, *arguments: str, key: str = "") -> Done:
    """Run the command in a thread, which takes far less time than the start of a process."""
    output, errors = io.StringIO(), io.StringIO()
    variables = {"BELLWIRE_URL": served.url, "BELLWIRE_KEY": key or served.admin}
    with patch.dict(os.environ, variables), redirect_stdout(output), redirect_stderr(errors):
        status = await asyncio.to_thread(command, arguments)
    return Done(status, output.getvalue(), errors.getvalue())


async def test_subscribe_publish_follow_and_redeliver(served: Served) -> None:
    hook = served.system.hooks.url("/command")
    created = await run(served, "subscribe", "--type", "command.*", "--webhook", hook, "--tenant", "acme", "--json")
    assert created.status == 0, created.errors
    subscription = created.json["id"]
    served.system.hooks.expect("/command", created.json["secret"])
    event = ("--type", "command.done", "--source", "/command", "--tenant", "acme", "--data", '{"n": 1}')
    published = await run(served, "publish", *event, "--wait", "30", "--json")
    assert published.status == 0, published.errors
    assert published.json[0]["counts"]["delivered"] == 1
    shown = await run(served, "events", published.json[0]["key"], "--json")
    assert shown.json["event"]["data"] == {"n": 1}
    listed = await run(served, "deliveries", "--subscription", subscription, "--since", "1h", "--json")
    (delivery,) = listed.json
    assert delivery["state"] == "delivered"
    table = await run(served, "deliveries", delivery["id"])
    assert "delivered" in table.output
    again = await run(served, "redeliver", delivery["id"], "--json")
    assert again.json["workflow_id"], again.errors
    updated = await run(served, "update", subscription, "--type", "command.other", "--version", "1", "--json")
    assert (updated.json["types"], updated.json["version"]) == (["command.other"], 2)
    late = await run(served, "update", subscription, "--type", "x", "--version", "1")
    assert (late.status, "412" in late.errors) == (1, True)


async def test_a_file_of_events_is_published(served: Served, tmp_path: Path) -> None:
    events = [{"specversion": "1.0", "id": str(uuid7()), "source": "/file", "type": "command.filed"} for _ in range(3)]
    for name, text in (("a.json", json.dumps(events)), ("b.jsonl", "\n".join(map(json.dumps, events)))):
        (tmp_path / name).write_text(text)
        published = await run(served, "publish", str(tmp_path / name), "--json")
        assert [each["id"] for each in published.json] == [each["id"] for each in events], published.errors


@pytest.mark.parametrize(
    ("arguments", "status", "error"),
    [
        (("publish", "--type", "a", "--source", "not a uri"), 2, "source"),
        (("publish", "--type", "a", "--source", "/x", "--data", "{"), 2, "--data: is not valid JSON"),
        (("update", "none"), 2, "names no change"),
        (("events", "none"), 1, "no event has the key none"),
        (("deliveries", "--since", "soon"), 2, "--since"),
        (("subscribe", "--webhook", "https://a.example", "--email", "a@b.example"), 2, "one target"),
        (("listen",), 2, "--forward"),
        (("listen", "--forward", "localhost:1", "--secret", "x"), 2, "--secret"),
        (("fly",), 2, "fly"),
    ],
)
async def test_bad_input_and_refusals_are_errors(
    served: Served, arguments: tuple[str, ...], status: int, error: str
) -> None:
    done = await run(served, *arguments)
    assert (done.status, error in done.errors) == (status, True), done.errors
    assert "Traceback" not in done.errors


async def test_a_refused_key_is_an_error(served: Served) -> None:
    done = await run(served, "events", key="bw_wrong")
    assert (done.status, "API key" in done.errors) == (1, True), done.errors


@dataclass
class Program:
    """A developer's own program."""

    port: int
    requests: "asyncio.Queue[tuple[Any, bytes]]"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async def receive(request: web.Request) -> web.Response:
            self.requests.put_nowait((request.headers, await request.read()))
            return web.Response(status=204)

        app = web.Application()
        app.router.add_post("/hooks", receive)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port).start()
        try:
            yield
        finally:
            await runner.cleanup()

    async def next(self, secret: str) -> Any:
        headers, body = await asyncio.wait_for(self.requests.get(), 30)
        return verify(secret, headers, body)


@pytest.mark.slow
async def test_listen_relays_events_of_the_tenant_signed_and_waits_for_program_and_gateway(
    served: Served, tmp_path: Path
) -> None:
    key, program = await served.key("tenant:listener"), Program(free_port(), asyncio.Queue())
    secret = (await run(served, "listen", "--print-secret", key=key)).output.strip()
    assert secret == (await run(served, "listen", "--print-secret", key=key)).output.strip()

    async def publish(event_id: str, tenant: str = "listener", kind: str = "listened.event") -> None:
        event = Event(id=event_id, source="/listened", type=kind, tenant=tenant)
        await served.system.client.wait(await served.system.client.publish(event), timeout=30)

    await publish("before")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    forward = f"127.0.0.1:{program.port}/hooks"
    async with running_gateway(served.system, log=tmp_path / "one", port=port):
        process = await started(url, key, "listen", "--forward", forward, "--type", "listened.*")
        assert secret in (await asyncio.wait_for(process.stderr.readline(), 30)).decode()
        await publish("foreign", tenant="other")
        await publish("unselected", kind="ignored.event")
        await publish("first")
        assert "cannot be reached" in (await asyncio.wait_for(process.stderr.readline(), 30)).decode()
        async with program.running():
            assert (await program.next(secret))["id"] == "first"
            assert b"HTTP 204" in await asyncio.wait_for(process.stdout.readline(), 30)
    try:
        # The gateway is away now; what is published meanwhile is relayed when it is back.
        await publish("second")
        async with program.running():
            assert "did not respond" in (await asyncio.wait_for(process.stderr.readline(), 60)).decode()
            async with running_gateway(served.system, log=tmp_path / "two", port=port):
                assert (await program.next(secret))["id"] == "second"
                await publish("third")
                assert (await program.next(secret))["id"] == "third"
        assert program.requests.empty()
    finally:
        process.terminate()
        await process.wait()
