"""The egress policy: rules for addresses and URLs, and what the operator allows."""

import socket
from ipaddress import IPv4Network, IPv6Network, ip_network

import pytest

from activities.egress.policy import Egress, EgressRefused
from starter.local.receivers.webhooks import WebhookReceiver, WebhookResponse
from tests.activities.listeners import name_server

LOOPBACK = ip_network("127.0.0.1/32")


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
def test_operator_can_allow_networks(network: str, address: str, permitted: bool) -> None:
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
def test_url_that_breaks_the_policy_is_refused(url: str, reason: str | None) -> None:
    egress = Egress(ports=frozenset({443, 8443}))
    if reason is None:
        egress.checked(url)
        return
    with pytest.raises(EgressRefused) as caught:
        egress.checked(url)
    assert caught.value.reason == str(caught.value) == reason


def test_operator_can_allow_http_and_all_ports() -> None:
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
def test_no_socket_is_created_for_a_refused_address(family: int, target: tuple[object, ...], reason: str) -> None:
    with pytest.raises(EgressRefused, match=reason):
        Egress(ports=frozenset({443})).socket_factory((family, socket.SOCK_STREAM, 0, "", target))


async def test_cookies_are_not_stored() -> None:
    egress = Egress(allow=[LOOPBACK], allow_http=True, ports=None)
    async with (
        WebhookReceiver() as hooks,
        name_server({"cookies.example": [["127.0.0.1"]]}) as (_, resolver),
        egress.session(resolver=resolver) as session,
    ):
        hooks.script("/", WebhookResponse(headers={"set-cookie": "session=1; Path=/"}), repeat=True)
        for _ in range(2):
            async with session.post(f"http://cookies.example:{hooks.port}/") as answer:
                assert "set-cookie" in answer.headers
        assert not any("cookie" in one.headers for one in hooks.received)


def test_ipv4_and_ipv6_networks_can_be_allowed() -> None:
    egress = Egress(allow=(IPv4Network("10.0.0.0/8"), IPv6Network("fd00::/8")), ports=None)
    assert egress.permits("10.0.0.1")
    assert egress.permits("fd00::1")
    assert not egress.permits("192.168.0.1")
