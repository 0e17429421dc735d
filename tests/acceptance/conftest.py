"""The whole system: a dev server, a registry, worker processes, and receivers that speak the real protocols."""

import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bellwire import Client, Subscription
from bellwire.registry import Registry
from starter.checkout import CHECKOUT
from starter.local.processes import Process, environment_without, free_port
from starter.local.receivers.mailbox import Mailbox
from starter.local.receivers.twilio import FakeTwilio
from starter.local.receivers.webhooks import WebhookReceiver
from starter.local.stack import Stack, running_stack


@dataclass
class System:
    """A running Bellwire and its receivers."""

    stack: Stack
    hooks: WebhookReceiver
    mailbox: Mailbox
    twilio: FakeTwilio
    #: BELLWIRE_* and TEMPORAL_* variables for further processes.
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def client(self) -> Client:
        return self.stack.client

    @property
    def registry(self) -> Registry:
        return self.stack.registry

    async def subscribe(self, target: dict[str, Any], *types: str, **fields: Any) -> Subscription:
        """Store a subscription; the receiver verifies the signatures of a webhook."""
        subscription = Subscription.model_validate({"types": types, "target": target, **fields})
        secret = await self.registry.subscriptions.create(subscription)
        if secret:
            self.hooks.expect("/" + target["url"].split("/", 3)[3], secret.get_secret_value())
        return subscription

    async def hook(self, path: str, *types: str, **fields: Any) -> Subscription:
        return await self.subscribe({"channel": "webhook", "url": self.hooks.url(path)}, *types, **fields)


@asynccontextmanager
async def running_system(folder: Path, *, database: Path | None = None, **settings: str) -> AsyncIterator[System]:
    async with AsyncExitStack() as cleanup:
        hooks = await cleanup.enter_async_context(WebhookReceiver())
        mailbox = await cleanup.enter_async_context(Mailbox())
        twilio = await cleanup.enter_async_context(FakeTwilio())
        variables = {
            "BELLWIRE_SMTP_HOST": mailbox.host,
            "BELLWIRE_SMTP_PORT": str(mailbox.port),
            "BELLWIRE_TWILIO_URL": twilio.url,
            "BELLWIRE_TWILIO_ACCOUNT_SID": twilio.account_sid,
            "BELLWIRE_TWILIO_AUTH_TOKEN": twilio.auth_token,
            "BELLWIRE_TWILIO_SENDER": "+14155550100",
            "BELLWIRE_WEBHOOK_ALLOW_HTTP": "true",
            "BELLWIRE_WEBHOOK_PORTS": "*",
            "BELLWIRE_EGRESS_ALLOW": "127.0.0.0/8",
            "BELLWIRE_EGRESS_DETAILS": "true",
            "BELLWIRE_SMS_RECONCILE_AFTER": "2",
            "BELLWIRE_LOG_FORMAT": "json",
            **settings,
        }
        stack = await cleanup.enter_async_context(
            running_stack(folder, port=free_port(), ui_port=free_port(), settings=variables, database=database)
        )
        yield System(stack, hooks, mailbox, twilio, {**variables, **stack.variables})


async def start_worker(system: System, folder: Path, name: str, **settings: str) -> Process:
    """Start another worker process with the system's settings and these, and wait until it polls."""
    health = f"127.0.0.1:{free_port()}"
    variables = {**system.variables, "BELLWIRE_HEALTH_ADDRESS": health, **settings}
    process = await Process.start(
        name,
        (sys.executable, str(CHECKOUT / "worker.py")),
        environment={**environment_without("BELLWIRE_", "TEMPORAL_"), **variables},
        log=folder / f"{name}.log",
    )
    await _until_ready(process, f"http://{health}/ready")
    return process


@asynccontextmanager
async def running_gateway(system: System, *, log: Path, port: int | None = None, **settings: str) -> AsyncIterator[str]:
    """The address of a gateway with the system's settings and these."""
    port = port or free_port()
    process = await Process.start(
        "gateway",
        (sys.executable, "-m", "starter", "gateway", "--port", str(port)),
        environment={
            **environment_without("BELLWIRE_", "TEMPORAL_"),
            **system.variables,
            "PYTHONPATH": str(CHECKOUT),
            **settings,
        },
        log=log,
    )
    try:
        await _until_ready(process, f"http://127.0.0.1:{port}/ready")
        yield f"http://127.0.0.1:{port}"
    finally:
        await process.stop(grace=10)


async def _until_ready(process: Process, url: str) -> None:
    async with aiohttp.ClientSession() as session:

        async def ready() -> bool:
            try:
                async with session.get(url) as response:
                    return response.status == 200
            except aiohttp.ClientError:
                return False

        await process.until(ready, timeout=60)


@pytest.fixture(scope="session")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """One system for the tests of a process; each test uses its own event types."""
    async with running_system(tmp_path_factory.mktemp("system")) as system:
        yield system
