"""A gateway that is stopped finishes the requests in progress."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest

from bellwire import Event
from bellwire.events import uuid7
from tests.acceptance.conftest import running_gateway
from tests.gateway.conftest import Served


async def test_a_request_in_progress_is_responded_to_and_no_other_is_taken(served: Served, tmp_path: Path) -> None:
    system = served.system
    await system.hook("/draining", "gateway.draining", tenant="acme")
    # Its delivery waits for longer than the request.
    system.hooks.script("/draining", 503)
    event = Event(source="/draining", type="gateway.draining", id=str(uuid7()), tenant="acme")
    headers = {
        "authorization": f"Bearer {served.admin}",
        "content-type": "application/cloudevents+json",
        "prefer": "wait=3",
    }
    async with AsyncExitStack() as running, aiohttp.ClientSession() as session:
        url = await running.enter_async_context(running_gateway(system, log=tmp_path / "gateway.log"))
        request = asyncio.create_task(session.post(f"{url}/v1/events", data=event.to_json(), headers=headers))
        async with asyncio.timeout(30):
            await system.hooks.arrived(1, "/draining")
        assert not request.done()
        await running.aclose()
        response = await request
        receipt = await response.json()
        assert (response.status, receipt["id"], receipt["duplicate"]) == (202, event.id, False)
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(f"{url}/ready")
