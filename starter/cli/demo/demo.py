"""The demo: a stack of its own, receivers that refuse and recover, and a check of what each of them received."""

import asyncio
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer
from rich.live import Live
from rich.table import Table

from bellwire.client import Client
from bellwire.errors import BellwireError
from bellwire.events import Event
from bellwire.formats.counts import counted
from bellwire.http.client import HttpClient
from bellwire.receipts import Receipt, Status
from starter.cli.demo.checks import Received, differences, reported_back
from starter.cli.demo.example import FOLDER, Example, Receivers
from starter.cli.demo.handler import DemoService
from starter.cli.tables import in_counts, print_table, table
from starter.cli.terminal import console, note, print_json
from starter.local.processes import free_port, interruptible
from starter.local.receivers.mailbox import Mailbox
from starter.local.receivers.providers.slack import FakeSlack
from starter.local.receivers.providers.web_push import FakePushService
from starter.local.receivers.providers.wechat import FakeWechat
from starter.local.receivers.twilio import FakeTwilio
from starter.local.receivers.webhooks import WebhookReceiver
from starter.local.stack import DEV_SETTINGS, Stack, running_stack
from starter.operations.platform.api_keys import create_api_key, parse_scope
from starter.operations.problems import OperationError

#: Seconds that all events have to settle; the slowest needs two short retries.
SETTLE_TIMEOUT = 15.0
#: Seconds between two queries of the events' statuses.
POLL_SECONDS = 0.2

_WORKER_SETTINGS = {**DEV_SETTINGS, "BELLWIRE_LOG_FORMAT": "json"}


async def run(*, keep: bool, as_json: bool) -> None:
    """Run the demo. Raises OperationError with every difference from what was expected."""
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="bellwire-demo-"))
    found: list[str] = []
    finished = False
    async with interruptible(), AsyncExitStack() as running:
        receivers = Receivers(
            mailbox=await running.enter_async_context(Mailbox()),
            twilio=await running.enter_async_context(FakeTwilio()),
            hooks=await running.enter_async_context(WebhookReceiver()),
            pushes=await running.enter_async_context(FakePushService()),
            slack=await running.enter_async_context(FakeSlack()),
            wechat=await running.enter_async_context(FakeWechat()),
        )
        note("starting Temporal, a registry, a worker, the gateway and six receivers …")
        settings = {**_WORKER_SETTINGS, **receivers.settings(folder)}
        stack = await running.enter_async_context(
            running_stack(folder, port=free_port(), ui_port=free_port(), gateway_port=free_port(), settings=settings)
        )
        found = await _run_example(stack, receivers, as_json=as_json)
        finished = True
        outcome = (
            "everything arrived as expected"
            if not found
            else f"{counted(len(found), 'difference')} from the expectation"
        )
        note(f"{outcome}, {time.monotonic() - began:.1f} s")
        if keep:
            _print_instructions(stack, folder)
            await stack.broken()
        else:
            note("the stack stops now; `demo --keep` keeps it running")
    if found:
        note(f"logs: {folder}/worker.log, {folder}/gateway.log, {folder}/temporal.log")
        raise OperationError("\n".join(found))
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    if not finished:
        note("interrupted")
        raise typer.Exit(130)


async def _run_example(stack: Stack, receivers: Receivers, *, as_json: bool) -> list[str]:
    """Subscribe, publish, watch, and compare. Returns the differences."""
    example = Example.read(FOLDER, webhook_url=receivers.hooks.url(""), push_url=receivers.pushes.endpoint(""))
    receivers.follow(example.scripts, gateway=stack.gateway)
    await example.subscribe(stack.registry, receivers.hooks)
    service = DemoService()
    async with service.handlers.running(stack.client):
        receipts = [await _publish_over_http(stack, example.events[0])]
        receipts += [await stack.client.publish(event) for event in example.events[1:]]
        statuses = await _watch(stack.client, example, receipts, as_json=as_json)
    await receivers.wechat.callbacks.sent()
    received, final = Received.by(receivers, handled=service.handled), await reported_back(stack.registry)
    found = await differences(
        example, received=received, receipts=receipts, statuses=statuses, final=final, registry=stack.registry
    )
    if as_json:
        print_json(_as_json(stack, example, statuses, received, final, found))
    else:
        _print(stack, example, received, final)
    return found


async def _publish_over_http(stack: Stack, event: Event) -> Receipt:
    """Publish as a program without access to Temporal does. Whether it arrives is checked as for every event."""
    new = await create_api_key(stack.registry, parse_scope("publish"), description="demo")
    async with HttpClient(stack.gateway, new.key) as client:
        receipt = await client.publish(event)
    note(f"published {event.id} over HTTP: POST {stack.gateway}/v1/events")
    return receipt


async def _watch(client: Client, example: Example, receipts: list[Receipt], *, as_json: bool) -> dict[str, Status]:
    """The status of each event by its id, once all are settled or the time is up; shown live on a terminal."""
    statuses: dict[str, Status] = {}
    loop = asyncio.get_running_loop()
    end = loop.time() + SETTLE_TIMEOUT
    screen = console(stderr=as_json)
    with Live(_status_table(example, receipts, statuses), console=screen, auto_refresh=False) as live:
        while loop.time() < end:
            waiting = [event for event in example.distinct_events if not (s := statuses.get(event.id)) or not s.settled]
            if not waiting:
                break
            results = await asyncio.gather(*map(client.status, waiting), return_exceptions=True)
            for status in results:
                if isinstance(status, Status):
                    statuses[status.id] = status
                elif not isinstance(status, BellwireError):
                    raise status
            live.update(_status_table(example, receipts, statuses), refresh=True)
            await asyncio.sleep(POLL_SECONDS)
    if not screen.is_terminal:
        screen.print()
    return statuses


def _status_table(example: Example, receipts: list[Receipt], statuses: Mapping[str, Status]) -> Table:
    repeated = {receipt.event_id for receipt in receipts if receipt.duplicate}
    rows = []
    for event in example.distinct_events:
        status = statuses.get(event.id)
        rows.append(
            (
                event.id,
                event.type,
                example.tenants.get(event.tenant, "all tenants"),
                "twice" if event.id in repeated else "once",
                "settled" if status and status.settled else "running",
                in_counts(status.counts) if status else "",
                ", ".join(f"{one.subscription_id}: {one.reason}" for one in status.unsettled if one.reason)
                if status
                else "",
            )
        )
    columns = ("event", "type", "for", "published", "state", "deliveries", "waiting for")
    return table(columns, rows, title="What Bellwire reports")


def _print(stack: Stack, example: Example, received: Received, final: Mapping[str, str]) -> None:
    print_table(
        ("to", "subject"), [(mail.to, mail.title) for mail in received.mails], title="What the mail server received"
    )
    print_table(("to", "text"), [(sms.to, sms.title) for sms in received.sms], title="What the SMS provider received")
    hooks = [
        (hook.path, hook.event, ", ".join(map(str, hook.responses)), "valid" if hook.verified else "INVALID")
        for hook in received.webhooks
    ]
    print_table(("path", "event", "responses", "signatures"), hooks, title="What the webhook receiver received")
    print_table(
        ("browser", "title", "text"),
        [(push.to, push.title, ", ".join(push.text.splitlines()[1:])) for push in received.pushes],
        title="What a browser decrypted of its pushes",
    )
    print_table(
        ("conversation", "title"), [(sent.to, sent.title) for sent in received.chats], title="What Slack received"
    )
    print_table(
        ("openid", "fields"),
        [(sent.to, ", ".join(sent.text.splitlines()[1:])) for sent in received.wechat],
        title="What WeChat received",
    )
    print_table(("subscription", "final status"), list(final.items()), title="What WeChat reported back")
    print_table(
        ("event",), [(event,) for event in received.handled], title="What the demo's own function was called for"
    )
    names = ", ".join(example.tenants.values())
    console().print(f"{len(example.subscriptions)} subscriptions of {names}; their runs in the Temporal UI: {stack.ui}")


def _as_json(
    stack: Stack,
    example: Example,
    statuses: Mapping[str, Status],
    received: Received,
    final: Mapping[str, str],
    found: list[str],
) -> dict[str, Any]:
    return {
        "ui": stack.ui,
        "gateway": stack.gateway,
        "published_over_http": example.events[0].id,
        "events": {name: status.model_dump(mode="json") for name, status in statuses.items()},
        "mails": [{"to": mail.to, "subject": mail.title} for mail in received.mails],
        "sms": [{"to": sms.to, "text": sms.title} for sms in received.sms],
        "webhooks": [{**asdict(hook), "ids": sorted(hook.ids)} for hook in received.webhooks],
        "pushes": [{"to": push.to, "title": push.title} for push in received.pushes],
        "chats": [{"to": sent.to, "title": sent.title} for sent in received.chats],
        "wechat": [
            {"to": sent.to, "template_id": sent.title, "fields": sent.text.splitlines()[1:]} for sent in received.wechat
        ],
        "final": dict(final),
        "handled": list(received.handled),
        "differences": found,
    }


def _print_instructions(stack: Stack, folder: Path) -> None:
    note(f"Temporal UI: {stack.ui}\nHTTP API: {stack.gateway}\nlogs: {folder}\nin another terminal:")
    for name, value in {**stack.variables, **DEV_SETTINGS}.items():
        note(f"  export {name}='{value}'")
    note("  python -m starter events list\nCtrl-C stops everything.")
