"""What may be dialled: the table of addresses, the rules for URLs, and each known way around them on real sockets."""

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from activities.egress import Egress, EgressRefused, is_public
from starter.receivers.hooks import Answer, HookReceiver

LOOPBACK = ip_network("127.0.0.1/32")

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "168.63.129.15",
    "168.63.129.17",
    "169.253.255.255",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2001:200::1",
    "2003::1",
    "2606:4700:4700::1111",
    "2a00:1450:4001:830::200e",
    "::ffff:8.8.8.8",
    "::ffff:808:808",
    "64:ff9b::8.8.8.8",
]
NOT_PUBLIC = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.255",
    "168.63.129.16",
    "169.254.169.254",
    "169.254.170.2",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.8",
    "192.0.0.192",
    "192.0.2.1",
    "192.31.196.1",
    "192.52.193.1",
    "192.88.99.1",
    "192.168.1.1",
    "192.175.48.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::8.8.8.8",
    "::ffff:127.0.0.1",
    "::ffff:7f00:1",
    "::ffff:a9fe:a9fe",
    "::ffff:168.63.129.16",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::10.0.0.1",
    "64:ff9b::169.254.169.254",
    "64:ff9b:1::808:808",
    "64:ff9b:1::1",
    "100::1",
    "100:0:0:1::1",
    "2001::1",
    "2001:0:7f00:1::80ff:fffe",
    "2001:2::1",
    "2001:10::1",
    "2001:20::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "2002:808:808::1",
    "2620:4f:8000::1",
    "3fff::1",
    "4000::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%lo",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
    "2606:4700:4700::1111%eth0",
    "::ffff:8.8.8.8%eth0",
    "",
    "localhost",
    "8.8.8",
    "134744072",
    "0x08080808",
    "010.8.8.8",
    "8.8.8.8 ",
    "[2606:4700:4700::1111]",
    "\uff18.8.8.8",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_addresses_of_the_public_internet_are_public(address: str) -> None:
    assert is_public(address)
    assert is_public(ip_address(address))


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_special_private_and_oddly_written_addresses_are_not(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    ("network", "address", "permitted"),
    [
        ("10.1.0.0/16", "10.1.2.3", True),
        ("10.1.0.0/16", "10.2.2.3", False),
        ("10.1.0.0/16", "::ffff:10.1.2.3", True),
        ("10.1.0.0/16", "64:ff9b::10.1.2.3", True),
        ("10.1.0.0/16", "::10.1.2.3", False),
        ("10.1.0.0/16", "2002:a01:203::1", False),
        ("fd00:1::/32", "fd00:1::5", True),
        ("fd00:1::/32", "fd00:2::5", False),
        ("fe80::/10", "fe80::1%lo", True),
        ("10.1.0.0/16", "8.8.8.8", True),
        ("0.0.0.0/0", "nonsense", False),
    ],
)
def test_the_operator_can_allow_networks(network: str, address: str, permitted: bool) -> None:
    assert Egress(allow=[ip_network(network)], ports=None).permits(address) is permitted


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://app.example/hooks", None),
        ("https://app.example:8443/hooks?a=b", None),
        ("https://8.8.8.8/", None),
        ("https://[2606:4700:4700::1111]/", None),
        ("https://1e100.example.a1/", None),
        ("http://app.example/", "scheme not allowed"),
        ("ftp://app.example/", "scheme not allowed"),
        ("ws://app.example/", "scheme not allowed"),
        ("file:///etc/passwd", "invalid URL"),
        ("https:///x", "invalid URL"),
        ("/hooks", "invalid URL"),
        ("", "invalid URL"),
        ("https://[::1", "invalid URL"),
        ("https://app.example:99999/", "invalid URL"),
        ("https://user@app.example/", "invalid URL"),
        ("https://:secret@app.example/", "invalid URL"),
        ("https://app.example\\@127.0.0.1/", "invalid URL"),
        ("https://app.example:22/", "port not allowed"),
        ("https://app.example:0/", "port not allowed"),
        ("https://127.0.0.1/", "address not allowed"),
        ("https://127.0.0.1./", "address not allowed"),
        ("https://127.1/", "address not allowed"),
        ("https://0/", "address not allowed"),
        ("https://2130706433/", "address not allowed"),
        ("https://0x7f000001/", "address not allowed"),
        ("https://0X7F.1/", "address not allowed"),
        ("https://0177.0.0.1/", "address not allowed"),
        ("https://1.2.3.4.5/", "address not allowed"),
        ("https://①②⑦.⓪.⓪.①/", "address not allowed"),
        ("https://127。0。0。1/", "address not allowed"),
        ("https://\n127.0.0.1/", "address not allowed"),
        ("https://[::1]/", "address not allowed"),
        ("https://[::ffff:7f00:1]/", "address not allowed"),
        ("https://[64:ff9b::7f00:1]/", "address not allowed"),
        ("https://[fe80::1%25lo]/", "address not allowed"),
        ("https://[v1.x]/", None),
    ],
)
def test_a_url_that_breaks_the_policy_by_itself_is_refused(url: str, reason: str | None) -> None:
    egress = Egress(ports=frozenset({443, 8443}))
    if reason is None:
        egress.checked(url)
        return
    with pytest.raises(EgressRefused) as caught:
        egress.checked(url)
    assert caught.value.reason == str(caught.value) == reason


def test_http_and_all_ports_are_for_the_operator_to_allow() -> None:
    Egress(allow_http=True, ports=None).checked("http://app.example:22/")
    Egress(allow=[LOOPBACK], allow_http=True, ports=None).checked("http://127.0.0.1:8000/")
    with pytest.raises(EgressRefused, match="port not allowed"):
        Egress(allow_http=True, ports=frozenset({443})).checked("http://app.example/")


@pytest.mark.parametrize(
    ("family", "target", "reason"),
    [
        (socket.AF_INET, ("127.0.0.1", 443), "address not allowed"),
        (socket.AF_INET6, ("::ffff:127.0.0.1", 443, 0, 0), "address not allowed"),
        (socket.AF_INET, ("8.8.8.8", 22), "port not allowed"),
        (socket.AF_UNIX, ("/run/docker.sock",), "address not allowed"),
    ],
)
def test_no_socket_is_made_for_what_is_refused(family: int, target: tuple[object, ...], reason: str) -> None:
    with pytest.raises(EgressRefused, match=reason):
        Egress(ports=frozenset({443})).socket_factory((family, socket.SOCK_STREAM, 0, "", target))


@dataclass
class Listener:
    port: int
    accepted: int = 0


@asynccontextmanager
async def listening(host: str, port: int = 0) -> AsyncIterator[Listener]:
    """A server that counts the connections it gets, and answers 204 to each."""
    here = Listener(port)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        here.accepted += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, host, port)
    async with server:
        here.port = server.sockets[0].getsockname()[1]
        yield here


BYPASSES = [
    "127.0.0.1",
    "127.0.0.1.",
    "127.1",
    "0",
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "①②⑦.⓪.⓪.①",
    "127。0。0。1",
    "[::1]",
    "[::]",
    "[::ffff:7f00:1]",
    "[::ffff:127.0.0.1]",
    "[0:0:0:0:0:ffff:127.0.0.1]",
    "localhost",
    "localhost.",
    "LOCALHOST",
    "user@localhost",
    "app.example@localhost",
]


@pytest.mark.parametrize("host", BYPASSES)
async def test_the_socket_refuses_what_a_url_smuggles_in(host: str) -> None:
    """Without `checked`, so that the last line of defence stands alone."""
    async with listening("127.0.0.1") as four, listening("::1", four.port) as six:
        async with Egress(allow_http=True, ports=None).session(timeout=5) as session:
            with pytest.raises(aiohttp.ClientError):
                await session.post(f"http://{host}:{four.port}/", allow_redirects=False)
        # One connection that is allowed comes after all that were refused: it is the first that arrives.
        allowed = Egress(allow=[LOOPBACK, IPv6Network("::1/128")], allow_http=True, ports=None)
        async with allowed.session(timeout=5) as session:
            await session.post(f"http://127.0.0.1:{four.port}/")
            await session.post(f"http://[::1]:{four.port}/")
        assert (four.accepted, six.accepted) == (1, 1)


class Names(AbstractResolver):
    """A name server under the test's control: each look-up takes the next answer, the last one stays."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in found
        ]

    async def close(self) -> None:
        """Nothing is held."""


async def test_a_name_that_rebinds_to_a_private_address_is_refused_at_the_second_connection() -> None:
    """127.0.0.1 plays the public address, 127.0.0.2 the private one."""
    egress = Egress(allow=[LOOPBACK], allow_http=True, ports=None)
    async with (
        listening("127.0.0.1") as first,
        listening("127.0.0.2", first.port) as second,
        egress.session(timeout=5, resolver=Names(["127.0.0.1"], ["127.0.0.2"])) as session,
    ):
        url = f"http://rebind.example:{first.port}/"
        async with session.post(url) as answer:
            assert answer.status == 204
        assert isinstance(session.connector, aiohttp.TCPConnector)
        session.connector.clear_dns_cache()
        with pytest.raises(aiohttp.ClientConnectorError) as caught:
            await session.post(url)
        assert isinstance(caught.value.__cause__, EgressRefused)
        assert (first.accepted, second.accepted) == (1, 0)


@pytest.mark.parametrize("order", [["127.0.0.1", "127.0.0.2"], ["127.0.0.2", "127.0.0.1"], ["::1", "127.0.0.1"]])
async def test_of_a_name_with_public_and_private_addresses_only_the_public_is_dialled(order: list[str]) -> None:
    egress = Egress(allow=[LOOPBACK], allow_http=True, ports=None)
    async with (
        listening("127.0.0.1") as public,
        listening("127.0.0.2", public.port) as private,
        listening("::1", public.port) as also_private,
        egress.session(timeout=5, resolver=Names(order)) as session,
    ):
        async with session.post(f"http://both.example:{public.port}/") as answer:
            assert answer.status == 204
        assert (public.accepted, private.accepted, also_private.accepted) == (1, 0, 0)


async def test_a_name_with_private_addresses_only_is_refused_by_policy() -> None:
    egress = Egress(allow_http=True, ports=None)
    async with egress.session(timeout=5, resolver=Names(["10.0.0.1", "fd00:ec2::254", "169.254.169.254"])) as session:
        with pytest.raises(aiohttp.ClientConnectorError) as caught:
            await session.post("http://inside.example/")
    assert isinstance(caught.value.__cause__, EgressRefused)


async def test_proxies_in_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    async with HookReceiver() as hooks, listening("127.0.0.1") as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        async with Egress(allow=[LOOPBACK], allow_http=True, ports=None).session() as session:
            await session.post(hooks.url("/direct"))
        assert [one.path for one in hooks.received] == ["/direct"]
        assert proxy.accepted == 0


async def test_cookies_of_one_receiver_are_not_kept() -> None:
    egress = Egress(allow=[LOOPBACK], allow_http=True, ports=None)
    async with HookReceiver() as hooks, egress.session(resolver=Names(["127.0.0.1"])) as session:
        hooks.script("/", Answer(headers={"set-cookie": "session=1; Path=/"}), repeat=True)
        for _ in range(2):
            async with session.post(f"http://cookies.example:{hooks.port}/") as answer:
                assert "set-cookie" in answer.headers
        assert not any("cookie" in one.headers for one in hooks.received)


async def test_bodies_are_not_decompressed() -> None:
    packed = gzip.compress(b"bomb")
    async with HookReceiver() as hooks, Egress(allow=[LOOPBACK], allow_http=True, ports=None).session() as session:
        hooks.script("/", Answer(status=200, headers={"content-encoding": "gzip"}, body=packed))
        async with session.post(hooks.url()) as answer:
            assert await answer.read() == packed


def test_networks_of_both_kinds_can_be_allowed() -> None:
    egress = Egress(allow=(IPv4Network("10.0.0.0/8"), IPv6Network("fd00::/8")), ports=None)
    assert egress.permits("10.0.0.1")
    assert egress.permits("fd00::1")
    assert not egress.permits("192.168.0.1")
