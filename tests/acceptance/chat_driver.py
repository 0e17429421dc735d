"""Sends deliveries through the channel of the page "Writing a channel".

Run it in a copy of the checkout that has the channel: `python chat_driver.py FOLDER`. It writes result.json into the folder.
"""

import asyncio
import json
import logging
import sys
from collections import defaultdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog
from aiohttp import web
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment

import worker
from bellwire import Channel, Client, Event, Subscription
from bellwire.contract import SEARCH_ATTRIBUTES
from bellwire.registry import Registry
from bellwire.service.settings import Settings

#: The responses of each room, in order: status and headers. None throttles: that ends by the real clock, which nothing skips.
ROOMS: dict[str, list[tuple[int, dict[str, str]]]] = {
    "open": [(201, {})],
    "busy": [(500, {"Retry-After": "1200"}), (503, {}), (201, {})],
    "gone": [(410, {})],
}


class Rooms:
    """A chat server. It responds by ROOMS, and keeps what was posted."""

    def __init__(self) -> None:
        self.posts: dict[str, list[dict[str, Any]]] = defaultdict(list)

    async def post(self, request: web.Request) -> web.Response:
        room = request.match_info["room"]
        status, headers = ROOMS[room][len(self.posts[room])]
        self.posts[room].append(await request.json())
        return web.Response(status=status, headers=headers)


async def start_server() -> WorkflowEnvironment:
    executable = Path(sys.executable).parent / "temporal-test-server"
    server = await WorkflowEnvironment.start_time_skipping(
        data_converter=pydantic_data_converter, test_server_existing_path=str(executable)
    )
    kinds = {key.name: IndexedValueType.ValueType(key.indexed_value_type) for key in SEARCH_ATTRIBUTES}
    await server.client.operator_service.add_search_attributes(
        AddSearchAttributesRequest(namespace=server.client.namespace, search_attributes=kinds)
    )
    return server


async def send(folder: Path) -> dict[str, Any]:
    rooms, application = Rooms(), web.Application()
    application.router.add_post("/{room}", rooms.post)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]

    registry = await Registry.open(f"sqlite:///{folder}/registry.db")
    await registry.migrate()
    for room in ROOMS:
        target = {"channel": "mattermost", "url": f"http://127.0.0.1:{port}/{room}"}
        await registry.subscriptions.create(
            Subscription.model_validate({"id": room, "tenant": "acme", "types": ["order.*"], "target": target})
        )
    settings = Settings.read(
        registry_url=f"sqlite:///{folder}/registry.db",
        webhook_allow_http=True,
        webhook_ports="*",
        egress_allow="127.0.0.0/8",
    )
    event = Event(source="/shop", type="order.paid", tenant="acme", subject="order 42 @all")
    async with (
        await start_server() as server,
        worker.polling(server.client, registry, settings, [Channel("mattermost")]),
    ):
        client = Client(server.client)
        await client.publish(event)
        while not (status := await client.status(event)).settled:
            due = [each.due for each in status.unsettled if each.due is not None]
            wait = min(due) - await server.get_current_time() if due else timedelta()
            # Skip to the next attempt, but nothing while one runs.
            await (server.sleep(wait) if wait > timedelta() else asyncio.sleep(0.05))
    result = {
        "counts": status.counts.model_dump(),
        "posts": rooms.posts,
        "attempts": {
            room: [each.model_dump(mode="json") for each in await registry.attempts.list(event.key, room)]
            for room in ROOMS
        },
        "states": {room: (await registry.subscriptions.get(room)).state for room in ROOMS},
        "shown": (await registry.subscriptions.get("open")).model_dump(mode="json")["target"],
    }
    await registry.close()
    await runner.cleanup()
    return result


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    given = Path(sys.argv[1])
    (given / "result.json").write_text(json.dumps(asyncio.run(send(given))))
