"""The codec server: its tokens, namespace, size limit and origins."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvicorn
from google.protobuf.json_format import MessageToDict
from temporalio.api.common.v1 import Payload, Payloads

from bellwire import KeyRing
from bellwire.keys.keyring import new_entry
from bellwire.registry import Registry
from bellwire.service.settings import Settings, SettingsInvalid
from bellwire.temporal.codec import Codec
from starter.gateway.app import application
from starter.gateway.codec_server import MAX_BODY
from starter.local.processes import free_port

KEYS = new_entry("one")
TOKEN, OTHER = "a-token-of-twenty-characters", "another-token-of-the-gateway"
UI = "https://temporal.example"
PLAIN = Payload(metadata={"encoding": b"json/plain"}, data=b'"ann@example.com"')
AUTHORIZED = {"authorization": f"Bearer {TOKEN}", "x-namespace": "default"}


def in_json(*payloads: Payload) -> dict[str, Any]:
    return dict(MessageToDict(Payloads(payloads=payloads)))


async def encrypted(*payloads: Payload) -> dict[str, Any]:
    return in_json(*await Codec(KeyRing.parse(KEYS)).encode(payloads))


@dataclass
class Gateway:
    session: aiohttp.ClientSession
    url: str

    async def post(self, path: str, body: Any, **headers: str) -> tuple[int, Any]:
        """Status and JSON of the response. Header names have _ for -; empty headers are omitted."""
        given = AUTHORIZED | {name.replace("_", "-"): value for name, value in headers.items()}
        data = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
        sent = {name: value for name, value in given.items() if value}
        async with self.session.post(f"{self.url}{path}", data=data, headers=sent) as response:
            return response.status, await response.json() if response.content_type == "application/json" else None


@asynccontextmanager
async def serving(folder: Path, **settings: Any) -> AsyncIterator[Gateway]:
    port = free_port()
    registry = await Registry.open(f"sqlite:///{folder / 'registry.db'}")
    app = application(Settings.read(**settings), registry)
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None, lifespan="off"))
    running = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(10):
            while not server.started:
                await asyncio.sleep(0.01)
        async with aiohttp.ClientSession() as session:
            yield Gateway(session, f"http://127.0.0.1:{port}")
    finally:
        server.should_exit = True
        await running
        await registry.close()


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    given = {"encryption_keys": KEYS, "codec_tokens": f"{OTHER}, {TOKEN}", "codec_origins": UI}
    async with serving(tmp_path, **given) as gateway:
        yield gateway


async def test_payloads_are_decrypted_and_encrypted(gateway: Gateway) -> None:
    status, shown = await gateway.post("/codec/decode", await encrypted(PLAIN, PLAIN))
    assert (status, shown) == (200, in_json(PLAIN, PLAIN))
    status, hidden = await gateway.post("/codec/encode", in_json(PLAIN))
    assert status == 200
    assert hidden["payloads"][0]["metadata"].keys() == {"encoding", "encryption-key-id"}
    assert await gateway.post("/codec/decode", hidden) == (200, in_json(PLAIN))
    assert await gateway.post("/codec/decode", in_json(PLAIN)) == (200, in_json(PLAIN))
    assert await gateway.post("/codec/decode", {}) == (200, {})


@pytest.mark.parametrize(
    "authorization",
    ["", TOKEN, "Bearer", "Bearer ", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer \xfc"],
)
@pytest.mark.parametrize("path", ["/codec/encode", "/codec/decode"])
async def test_without_a_token_nothing_is_decrypted(gateway: Gateway, path: str, authorization: str) -> None:
    status, body = await gateway.post(path, await encrypted(PLAIN), authorization=authorization)
    assert status == 401
    assert "BELLWIRE_CODEC_TOKENS" in body["error"]
    assert "ann" not in json.dumps(body)


async def test_each_of_several_tokens_is_valid(gateway: Gateway) -> None:
    assert (await gateway.post("/codec/decode", {}, authorization=f"bearer {OTHER}"))[0] == 200


@pytest.mark.parametrize("namespace", ["", "other", "Default"])
async def test_another_namespace_is_refused(gateway: Gateway, namespace: str) -> None:
    status, body = await gateway.post("/codec/decode", await encrypted(PLAIN), x_namespace=namespace)
    assert status == 403
    assert "X-Namespace" in body["error"]


async def test_the_namespace_comes_from_temporals_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEMPORAL_NAMESPACE", "acme")
    async with serving(tmp_path, encryption_keys=KEYS, codec_tokens=TOKEN) as gateway:
        assert (await gateway.post("/codec/decode", {}, x_namespace="acme"))[0] == 200
        assert (await gateway.post("/codec/decode", {}))[0] == 403


async def test_a_body_that_is_too_large_is_refused(gateway: Gateway) -> None:
    status, body = await gateway.post("/codec/decode", b" " * (MAX_BODY + 1))
    assert (status, "bytes" in body["error"]) == (413, True)
    large = Payload(data=b"x" * 2_000_000)
    assert await gateway.post("/codec/decode", await encrypted(large)) == (200, in_json(large))


@pytest.mark.parametrize(
    "body",
    [b"", b"[", b"[1]", b"\xff", b'{"payloads": 1}', b'{"payloads": [{"data": 5}]}', b"[" * 100_000],
)
async def test_an_invalid_body_is_refused(gateway: Gateway, body: bytes) -> None:
    status, response = await gateway.post("/codec/decode", body)
    assert (status, "payloads" in response["error"]) == (400, True)


async def test_a_missing_key_is_named(gateway: Gateway) -> None:
    foreign = in_json(*await Codec(KeyRing.parse(new_entry("other"))).encode([PLAIN]))
    status, body = await gateway.post("/codec/decode", foreign)
    assert (status, "'other'" in body["error"]) == (422, True)


async def test_only_the_origin_of_the_ui_is_allowed(gateway: Gateway) -> None:
    preflight = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,x-namespace"}
    url = f"{gateway.url}/codec/decode"
    async with gateway.session.options(url, headers={"origin": UI, **preflight}) as response:
        assert (response.status, response.headers["access-control-allow-origin"]) == (200, UI)
        allowed = response.headers["access-control-allow-headers"].lower()
        assert all(name in allowed for name in ("authorization", "x-namespace", "content-type"))
    async with gateway.session.options(url, headers={"origin": "https://eve.example", **preflight}) as response:
        assert "access-control-allow-origin" not in response.headers
    async with gateway.session.post(url, json={}, headers={"origin": UI, **AUTHORIZED}) as response:
        assert (response.status, response.headers["access-control-allow-origin"]) == (200, UI)
    async with gateway.session.options(f"{gateway.url}/ready", headers={"origin": UI, **preflight}) as response:
        assert "access-control-allow-origin" not in response.headers


async def test_after_a_login_the_cookie_suffices(gateway: Gateway) -> None:
    """As Temporal's UI does: it sends cookies, and no token."""
    login, decode = f"{gateway.url}/codec/login", f"{gateway.url}/codec/decode"
    from_ui = {"origin": UI, "x-namespace": "default"}
    jar = aiohttp.CookieJar(unsafe=True)  # unsafe: allows cookies of an IP address
    async with aiohttp.ClientSession(cookie_jar=jar) as browser:
        for token in ("", "guessed", TOKEN[:-1], "x" * 5_000):
            async with browser.post(login, data={"token": token}) as response:
                assert response.status in {401, 413}
                assert "set-cookie" not in response.headers
        async with browser.post(decode, json={}, headers=from_ui) as response:
            assert response.status == 401
        async with browser.get(login) as response:
            assert (response.status, response.headers["cache-control"]) == (200, "no-store")
        async with browser.post(login, data={"token": TOKEN}) as response:
            assert response.status == 200
            assert TOKEN not in await response.text()
            for part in ("HttpOnly", "Path=/codec", "SameSite=lax"):
                assert part in response.headers["set-cookie"]
        async with browser.post(decode, json=await encrypted(PLAIN), headers=from_ui) as response:
            assert (response.status, await response.json()) == (200, in_json(PLAIN))
            assert response.headers["access-control-allow-credentials"] == "true"
            assert response.headers["access-control-allow-origin"] == UI
        # A page of another origin can make a browser send the cookie, but not the required header.
        async with browser.post(decode, json={}, headers={"origin": "https://eve.example"}) as response:
            assert (response.status, "access-control-allow-origin" in response.headers) == (403, False)


@pytest.mark.parametrize("settings", [{}, {"encryption_keys": KEYS}], ids=["no keys", "no tokens"])
async def test_without_keys_or_tokens_there_is_no_codec_server(tmp_path: Path, settings: dict[str, str]) -> None:
    async with serving(tmp_path, **settings) as gateway:
        for path in ("encode", "decode"):
            assert (await gateway.post(f"/codec/{path}", {}))[0] == 404
        async with gateway.session.get(f"{gateway.url}/ready") as response:
            assert response.status == 200


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"codec_tokens": TOKEN}, "BELLWIRE_CODEC_TOKENS: needs BELLWIRE_ENCRYPTION_KEYS"),
        (
            {"codec_tokens": f"{TOKEN},short", "encryption_keys": KEYS},
            "BELLWIRE_CODEC_TOKENS: must be tokens of at least",
        ),
        ({"codec_tokens": "ü" * 30, "encryption_keys": KEYS}, "BELLWIRE_CODEC_TOKENS: must be tokens of at least"),
        ({"codec_tokens": "two words of twenty-four", "encryption_keys": KEYS}, "BELLWIRE_CODEC_TOKENS: must be"),
        ({"codec_origins": "temporal.example"}, "BELLWIRE_CODEC_ORIGINS: must be a scheme and host"),
        ({"codec_origins": "https://temporal.example/ui"}, "BELLWIRE_CODEC_ORIGINS: must be a scheme and host"),
        ({"codec_origins": "*"}, "BELLWIRE_CODEC_ORIGINS: must be a scheme and host"),
        ({"encryption_keys": "one:AAAA"}, "BELLWIRE_ENCRYPTION_KEYS: key one: has 3 bytes, must have 32"),
    ],
)
def test_errors_of_settings_name_them_and_hide_their_values(settings: dict[str, str], problem: str) -> None:
    with pytest.raises(SettingsInvalid) as refused:
        Settings.read(**settings)
    assert problem in str(refused.value)
    assert TOKEN not in str(refused.value)


def test_settings_show_neither_keys_nor_tokens() -> None:
    settings = Settings.read(encryption_keys=KEYS, codec_tokens=TOKEN)
    assert KEYS not in repr(settings)
    assert TOKEN not in repr(settings)
    assert settings.ring is settings.ring
    assert settings.ring is not None
    assert settings.ring.first == "one"
