"""Known bypasses of an egress guard, through the real client, at real listeners and a real name server.

127.0.0.1 plays a host of the public internet; all other addresses of this machine play hosts inside.
"""

# ruff: noqa: RUF001 - look-alikes are what is tested

import gzip
import resource
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from ipaddress import IPv6Network, ip_network
from pathlib import Path

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from activities.egress.policy import Egress, EgressRefused
from starter.local.receivers.webhooks import WebhookReceiver, WebhookResponse
from tests.activities.listeners import GOODBYE, NO_CONTENT, Listener, listening, name_server, pool_of

LOOPBACK = ip_network("127.0.0.1/32")
INSIDE = ("127.0.0.2", "::1")


@dataclass
class Hosts:
    outside: Listener
    inside: list[Listener]

    @property
    def port(self) -> int:
        return self.outside.port

    @property
    def breaches(self) -> int:
        return sum(each.accepted for each in self.inside)


@asynccontextmanager
async def hosts(answer: bytes = GOODBYE) -> AsyncIterator[Hosts]:
    """One public listener and several private ones, all on the same port."""
    async with AsyncExitStack() as stack:
        outside = await stack.enter_async_context(listening("127.0.0.1", answer=answer))
        inside = [await stack.enter_async_context(listening(host, outside.port, answer=answer)) for host in INSIDE]
        yield Hosts(outside, inside)


def guard() -> Egress:
    return Egress(allow=[LOOPBACK], allow_http=True, ports=None)


#: What is before the port of a URL that means this machine to someone.
LITERALS = [
    "127.0.0.1",
    "127.0.0.1.",
    "127.0.0.1..",
    "127.1",
    "127.0.1",
    "0",
    "0.0.0.0",
    "2130706433",
    "0x7f000001",
    "0x7f.0x0.0x0.0x1",
    "0x7F.1",
    "0177.0.0.1",
    "0177.0.1",
    "017700000001",
    "127.0.0.01",
    "000127.0.0.1",
    "4294967296",
    "①②⑦.⓪.⓪.①",
    "１２７.０.０.１",
    "127。0。0。1",
    "127．0．0．1",
    "127｡0｡0｡1",
    "127%2e0%2e0%2e1",
    "%31%32%37.0.0.1",
    "127.0.0.1%00.app.example",
    "127.0.0.1%20",
    "127.0.0.1%0d%0a",
    "\t127.0.0.1",
    "127.0\t.0.1",
    "127.0.0\n.1",
    "\x00127.0.0.1",
    "127.0.0.1\x00",
    "[::1]",
    "[::]",
    "[::0001]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:7f00:1]",
    "[::ffff:127.0.0.1]",
    "[0:0:0:0:0:ffff:127.0.0.1]",
    "[::127.0.0.1]",
    "[::ffff:0:127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b:1::7f00:1]",
    "[2002:7f00:1::]",
    "[2001:0:808:808::80ff:fffe]",
    "[::1%25lo]",
    "[fe80::1%25lo]",
    "[fec0::1]",
    "localhost",
    "localhost.",
    "LOCALHOST",
    "ｌｏｃａｌｈｏｓｔ",
    "user@localhost",
    "user:secret@127.0.0.1",
    "app.example@localhost",
    "app.example:80@127.0.0.1",
    "app.example%40localhost",
    "app.example\\@127.0.0.1",
    "127.0.0.1\\@app.example",
]
#: Clouds, shared space, multicast, reserved and special: nothing listens here, and nothing may be dialled to find out.
ELSEWHERE = [
    "169.254.169.254",
    "100.64.0.1",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "10.0.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "[fd00:ec2::254]",
    "[fd20:ce::254]",
    "[ff02::1]",
    "[5f00::1]",
]


async def tried(session: aiohttp.ClientSession, url: str) -> Exception:
    """The error of the request, which must be one that channels classify."""
    with pytest.raises((aiohttp.ClientError, UnicodeError)) as caught:
        await session.post(url, allow_redirects=False)
    return caught.value


@pytest.mark.parametrize("host", [*LITERALS, *ELSEWHERE])
async def test_socket_refuses_disguised_addresses(host: str) -> None:
    """Without `checked`, so that only the socket guards."""
    async with listening("127.0.0.1") as four, listening("::1", four.port) as six:
        async with Egress(allow_http=True, ports=None).session(timeout=5) as session:
            await tried(session, f"http://{host}:{four.port}/")
        # An allowed connection follows the refused ones: it must be the first to arrive.
        allowed = Egress(allow=[LOOPBACK, IPv6Network("::1/128")], allow_http=True, ports=None)
        async with allowed.session(timeout=5) as session:
            await session.post(f"http://127.0.0.1:{four.port}/")
            await session.post(f"http://[::1]:{four.port}/")
        assert (four.accepted, six.accepted) == (1, 1)


@pytest.mark.parametrize("host", [*LITERALS, *ELSEWHERE])
def test_url_check_refuses_disguised_addresses_that_are_not_names(host: str) -> None:
    egress = Egress(ports=None)
    try:
        url = egress.checked(f"https://{host}/")
    except EgressRefused:
        return
    # What passes is a name, not a disguised address.
    assert url.raw_host in {"localhost", "localhost."}


@pytest.mark.parametrize(
    "url",
    [
        "http://app.example#@127.0.0.2:{port}/",
        "http://app.example:{port}#@127.0.0.2/",
        "http://app.example:{port}/#@127.0.0.2:{port}/",
        "http://app.example:{port}?@127.0.0.2:{port}/",
        "http://app.example:{port}/\\@127.0.0.2:{port}/",
        "http://app.example:{port}/@127.0.0.2:{port}/",
        "http://app.example:{port}//127.0.0.2:{port}/",
        "http://app.example:{port}\\@127.0.0.2:{port}/",
        "http://app.example:{port}\\.127.0.0.2:{port}/",
        "http:\\\\127.0.0.2:{port}\\@app.example:{port}/",
        "http:///127.0.0.2:{port}/",
        "http:127.0.0.2:{port}/",
        "//127.0.0.2:{port}/",
        "http://127.0.0.2:{port}:{port}/",
        "http://[::1]127.0.0.2:{port}/",
        "http://[::1].app.example:{port}/",
        "http://app.example:{port}@[::1]:{port}/",
        "http://app.example :{port}@127.0.0.2/",
        "http://app.example:{port}\r\nHost: inside\r\n/",
        " http://127.0.0.2:{port}/",
        "\x01http://127.0.0.2:{port}/",
        "file:///etc/passwd",
        "gopher://127.0.0.2:{port}/_GET",
        "unix:///run/docker.sock",
        "data:text/plain,inside",
    ],
)
async def test_ambiguous_url_never_reaches_a_private_address(url: str) -> None:
    async with hosts() as here, name_server({"app.example": [["127.0.0.1"]]}) as (_, resolver):
        egress = guard()
        async with egress.session(timeout=5, resolver=resolver) as session:
            for requested in (url.format(port=here.port), lambda: egress.checked(url.format(port=here.port))):
                try:
                    await session.post(requested if isinstance(requested, str) else requested(), allow_redirects=False)
                except (aiohttp.ClientError, EgressRefused, UnicodeError):
                    continue
        assert here.breaches == 0


async def test_control_characters_in_a_path_add_no_header() -> None:
    async with hosts() as here, guard().session() as session:
        for path in ("/a\r\nX-Evil: 1", "/a%0d%0aX-Evil: 1", "/a?b=\r\n\r\nX-Evil: 1", "/\u560d\u560aX-Evil: 1"):
            await session.post(f"http://127.0.0.1:{here.port}{path}")
        assert len(here.outside.heads) == 4
        assert not any("\nX-Evil" in head for head in here.outside.heads)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.2:{port}/",
        "//127.0.0.2:{port}/",
        "http://[::1]:{port}/",
        "http://inside.example:{port}/",
        "http://2130706434:{port}/",
        "file:///etc/passwd",
        "gopher://127.0.0.2:{port}/",
        "\\\\127.0.0.2:{port}\\",
    ],
)
async def test_redirect_to_a_private_address_is_refused_at_the_socket(status: int, location: str) -> None:
    """No channel follows redirects; if one ever does, the socket still guards."""
    names = {"app.example": [["127.0.0.1"]], "inside.example": [["127.0.0.2"]]}
    async with hosts() as here, name_server(names) as (_, resolver), WebhookReceiver() as hooks:
        hooks.script("/", WebhookResponse(status=status, headers={"location": location.format(port=here.port)}))
        async with guard().session(timeout=5, resolver=resolver) as session:
            try:
                await session.get(f"http://app.example:{hooks.port}/")
            except (aiohttp.ClientError, UnicodeError):
                assert [one.path for one in hooks.received] == ["/"]
        assert here.breaches == 0


@pytest.mark.parametrize("location", ["http://127.0.0.2/", "file:///etc/passwd", "\x00", "", "http://[", "a" * 7000])
async def test_redirect_location_is_not_parsed(location: str) -> None:
    head = f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()
    async with listening("127.0.0.1", answer=head) as here, guard().session(timeout=5) as session:
        try:
            async with session.post(f"http://127.0.0.1:{here.port}/", allow_redirects=False) as answer:
                assert answer.status == 302
        except aiohttp.ClientResponseError:
            assert location == "\x00"  # that is no HTTP
        assert here.accepted == 1


class Names(AbstractResolver):
    """A resolver that returns public and private addresses in the given order."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self.addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self.addresses
        ]

    async def close(self) -> None:
        """Nothing to close."""


@pytest.mark.parametrize("order", [["127.0.0.1", "127.0.0.2"], ["127.0.0.2", "127.0.0.1"], ["::1", "127.0.0.1"]])
async def test_only_public_addresses_of_a_name_are_dialled(order: list[str]) -> None:
    async with hosts() as here, guard().session(timeout=5, resolver=Names(order)) as session:
        async with session.post(f"http://both.example:{here.port}/") as answer:
            assert answer.status == 204
        assert (here.outside.accepted, here.breaches) == (1, 0)


async def test_name_with_only_private_addresses_is_refused() -> None:
    resolver = Names(["10.0.0.1", "fd00:ec2::254", "169.254.169.254"])
    async with Egress(allow_http=True, ports=None).session(timeout=5, resolver=resolver) as session:
        with pytest.raises(aiohttp.ClientConnectorError) as caught:
            await session.post("http://inside.example/")
    assert isinstance(caught.value.__cause__, EgressRefused)


@pytest.mark.parametrize(
    "name",
    [
        "inside.example",
        "INSIDE.example.",
        "alias.example",
        "alias-of-alias.example",
        "127.0.0.2.nip.io",
        "app.127.0.0.2.nip.io",
        "0x7f.0.0.2.example",
    ],
)
async def test_name_that_resolves_to_a_private_address_is_refused_for_every_record_type(name: str) -> None:
    names = {
        "inside.example": [["127.0.0.2"]],
        "alias.example": [["inside.example"]],
        "alias-of-alias.example": [["alias.example"]],
        "0x7f.0.0.2.example": [["127.0.0.2"]],
    }
    async with hosts() as here, name_server(names) as (server, resolver):
        async with guard().session(timeout=5, resolver=resolver) as session:
            error = await tried(session, f"http://{name}:{here.port}/")
        assert isinstance(error.__cause__, EgressRefused)
        assert server.requested
        assert here.breaches == 0


async def test_name_with_a_public_and_a_private_record_is_reached_at_the_public_one() -> None:
    names = {"both.example": [["127.0.0.2", "127.0.0.1"]]}
    async with hosts() as here, name_server(names) as (_, resolver):
        async with guard().session(timeout=5, resolver=resolver) as session:
            await session.post(f"http://both.example:{here.port}/")
        assert (here.outside.accepted, here.breaches) == (1, 0)


async def test_dns_rebinding_is_refused_at_the_next_connection() -> None:
    names = {"rebind.example": [["127.0.0.1"], ["127.0.0.2"]]}
    async with hosts() as here, name_server(names) as (server, resolver):
        egress = guard()
        async with egress.session(timeout=5, resolver=resolver) as session:
            url = egress.checked(f"http://rebind.example:{here.port}/")
            async with session.post(url) as answer:
                assert answer.status == 204
            pool_of(session).clear_dns_cache()
            error = await tried(session, str(url))
        assert isinstance(error.__cause__, EgressRefused)
        assert server.requested == ["rebind.example."] * 2
        assert (here.outside.accepted, here.breaches) == (1, 0)


async def test_reused_connection_stays_with_the_checked_host() -> None:
    """The name now resolves to a private address, but the reused connection still leads to the public host."""
    names = {"rebind.example": [["127.0.0.1"], ["127.0.0.2"]]}
    async with hosts(NO_CONTENT) as here, name_server(names) as (_, resolver):
        async with guard().session(timeout=5, resolver=resolver) as session:
            for _ in range(2):
                await session.post(f"http://rebind.example:{here.port}/")
                pool_of(session).clear_dns_cache()
            # The first connection is in use, so a second one is opened.
            async with session.post(f"http://rebind.example:{here.port}/"):
                pass
        assert (here.outside.accepted, len(here.outside.heads), here.breaches) == (1, 3, 0)


async def test_new_connection_is_checked_again() -> None:
    names = {"rebind.example": [["127.0.0.1"], ["127.0.0.2"]]}
    async with WebhookReceiver() as outside, listening("127.0.0.2", outside.port) as inside:
        outside.script("/", 204, WebhookResponse(headers={"connection": "close"}))
        async with name_server(names) as (_, resolver), guard().session(timeout=5, resolver=resolver) as session:
            url = f"http://rebind.example:{outside.port}/"
            for _ in range(2):
                await session.post(url)
                pool_of(session).clear_dns_cache()
            assert isinstance((await tried(session, url)).__cause__, EgressRefused)
        assert len({one.peer for one in outside.received}) == 1
        assert inside.accepted == 0


async def test_allowing_one_port_allows_no_other() -> None:
    async with hosts() as here, listening("127.0.0.1") as other:
        egress = Egress(allow=[LOOPBACK], allow_http=True, ports=frozenset({here.port}))
        async with egress.session(timeout=5) as session:
            assert isinstance((await tried(session, f"http://127.0.0.1:{other.port}/")).__cause__, EgressRefused)
            await session.post(f"http://127.0.0.1:{here.port}/")
        assert (here.outside.accepted, other.accepted) == (1, 0)


async def test_proxies_and_credentials_from_the_environment_are_ignored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    logins = tmp_path / "netrc"
    logins.write_text("machine 127.0.0.1 login ann password hunter2\ndefault login ann password hunter2\n")
    logins.chmod(0o600)
    async with hosts() as here, listening("127.0.0.1") as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "WS_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
            monkeypatch.setenv(name.lower(), f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("NO_PROXY", "")
        monkeypatch.setenv("NETRC", str(logins))
        async with guard().session() as session:
            await session.post(f"http://127.0.0.1:{here.port}/direct")
        [head] = here.outside.heads
        assert head.startswith("POST /direct ")
        assert "authorization" not in head.lower()
        assert proxy.accepted == 0


async def test_no_proxy_variable_does_not_allow_a_private_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    async with hosts() as here, guard().session(timeout=5) as session:
        assert isinstance((await tried(session, f"http://127.0.0.2:{here.port}/")).__cause__, EgressRefused)
        assert here.breaches == 0


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, gzip"])
async def test_compressed_response_is_not_decompressed(encoding: str) -> None:
    bomb = gzip.compress(b"\0" * 100_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with WebhookReceiver() as hooks, guard().session() as session:
        hooks.script("/", WebhookResponse(status=200, headers={"content-encoding": encoding}, body=bomb))
        async with session.post(hooks.url(), headers={"accept-encoding": "identity"}) as answer:
            assert await answer.read() == bomb
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


async def test_dialled_url_is_the_checked_one() -> None:
    """The URL is parsed once; the request uses the parsed URL, not the text."""
    url = guard().checked("http://ＡＰＰ.example:8080/%7Eann?q=ü#secret")
    assert str(url) == "http://app.example:8080/%7Eann?q=%C3%BC"
    assert (url.raw_host, url.port) == (URL(str(url)).raw_host, URL(str(url)).port) == ("app.example", 8080)
