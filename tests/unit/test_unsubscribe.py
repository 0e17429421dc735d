"""Unsubscribe pages: only a POST of the one-click form unsubscribes, and responses reveal nothing."""

import asyncio
import base64
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import NamedTuple

import aiohttp
import pytest
import uvicorn

from bellwire.email.unsubscribe_links import LinkKeys, UnsubscribeLinks
from bellwire.registry import Registry
from bellwire.service.settings import Settings
from bellwire.suppressions import Suppression, SuppressionReason
from bellwire.targets import Channel
from starter.gateway.app import application
from starter.local.processes import free_port
from tests.factories import subscription

ANN, BOB = "Ann@example.com", "bob@example.com"
KEY = base64.b64encode(b"k" * 32).decode()
KEYS = LinkKeys(KEY)
ONE_CLICK = {"List-Unsubscribe": "One-Click"}


class Gateway(NamedTuple):
    session: aiohttp.ClientSession
    registry: Registry

    async def suppressed(self, name: str = "sub") -> dict[str, SuppressionReason]:
        return await self.registry.suppressions.among(Channel.EMAIL, [ANN, BOB], subscription_id=name)


@asynccontextmanager
async def serving(folder: Path, **given: str | None) -> AsyncIterator[Gateway]:
    settings = Settings.read(**({"public_url": "https://bell.example", "link_key": KEY} | given))
    registry = await Registry.open(f"sqlite:///{folder}/registry.db")
    await registry.migrate()
    for name in ("sub", "other"):
        await registry.subscriptions.create(subscription({"channel": "email", "to": [ANN, BOB]}, id=name))
    port = free_port()
    config = uvicorn.Config(application(settings, registry), port=port, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            yield Gateway(session, registry)
    finally:
        server.should_exit = True
        await task
        await registry.close()


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with serving(tmp_path) as opened:
        yield opened


def link(name: str = "sub", address: str = ANN) -> str:
    return (
        UnsubscribeLinks("https://bell.example", KEY)
        .unsubscribe_url(name, address)
        .removeprefix("https://bell.example")
    )


async def test_one_click_unsubscribes_one_recipient_from_one_subscription(gateway: Gateway) -> None:
    async with gateway.session.post(link(), data=ONE_CLICK, allow_redirects=False) as response:
        assert (response.status, "no more of these emails" in await response.text()) == (200, True)
    assert await gateway.suppressed() == {ANN: SuppressionReason.UNSUBSCRIBED}
    assert await gateway.suppressed("other") == {}
    [entry] = await gateway.registry.suppressions.list()
    assert (entry.channel, entry.address, entry.subscription_id) == (Channel.EMAIL, ANN, "sub")


async def test_unsubscribing_twice_adds_one_suppression(gateway: Gateway) -> None:
    for _ in range(2):
        async with gateway.session.post(link(), data=ONE_CLICK) as response:
            assert response.status == 200
    assert len(await gateway.registry.suppressions.list()) == 1


async def test_an_existing_suppression_keeps_its_reason(gateway: Gateway) -> None:
    await gateway.registry.suppressions.add(
        Suppression(channel=Channel.EMAIL, address=ANN, reason=SuppressionReason.COMPLAINED, subscription_id="sub")
    )
    async with gateway.session.post(link(), data=ONE_CLICK) as response:
        assert response.status == 200
    assert await gateway.suppressed() == {ANN: SuppressionReason.COMPLAINED}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_opening_the_link_changes_nothing(gateway: Gateway, method: str) -> None:
    async with gateway.session.request(method, link()) as response:
        page = await response.text()
    assert response.status == 200
    assert response.headers["cache-control"] == "no-store"
    assert ('<form method="post">' in page and "<script" not in page) is (method == "GET")
    assert "example.com" not in page
    assert await gateway.suppressed() == {}


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_other_methods_are_refused(gateway: Gateway, method: str) -> None:
    async with gateway.session.request(method, link(), data=ONE_CLICK) as response:
        assert response.status == 405
    assert await gateway.suppressed() == {}


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/x-www-form-urlencoded", b"List-Unsubscribe=One-Click"),
        ("application/x-www-form-urlencoded; charset=utf-8", b"List-Unsubscribe=One-Click\r\n"),
        ("text/plain", b"List-Unsubscribe=One-Click"),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="List-Unsubscribe"\r\n\r\nOne-Click\r\n--x--\r\n',
        ),
    ],
)
async def test_mail_services_post_the_form_in_either_encoding(gateway: Gateway, content_type: str, body: bytes) -> None:
    async with gateway.session.post(link(), data=body, headers={"content-type": content_type}) as response:
        assert response.status == 200
    assert await gateway.suppressed() == {ANN: SuppressionReason.UNSUBSCRIBED}


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/x-www-form-urlencoded", b""),
        ("application/x-www-form-urlencoded", b"List-Unsubscribe=Two-Click"),
        ("application/x-www-form-urlencoded", b"\xff=\xfe&" * 20),
        ("application/x-www-form-urlencoded", b"List-Unsubscribe=One-Click&x=" + b"x" * 5000),
        ("multipart/form-data", b"List-Unsubscribe=One-Click"),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nOne-Click\r\n--x--"),
    ],
)  # fmt: skip
async def test_another_form_changes_nothing(gateway: Gateway, content_type: str, body: bytes) -> None:
    async with gateway.session.post(link(), data=body, headers={"content-type": content_type}) as response:
        assert response.status == 400
    assert await gateway.suppressed() == {}


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_every_bad_link_gets_the_same_not_found_page(gateway: Gateway, method: str) -> None:
    good = link()
    foreign = LinkKeys(base64.b64encode(b"x" * 32).decode()).unsubscribe_token("sub", ANN)
    responses = set()
    for bad in (
        good[:-1],
        good[:-4] + "AAAA",
        f"/unsubscribe/{foreign}",
        "/unsubscribe/x",
        "/unsubscribe/" + "A" * 5000,
    ):
        async with gateway.session.request(method, bad, data=ONE_CLICK) as response:
            responses.add((response.status, await response.text()))
    assert len(responses) == 1
    assert responses.pop()[0] == 404
    assert await gateway.suppressed() == {}


async def test_a_former_recipient_sees_success_and_nothing_is_suppressed(gateway: Gateway) -> None:
    for gone in (link(address="cat@example.com"), link("unknown")):
        async with gateway.session.post(gone, data=ONE_CLICK) as response:
            assert response.status == 200
    assert await gateway.registry.suppressions.list() == []


async def test_every_response_forbids_caches_frames_scripts_and_referrers(gateway: Gateway) -> None:
    requests: tuple[tuple[str, str, dict[str, str] | None], ...] = (
        ("GET", link(), None),
        ("POST", link(), ONE_CLICK),
        ("POST", link(), {}),
        ("GET", link() + "x", None),
    )
    for method, path, data in requests:
        async with gateway.session.request(method, path, data=data) as response:
            headers = response.headers
        assert headers["content-type"] == "text/html; charset=utf-8"
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"].startswith("default-src 'none'; style-src 'sha256-")
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "set-cookie" not in headers


async def test_the_response_is_503_while_the_registry_fails(gateway: Gateway, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "registry.db")) as database:
        database.execute("DROP TABLE suppressions")
    async with gateway.session.post(link(), data=ONE_CLICK) as response:
        assert (response.status, response.headers["retry-after"]) == (503, "120")


async def test_links_signed_with_an_old_key_work_while_the_key_is_kept(tmp_path: Path) -> None:
    new = base64.b64encode(b"n" * 32).decode()
    async with serving(tmp_path, link_key=f"{new},{KEY}") as gateway:
        async with gateway.session.post(link(), data=ONE_CLICK) as response:
            assert response.status == 200
        assert await gateway.suppressed() == {ANN: SuppressionReason.UNSUBSCRIBED}


async def test_without_a_key_there_is_no_unsubscribe_page(tmp_path: Path) -> None:
    async with serving(tmp_path, link_key=None) as gateway, gateway.session.get(link()) as response:
        assert response.status == 404
