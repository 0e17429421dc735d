"""The demo: a stack of its own, three receivers that refuse and recover, and a check of what each of them got."""

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

from bellwire.client import Client, Receipt, Status
from bellwire.errors import BellwireError
from starter.cli.demo.checks import Received, differences
from starter.cli.demo.example import FOLDER, Example, Receivers
from starter.cli.dev import DEV_SETTINGS
from starter.cli.tables import in_counts, print_table, table
from starter.cli.terminal import (
    CommandFailed,
    console,
    note,
    print_json,
)
from starter.local.processes import free_port, interruptible
from starter.local.receivers.mailbox import Mailbox
from starter.local.receivers.twilio import FakeTwilio
from starter.local.receivers.webhooks import WebhookReceiver
from starter.local.stack import Stack, running_stack

#: Seconds that all events have to settle; the slowest takes two short waits.
SETTLE_TIMEOUT = 15.0
#: Seconds between two looks at how the events stand.
LOOK_EVERY = 0.2

_WORKER_SETTINGS = {**DEV_SETTINGS, "BELLWIRE_LOG_FORMAT": "json"}


async def run(*, keep: bool, as_json: bool) -> None:
    """Run the demo. Raises CommandFailed with every difference from what was expected."""
    begun = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="bellwire-demo-"))
    found: list[str] = []
    finished = False
    async with interruptible(), AsyncExitStack() as running:
        receivers = Receivers(
            mailbox=await running.enter_async_context(Mailbox()),
            twilio=await running.enter_async_context(FakeTwilio()),
            hooks=await running.enter_async_context(WebhookReceiver()),
        )
        note("starting Temporal, a registry, a worker and three receivers …")
        settings = {**_WORKER_SETTINGS, **receivers.settings()}
        stack = await running.enter_async_context(
            running_stack(folder, port=free_port(), ui_port=free_port(), settings=settings)
        )
        found = await _play(stack, receivers, as_json=as_json)
        finished = True
        outcome = "everything arrived as expected" if not found else f"not as expected: {len(found)}"
        note(f"{outcome}, {time.monotonic() - begun:.1f} s")
        if keep:
            _invite(stack, folder)
            await stack.broken()
        else:
            note("the stack stops now; `demo --keep` leaves it up to look around")
    if found:
        note(f"logs: {folder}/worker.log, {folder}/temporal.log")
        raise CommandFailed("\n".join(found))
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    if not finished:
        note("interrupted")
        raise typer.Exit(130)


async def _play(stack: Stack, receivers: Receivers, *, as_json: bool) -> list[str]:
    """Subscribe, publish, watch, and compare. Returns the differences."""
    example = Example.read(FOLDER, hooks_url=receivers.hooks.url(""))
    receivers.follow(example.scripts)
    await example.subscribe(stack.registry, receivers.hooks)
    receipts = [await stack.client.publish(event) for event in example.events]
    statuses = await _watch(stack.client, example, receipts, as_json=as_json)
    got = Received.by(receivers)
    found = await differences(example, got=got, receipts=receipts, statuses=statuses, registry=stack.registry)
    if as_json:
        print_json(_answer(stack, statuses, got, found))
    else:
        _show(stack, example, got)
    return found


async def _watch(client: Client, example: Example, receipts: list[Receipt], *, as_json: bool) -> dict[str, Status]:
    """How each event stands, by its id, once all have settled or the time is up; shown live where somebody watches."""
    statuses: dict[str, Status] = {}
    loop = asyncio.get_running_loop()
    end = loop.time() + SETTLE_TIMEOUT
    screen = console(stderr=as_json)
    with Live(_standing(example, receipts, statuses), console=screen, auto_refresh=False) as live:
        while loop.time() < end:
            waiting = [event for event in example.distinct_events if not (s := statuses.get(event.id)) or not s.settled]
            if not waiting:
                break
            asked = await asyncio.gather(*map(client.status, waiting), return_exceptions=True)
            for status in asked:
                if isinstance(status, Status):
                    statuses[status.id] = status
                elif not isinstance(status, BellwireError):
                    raise status
            live.update(_standing(example, receipts, statuses), refresh=True)
            await asyncio.sleep(LOOK_EVERY)
    if not screen.is_terminal:
        screen.print()
    return statuses


def _standing(example: Example, receipts: list[Receipt], statuses: Mapping[str, Status]) -> Table:
    repeated = {receipt.event_id for receipt in receipts if receipt.duplicate}
    rows = []
    for event in example.distinct_events:
        status = statuses.get(event.id)
        rows.append(
            (
                event.id,
                event.type,
                example.tenants.get(event.tenant or "", "all tenants"),
                "twice" if event.id in repeated else "once",
                "settled" if status and status.settled else "running",
                in_counts(status.counts) if status else "",
                ", ".join(f"{one.subscription_id}: {one.reason}" for one in status.unsettled if one.reason)
                if status
                else "",
            )
        )
    columns = ("event", "type", "for", "published", "state", "deliveries", "waiting for")
    return table(columns, rows, title="What Bellwire says")


def _show(stack: Stack, example: Example, got: Received) -> None:
    print_table(("to", "subject"), [(mail.to, mail.title) for mail in got.mails], title="What the mail server got")
    print_table(("to", "text"), [(sms.to, sms.title) for sms in got.sms], title="What the SMS provider got")
    hooks = [
        (hook.path, hook.event, ", ".join(map(str, hook.answers)), "good" if hook.verified else "BAD")
        for hook in got.webhooks
    ]
    print_table(("path", "event", "answered", "signatures"), hooks, title="What the webhook receiver got")
    names = ", ".join(example.tenants.values())
    console().print(f"{len(example.subscriptions)} subscriptions of {names}; their runs in the Temporal UI: {stack.ui}")


def _answer(stack: Stack, statuses: Mapping[str, Status], got: Received, found: list[str]) -> dict[str, Any]:
    return {
        "ui": stack.ui,
        "events": {name: status.model_dump(mode="json") for name, status in statuses.items()},
        "mails": [{"to": mail.to, "subject": mail.title} for mail in got.mails],
        "sms": [{"to": sms.to, "text": sms.title} for sms in got.sms],
        "webhooks": [{**asdict(hook), "ids": sorted(hook.ids)} for hook in got.webhooks],
        "differences": found,
    }


def _invite(stack: Stack, folder: Path) -> None:
    note(f"Temporal UI: {stack.ui}\nlogs: {folder}\nin another terminal:")
    for name, value in {**stack.variables, **DEV_SETTINGS}.items():
        note(f"  export {name}='{value}'")
    note("  python -m starter events list\nCtrl-C stops everything.")
