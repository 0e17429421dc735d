"""Hooks against servers that answer byte by byte as they are told, and what of it tenants see."""

import asyncio
import gzip
import zlib
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from activities.chat.opening import open_chat
from activities.egress.name_lookups import requesting_tenant
from activities.egress.policy import Egress
from activities.providers.accounts import Accounts
from activities.providers.hooks import Hooks
from activities.providers.http import provider_session
from activities.providers.parts import ProviderParts
from activities.rendering.renderer import Renderer
from activities.sending.exchanges import keeping_exchanges
from bellwire.deliveries import Outcome
from bellwire.exchanges import KeepExchanges
from bellwire.registry import Registry
from bellwire.targets import Channel
from tests.activities.chat.channels import TIMEOUT, request_for
from tests.activities.listeners import serving

GONE = b'{"errcode": 93000, "errmsg": "canary7f3a"}'


async def answered(
    folder: Path, channel: Channel, target: dict[str, Any], *, body: bytes, head: str = "", details: bool = True
) -> Outcome:
    """The outcome of a post to a hook that answers 200 with these headers and this body."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n{head}\r\n".encode() + body)

    registry = await Registry.open(f"sqlite:///{folder}/registry.db")
    egress = Egress(allow=[ip_network("127.0.0.0/8")], allow_http=True, ports=None, details=details)
    async with egress.session(timeout=TIMEOUT) as untrusted, provider_session() as session, serving(answer) as port:
        hooks = Hooks(untrusted, egress, timeout=TIMEOUT)
        parts = ProviderParts(hooks=hooks, session=session, renderer=Renderer(), registry=registry)
        attempt = keeping_exchanges(open_chat(Accounts(), parts)[channel].attempt, KeepExchanges.ALL)
        request = request_for(
            {"channel": str(channel), "webhook": f"http://127.0.0.1:{port}/hook?key=k3y-of-it", **target}
        )
        outcome = await attempt(request)
    await registry.close()
    return outcome


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [
        ("gzip", gzip.compress),
        ("GZIP", gzip.compress),
        ("deflate", zlib.compress),
        ("identity", bytes),
        ("gzip", bytes),
    ],
)
async def test_a_hook_may_compress_its_answer(
    tmp_path: Path, encoding: str, compress: Callable[[bytes], bytes]
) -> None:
    head = f"content-encoding: {encoding}\r\n"
    outcome = await answered(tmp_path, Channel.WECOM, {}, body=compress(GONE), head=head)
    assert (outcome.reason, outcome.disable) == ("WeCom 93000", True)


async def test_a_compressed_answer_is_read_as_far_as_others(tmp_path: Path) -> None:
    huge = gzip.compress(b" " * 10_000_000 + GONE)
    outcome = await answered(tmp_path, Channel.WECOM, {}, body=huge, head="content-encoding: gzip\r\n")
    assert outcome.reason == "WeCom 200"


@pytest.mark.parametrize("details", [True, False])
async def test_what_a_private_network_answers_is_for_the_operator_only(tmp_path: Path, details: bool) -> None:
    outcome = await answered(tmp_path, Channel.WECOM, {}, body=GONE, details=details)
    shown = f"{outcome.response}{outcome.exchanges}"
    assert ("canary7f3a" in shown) is details


async def test_the_signature_of_a_bot_is_in_no_exchange(tmp_path: Path) -> None:
    outcome = await answered(tmp_path, Channel.FEISHU, {"secret": "SEC-of-the-bot"}, body=b'{"code": 0}')
    (exchange,) = outcome.exchanges
    assert '"sign": "[redacted]"' in exchange.request_body
    assert "k3y-of-it" not in str(exchange)


async def test_names_of_hooks_are_looked_up_for_their_tenant(tmp_path: Path) -> None:
    await answered(tmp_path, Channel.WECOM, {}, body=GONE)
    assert requesting_tenant.get() == "acme"
