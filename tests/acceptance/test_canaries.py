"""Private data is written nowhere: canaries pass through the whole system, and everything that it writes is searched."""

import asyncio
import base64
import secrets
import sqlite3
from pathlib import Path

import aiohttp
import pytest

from bellwire import Event, Subscription
from bellwire.contract import NOTIFY, QUEUE
from bellwire.keys.keyring import new_entry, ring_of
from bellwire.registry.db.sealed import seal
from bellwire.suppressions import Suppression, SuppressionReason
from bellwire.targets import Channel
from starter.local.processes import free_port
from starter.local.receivers.twilio import SmsResponse
from starter.local.receivers.webhooks import WebhookResponse
from tests.acceptance.conftest import System, running_gateway, running_system
from tests.acceptance.searching import exchanges, files, found_in, histories, page

#: The private data that each canary stands for.
NAMES = (
    *(
        "data",
        "name",
        "subject",
        "extension",
        "address",
        "local",
        "refused",
        "later",
        "remaining_recipients",
        "url",
        "suppressed",
    ),
    *("secret", "rendered", "words", "header", "relayed", "provider", "broken", "target", "part", "consented"),
)
#: The canaries that are stored without keys, by place. The others must not be stored at all.
KEPT = {
    "registry": {*NAMES} - {"rendered", "broken"},
    "history": {"data", "name", "subject", "extension", "broken"},
    "temporal": {"data", "name", "subject", "extension", "broken"},
}


#: The public URL in links of mails.
PUBLIC = "https://bellwire.example"


class Canaries(dict[str, str]):
    """Random strings by name."""

    def __init__(self) -> None:
        super().__init__({name: f"{name}{secrets.token_hex(8)}" for name in NAMES})
        self.number = f"+1415{secrets.randbelow(10**7):07}"
        self.link_key = base64.b64encode(secrets.token_bytes(32)).decode()
        self.key = "whsec_" + base64.b64encode(f"{self['secret']}{secrets.token_hex(8)}".encode()).decode()

    @property
    def texts(self) -> dict[str, str]:
        """All by name."""
        return {**self, "number": self.number, "key": self.key, "link key": self.link_key}


def templates(folder: Path, canaries: Canaries) -> Path:
    """Templates that render, that fail on missing data, and that fail with a Python error that quotes data."""
    for name, text in {
        "canary.fine": f"{canaries['rendered']} {{{{ data.name }}}}",
        "canary.missing": "{{ data.nothing.at.all }} {{ data.name }}",
        "canary.failing": "{{ data.name + 1 }} {{ {}[data.name] }} {{ data[data.name].x }}",
        "canary.computed": "{{ data[data.name].x }}",
    }.items():
        (folder / name).mkdir(parents=True)
        for part in ("email.subject.txt", "email.txt", "sms.txt"):
            (folder / name / part).write_text(text)
    return folder


async def subscribe(system: System, canaries: Canaries) -> None:
    """Subscribe receivers that accept, refuse and throttle, each with private texts in its responses."""
    words, relayed = canaries["words"].encode(), canaries["relayed"]
    address = {
        name: f"{canaries[name]}@example.com"
        for name in ("address", "local", "refused", "later", "remaining_recipients", "target")
    }
    hooks = {
        "took": [WebhookResponse(status=200, body=words)],
        "rejected": [WebhookResponse(status=400, body=words, headers={"x-reason": canaries["header"]})],
        "failed": [WebhookResponse(status=500, body=words)],
        # Once, since it is throttled then.
        "busy": [
            WebhookResponse(status=429, body=words, headers={"retry-after": canaries["header"]}),
            WebhookResponse(status=200),
        ],
        "moved": [WebhookResponse(status=302, headers={"location": f"https://{canaries['header']}.example/"})],
        "garbage": [WebhookResponse(status=200, headers={"content-encoding": canaries["header"]}, body=words)],
        "gone": [WebhookResponse(status=410, body=words)],
        "consented": [WebhookResponse(status=200)],
        "unconsented": [],
    }
    consents = {
        "consented": WebhookResponse(headers={"WebHook-Allowed-Origin": "*"}, body=canaries["consented"].encode()),
        "unconsented": WebhookResponse(
            headers={"WebHook-Allowed-Origin": canaries["consented"]}, body=canaries["consented"].encode()
        ),
    }
    for name, responses in hooks.items():
        path = f"/{canaries['url']}/{name}?key={canaries['url']}"
        if responses:
            system.hooks.script(path.partition("?")[0], *responses, repeat=True)
        if name in consents:
            system.hooks.script_options(path.partition("?")[0], consents[name])
        subscription = Subscription.model_validate(
            {
                "types": ["canary.*"],
                "retry_schedule": [0.2],
                "target": {"channel": "webhook", "url": system.hooks.url(path), "handshake": name in consents},
            }
        )
        await system.registry.subscriptions.create(subscription, secret=canaries.key)
    await system.hook("/notified", "bellwire.*")
    refused = f"<{address['refused']}>: {relayed} user unknown"
    system.mailbox.script(address["refused"], f"550 5.1.1 {refused}", repeat=True)
    for name in ("later", "remaining_recipients"):
        system.mailbox.script(address[name], f"451 4.7.1 <{address[name]}> {relayed}", repeat=True)
    mails: dict[str, str | list[str]] = {
        **{name: address[name] for name in ("address", "refused", "later", "target")},
        "remaining_recipients": [address["local"], address["remaining_recipients"]],
    }
    for name, to in mails.items():
        fields = {"id": f"canary-{name}", "retry_schedule": [0.2]}
        await system.subscribe({"channel": "email", "to": to}, "canary.*", **fields)
    for name, part in {
        "renders": f"{canaries['part']} {{{{ data.name }}}}",
        "fails": f"{{{{ '{canaries['part']}' + 1 }}}} {{{{ data[data.name].x }}}}",
        "lacks": f"{{# {canaries['part']} #}}{{{{ data[data.name].x }}}}",
    }.items():
        await system.subscribe(
            {"channel": "email", "to": address["address"]},
            "canary.*",
            id=f"canary-part-{name}",
            retry_schedule=[0.2],
            templates={"email.text": part},
        )
    system.twilio.script(
        canaries.number,
        SmsResponse(status=400, code=21211, message=f"{canaries.number} {canaries['provider']} is not valid"),
        SmsResponse(status=500, message=canaries["provider"]),
        SmsResponse(status=201, reset=True),
    )
    for _ in range(3):
        await system.subscribe({"channel": "sms", "to": canaries.number}, "canary.*", retry_schedule=[0.2, 0.2])
    suppressed = f"{canaries['suppressed']}@example.com"
    await system.registry.suppressions.add(
        Suppression(channel=Channel.EMAIL, address=suppressed, reason=SuppressionReason.OPERATOR)
    )


def event(canaries: Canaries, kind: str, **fields: str) -> Event:
    return Event.parse(
        {
            "source": "/canaries",
            "type": f"canary.{kind}",
            "subject": canaries["subject"],
            "data": {"secret": canaries["data"], "name": canaries["name"], "to": f"{canaries['address']}@example.com"},
            "customer": canaries["extension"],
            **fields,
        }
    )


async def deliver(system: System, canaries: Canaries) -> None:
    """Publish events with every kind of outcome."""
    kinds = ("fine", "missing", "failing", "computed", "plain")
    receipts = [await system.client.publish(event(canaries, kind)) for kind in kinds]
    receipts += await system.client.publish_many([event(canaries, kind) for kind in kinds])
    for receipt in receipts:
        status = await system.client.wait(receipt, timeout=60)
        assert status.settled
        assert status.counts.delivered
        assert status.counts.exhausted


async def unsubscribe(system: System, folder: Path, canaries: Canaries) -> None:
    """Unsubscribe by the link of a mail, through the gateway."""
    address = f"{canaries['address']}@example.com"
    (link, *_) = [
        mail.headers["List-Unsubscribe"].strip("<>")
        for mail in system.mailbox.mails
        if canaries["part"].encode() in mail.raw
    ]
    async with (
        running_gateway(system, log=folder / "gateway.log") as gateway,
        aiohttp.ClientSession(gateway) as session,
    ):
        async with session.post(link.removeprefix(PUBLIC), data={"List-Unsubscribe": "One-Click"}) as response:
            assert response.status == 200
        for wrong in (link[:-1], f"{PUBLIC}/unsubscribe/{address}"):
            async with session.post(wrong.removeprefix(PUBLIC), data={"to": address}) as response:
                assert response.status == 404
    found = await system.registry.suppressions.among(Channel.EMAIL, [address], subscription_id="canary-part-renders")
    assert found == {address: SuppressionReason.UNSUBSCRIBED}


async def until_notified(system: System) -> None:
    """Wait until tenants are notified of disabled subscriptions."""
    async with asyncio.timeout(60):
        while await system.registry.operational_events.list():
            await asyncio.sleep(0.1)
        while not await system.registry.events.list(type="bellwire.subscription.disabled"):
            await asyncio.sleep(0.1)


async def break_down(system: System, folder: Path, canaries: Canaries, keys: str) -> None:
    """Store a payload and a row that cannot be parsed, both private. Each fails until it is fixed."""
    temporal, log = system.client.temporal, folder / "worker.log"
    odd = await temporal.start_workflow(
        NOTIFY, {"events": [{"id": canaries["broken"]}, canaries["broken"]]}, id="canary-odd", task_queue=QUEUE
    )
    target = f'{{"channel":"email","to":{{"odd":"{canaries["target"]}"}}}}'
    ring = ring_of(keys)
    stored = seal(ring, target, column="subscriptions.target") if ring else target
    with sqlite3.connect(folder / "registry.db") as connection:
        connection.execute("UPDATE subscriptions SET target = ? WHERE id = 'canary-target'", [stored])
    connection.close()
    receipt = await system.client.publish(event(canaries, "plain"))
    async with asyncio.timeout(60):
        while not all(name in log.read_text() for name in ("PayloadInvalid", "ValidationError")):
            await asyncio.sleep(0.1)
    await odd.terminate()
    await system.client.temporal.get_workflow_handle(receipt.workflow_id).terminate()


@pytest.mark.parametrize(
    "keys", ["", new_entry("canary")], ids=["without keys they are found", "with keys they are not"]
)
@pytest.mark.slow
async def test_private_data_is_written_nowhere(tmp_path: Path, keys: str) -> None:
    canaries, folder = Canaries(), tmp_path / "system"
    folder.mkdir()
    metrics = f"127.0.0.1:{free_port()}"
    settings = {
        "BELLWIRE_TEMPLATES": str(templates(tmp_path / "templates", canaries)),
        "BELLWIRE_METRICS_ADDRESS": metrics,
        "BELLWIRE_ENCRYPTION_KEYS": keys,
        "BELLWIRE_LOG_LEVEL": "DEBUG",
        "BELLWIRE_WEBHOOK_ORIGIN": "bellwire.example",
        "BELLWIRE_PUBLIC_URL": PUBLIC,
        "BELLWIRE_LINK_KEY": canaries.link_key,
    }
    async with running_system(folder, database=folder / "temporal.db", **settings) as system:
        await subscribe(system, canaries)
        await deliver(system, canaries)
        await until_notified(system)
        await unsubscribe(system, folder, canaries)
        await break_down(system, folder, canaries, keys)
        assert {one.method for one in system.hooks.received} == {"POST", "OPTIONS"}
        received = b"".join(mail.raw for mail in system.mailbox.mails)
        places = {"history": await histories(system), "metrics": await page(f"http://{metrics}/metrics")}
        while_running = files(folder)
        while_running["registry"] += exchanges(folder)
        readable = {file.name for file in folder.iterdir() if file.stat().st_mode & 0o077}
    assert readable == set()
    assert all(canaries[name].encode() in received for name in ("rendered", "part"))
    found = found_in(
        canaries.texts, {**places, **{name: text + while_running[name] for name, text in files(folder).items()}}
    )
    if keys:
        assert found == {place: set() for place in ("history", "metrics", "log", "registry", "temporal")}
        return
    assert (found["log"], found["metrics"]) == (set(), set())
    for place, names in KEPT.items():
        assert names <= found[place] | ({"secret"} if "key" in found[place] else set())
