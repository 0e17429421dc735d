"""Addresses, credentials, access tokens and texts of every channel are written nowhere but into the registry, sealed."""

import asyncio
import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bellwire import Event, Subscription
from bellwire.keys.keyring import new_entry
from starter.local.processes import free_port
from starter.local.receivers.providers.fake import FakeProvider
from tests.acceptance.conftest import System, running_gateway, running_system
from tests.acceptance.searching import exchanges, files, found_in, histories, page
from tests.activities.applications import EVERY_DOUBLE, variables_of
from tests.activities.doubles import CANARY, AccountDouble, Double, name_of

#: Addresses of each channel: one accepts, one refuses at first, one refuses for good.
ACCEPTS, DEFERS, REJECTS = range(3)
#: What is in no text by chance has at least so many characters.
SHORTEST = 8
#: The secrets with which robots check signatures.
SIGNING = "SECcanarysign8b1e"
#: What histories contain without keys: the event.
PUBLISHED = {"data", "subject"}
TEMPLATES = {
    **dict.fromkeys(
        ("chat.title.txt", "chat.txt", "email.subject.txt", "email.txt", "push.title.txt"), "{rendered} {data}"
    ),
    **dict.fromkeys(("push.txt", "sms.txt"), "{rendered} {data}"),
    "wechat.json": '{{"thing1": "{rendered}", "thing2": {data}}}',
}


def templates(folder: Path, rendered: str) -> Path:
    """Templates of every channel that render, and that fail with an error that quotes data."""
    for kind, data in {
        "canary.all": "{{ data.name }}",
        "canary.failing": "{{ {}[data.name] }} {{ data.name + 1 }}",
    }.items():
        (folder / kind).mkdir(parents=True)
        for part, text in TEMPLATES.items():
            (folder / kind / part).write_text(text.format(rendered=rendered, data=data))
    return folder


def event(kind: str, texts: Mapping[str, str]) -> Event:
    data = {"name": texts["data"], "url": f"https://shop.example/{texts['data']}"}
    return Event(source="/canaries", type=f"canary.{kind}", subject=texts["subject"], data=data)


async def subscribe(system: System, name: str, double: Double) -> None:
    for number in (ACCEPTS, DEFERS, REJECTS):
        target = double.target(number)
        if name in {"dingtalk", "feishu"}:
            target["secret"] = SIGNING
        subscription = Subscription.model_validate(
            {
                "id": name_of(number) if name == "poll" else f"{name}-{number}",
                "types": ["canary.*"] if number == ACCEPTS else ["canary.all"],
                "target": target,
                "retry_schedule": [0.3] * 5,
            }
        )
        secret = await system.registry.subscriptions.create(subscription)
        if secret:
            double.expect(number, secret.get_secret_value())
    if double.refuses:
        double.defer(DEFERS)
        double.reject(REJECTS)


def leaves(value: Any) -> Iterator[str]:
    """All strings within a target."""
    if isinstance(value, dict):
        for each in value.values():
            yield from leaves(each)
    elif isinstance(value, str):
        yield value


def fakes(double: Double) -> list[Any]:
    return [each for each in vars(double).values() if hasattr(each, "tokens")]


def addresses(doubles: Mapping[str, Double]) -> dict[str, str]:
    """The addresses of all channels by name, and what providers write about them."""
    found = {
        f"address {name} {number} {nth}": text
        for name, double in doubles.items()
        for number in (ACCEPTS, DEFERS, REJECTS)
        for nth, text in enumerate(leaves(double.target(number)))
        if len(text) >= SHORTEST and text not in EVERY_DOUBLE
    }
    return {**found, "canary": CANARY}


def credentials(doubles: Mapping[str, Double], variables: Mapping[str, str]) -> dict[str, str]:
    """The secrets of accounts and hooks, and the access tokens that were issued."""
    configured = {
        f"secret {name} {nth}": line
        for name, value in variables.items()
        if name.startswith(("BELLWIRE_ACCOUNT_SECRETS__", "BELLWIRE_SMS_SECRETS__")) or name.endswith("_TOKEN")
        for nth, line in enumerate(value.splitlines())
        if not line.startswith("-----")
    }
    issued = {
        f"token {name} {nth}": token
        for name, double in doubles.items()
        for fake in fakes(double)
        for nth, token in enumerate(fake.tokens.issued if isinstance(fake, FakeProvider) else fake.tokens)
    }
    signatures = {
        f"signature {name}": fake.signature
        for name, double in doubles.items()
        for fake in fakes(double)
        if hasattr(fake, "signature")
    }
    return {**configured, **issued, **signatures, "signing": SIGNING}


async def deliver(system: System, texts: Mapping[str, str], *kinds: str) -> None:
    for kind in kinds:
        status = await system.client.wait(await system.client.publish(event(kind, texts)), timeout=120)
        assert status.settled


async def call_back(system: System, folder: Path, double: AccountDouble) -> None:
    """What WeChat tells the gateway of a user: of a message, of what the user agrees to, and with a wrong signature."""
    openid, wechat = double.target(ACCEPTS)["openid"], double.fake
    (message, *_) = [each for each in wechat.accepted if each.recipient == openid]
    async with running_gateway(system, log=folder / "gateway.log") as gateway:
        wechat.callbacks.url = f"{gateway}/callbacks/wechat/default"
        wechat.report(message)
        wechat.choose(openid, {"paid": "accept"})
        wechat.change(openid, {"paid": "reject"})
        wechat.callbacks.send(openid, "subscribe", {})
        await wechat.callbacks.sent()
        assert wechat.callbacks.statuses == [200] * 4
        assert (await wechat.callbacks.post(f"<xml><FromUserName>{openid}</FromUserName></xml>", token="wrong"))[
            0
        ] == 403
        unsigned = f"{wechat.callbacks.url}?openid={openid}"
        async with aiohttp.ClientSession() as session, session.get(unsigned) as response:
            assert response.status == 403


@pytest.mark.parametrize(
    "keys", ["", new_entry("canary")], ids=["without keys they are found", "with keys they are not"]
)
@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_private_data_of_every_channel_is_written_nowhere(tmp_path: Path, keys: str) -> None:
    folder, metrics = tmp_path / "system", f"127.0.0.1:{free_port()}"
    folder.mkdir()
    texts = {name: f"{name[0]}{secrets.token_hex(8)}" for name in ("data", "subject", "rendered")}
    async with AsyncExitStack() as receivers:
        doubles = {name: await receivers.enter_async_context(opened()) for name, opened in EVERY_DOUBLE.items()}
        wechat = doubles["wechat"]
        assert isinstance(wechat, AccountDouble)
        settings = {
            **variables_of(doubles.values(), tmp_path),
            "BELLWIRE_ACCOUNT_SECRETS__CALLBACK": wechat.fake.callbacks.token,
            "BELLWIRE_TEMPLATES": str(templates(tmp_path / "templates", texts["rendered"])),
            "BELLWIRE_METRICS_ADDRESS": metrics,
            "BELLWIRE_ENCRYPTION_KEYS": keys,
            "BELLWIRE_KEEP_EXCHANGES": "all",
            "BELLWIRE_LOG_LEVEL": "DEBUG",
        }
        accounts = json.loads((tmp_path / "accounts.json").read_text())
        accounts["wechat"]["default"]["callback_token"] = "BELLWIRE_ACCOUNT_SECRETS__CALLBACK"
        (tmp_path / "accounts.json").write_text(json.dumps(accounts))
        async with running_system(folder, database=folder / "temporal.db", **settings) as system:
            await asyncio.gather(*(subscribe(system, name, double) for name, double in doubles.items()))
            await deliver(system, texts, "all", "few", "failing")
            for double in doubles.values():
                for fake in fakes(double):
                    if isinstance(fake, FakeProvider):
                        fake.tokens.revoke()
            await deliver(system, texts, "few")
            await call_back(system, folder, wechat)
            private = {**addresses(doubles), **credentials(doubles, settings), **texts}
            shown = set(credentials(doubles, settings))
            await receivers.aclose()
            await deliver(system, texts, "few")
            places = {"history": await histories(system), "metrics": await page(f"http://{metrics}/metrics")}
            kept, while_running = exchanges(folder), files(folder)
    written = {name: text + while_running[name] for name, text in files(folder).items()}
    found = found_in(private, {**places, **written})
    tokens = {name for name in private if name.startswith("token ")}
    assert {name.split()[1] for name in tokens} >= {"wechat", "wecom-application", "dingtalk-notice", "fcm", "apns"}
    if keys:
        assert found == {place: set() for place in ("history", "metrics", "log", "registry", "temporal")}
        return
    assert (found["log"], found["metrics"]) == (set(), set())
    assert (found["history"], found["temporal"]) == (PUBLISHED, PUBLISHED)
    assert found["registry"] >= {*PUBLISHED, *addresses(doubles)}
    assert found_in(private, {"exchanges": kept})["exchanges"] & shown == set()
