"""Which addresses are public: IANA's registries entry by entry, and every way to embed one address in another."""

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from activities.egress.public_addresses import is_public, reached

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
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(address)
    assert is_public(ip_address(address))


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_special_private_and_unusually_written_addresses_are_not_public(address: str) -> None:
    assert not is_public(address)


#: IANA IPv4 Special-Purpose Address Registry, every entry.
REGISTRY_V4 = [
    *("0.0.0.0/8", "0.0.0.0/32", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
    *("192.0.0.0/24", "192.0.0.0/29", "192.0.0.8/32", "192.0.0.9/32", "192.0.0.10/32", "192.0.0.170/32"),
    *("192.0.0.171/32", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.88.99.2/32"),
    *("192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4"),
    "255.255.255.255/32",
]
#: IANA IPv6 Special-Purpose Address Registry, every entry but those that wrap an IPv4 address which decides:
#: ::ffff:0:0/96 and 64:ff9b::/96.
REGISTRY_V6 = [
    *("::1/128", "::/128", "64:ff9b:1::/48", "100::/64", "100:0:0:1::/64", "2001::/23", "2001::/32", "2001:1::1/128"),
    *(
        "2001:1::2/128",
        "2001:1::3/128",
        "2001:2::/48",
        "2001:3::/32",
        "2001:4:112::/48",
        "2001:10::/28",
        "2001:20::/28",
    ),
    *(
        "2001:30::/28",
        "2001:db8::/32",
        "2002::/16",
        "2620:4f:8000::/48",
        "3fff::/20",
        "5f00::/16",
        "fc00::/7",
        "fe80::/10",
    ),
]
#: Deprecated or reserved: IPv4-compatible, IPv4-translated, site local; multicast.
BESIDE_THEM = ["::/96", "::ffff:0:0:0/96", "fec0::/10", "ff00::/8", "224.0.0.0/4"]

METADATA = {
    "most clouds": "169.254.169.254",
    "Amazon ECS": "169.254.170.2",
    "Amazon EKS": "169.254.170.23",
    "Amazon, IPv6": "fd00:ec2::254",
    "Amazon EKS, IPv6": "fd00:ec2::23",
    "Google, IPv6": "fd20:ce::254",
    "Azure WireServer": "168.63.129.16",
    "Oracle, older": "192.0.0.192",
    "Alibaba": "100.100.100.200",
    "Tencent": "169.254.0.23",
    "Scaleway": "169.254.42.42",
    "Scaleway, IPv6": "fd00:42::42",
    "OpenStack, IPv6": "fe80::a9fe:a9fe",
}


@pytest.mark.parametrize("block", [*REGISTRY_V4, *REGISTRY_V6, *BESIDE_THEM])
def test_no_registry_block_contains_a_public_address(block: str) -> None:
    network = ip_network(block)
    for number in {0, 1, network.num_addresses // 2, network.num_addresses - 1}:
        if number < network.num_addresses:
            assert not is_public(network[number])


@pytest.mark.parametrize("cloud", METADATA)
def test_no_cloud_metadata_service_is_public(cloud: str) -> None:
    assert not is_public(METADATA[cloud])


@pytest.mark.parametrize(
    "text",
    [
        *(
            " 8.8.8.8",
            "8.8.8.8\n",
            "\t8.8.8.8",
            "8.8.8.8\0",
            "8.8.8.8/32",
            "8.8.8.8:443",
            "8.8.8.8.",
            "8,8,8,8",
            "8.8.2056",
        ),
        *(
            "0x8.8.8.8",
            "8.8.8.0x8",
            "08.8.8.8",
            "8.8.8.256",
            "-8.8.8.8",
            "8.8.8.8%eth0",
            "\u2488.8.8.8",
            "\uff18.8.8.8",
        ),
        *(
            "[::1]",
            "2606::1::1",
            "2606:4700:4700::1111%",
            "::ffff:8.8.8",
            "::ffff:08.8.8.8",
            "g::1",
            " ",
            ":",
            "%",
            ".",
        ),
    ],
)
def test_unusual_notation_is_not_an_address(text: str) -> None:
    assert reached(text) is None
    assert not is_public(text)


#: Each way to write an IPv4 address into an IPv6 one; those whose inner address decides, then those that never are public.
DECIDED_INSIDE: dict[str, Callable[[int], IPv6Address]] = {
    "mapped": lambda inner: IPv6Address(0xFFFF << 32 | inner),
    "NAT64": lambda inner: IPv6Address(0x64_FF9B << 96 | inner),
}
NEVER_PUBLIC: dict[str, Callable[[int], IPv6Address]] = {
    "compatible": IPv6Address,
    "translated": lambda inner: IPv6Address(0xFFFF << 48 | inner),
    "local NAT64": lambda inner: IPv6Address(0x64_FF9B_0001 << 80 | inner),
    "6to4": lambda inner: IPv6Address(0x2002 << 112 | inner << 80 | 1),
    "Teredo server": lambda inner: IPv6Address(0x2001_0000 << 96 | inner << 64 | 0xF7F7_F7F7),
    "Teredo client": lambda inner: IPv6Address(0x2001_0000 << 96 | 0x0808_0808 << 64 | inner ^ 0xFFFF_FFFF),
    "ISATAP": lambda inner: IPv6Address(0x2606_4700 << 96 | 0x0000_5EFE << 32 | inner),
    "ISATAP, global": lambda inner: IPv6Address(0x2606_4700 << 96 | 0x0200_5EFE << 32 | inner),
    "link local": lambda inner: IPv6Address(0xFE80 << 112 | inner),
    "unique local": lambda inner: IPv6Address(0xFD00 << 112 | inner),
}
EVERY_V4 = st.integers(0, 2**32 - 1)
PRIVATE_V4 = st.sampled_from([*map(IPv4Network, REGISTRY_V4), IPv4Network("224.0.0.0/4")]).flatmap(
    lambda network: st.integers(int(network[0]), int(network[-1]))
)


@pytest.mark.parametrize("form", [*DECIDED_INSIDE, *NEVER_PUBLIC])
@given(inner=PRIVATE_V4)
@example(inner=int(IPv4Address("127.0.0.1")))
@example(inner=int(IPv4Address("169.254.169.254")))
@example(inner=int(IPv4Address("168.63.129.16")))
def test_private_address_stays_private_when_embedded(form: str, inner: int) -> None:
    wrapped = {**DECIDED_INSIDE, **NEVER_PUBLIC}[form](inner)
    for written in (wrapped, str(wrapped), wrapped.exploded, str(wrapped).upper(), f"{wrapped}%1"):
        assert not is_public(written)


@given(inner=EVERY_V4)
def test_nat64_addresses_are_checked_by_the_embedded_address_and_tunnels_are_never_public(inner: int) -> None:
    plain = is_public(IPv4Address(inner))
    assert {form(inner) for form in DECIDED_INSIDE.values()} == {
        wrapped for wrapped in (form(inner) for form in DECIDED_INSIDE.values()) if is_public(wrapped) is plain
    }
    assert not [name for name, form in NEVER_PUBLIC.items() if is_public(form(inner))]


def by_the_standard_library(address: IPv4Address | IPv6Address) -> bool:
    """An independent form of the rule: the standard library's judgement, and its known gaps."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped or address in IPv6Network("64:ff9b::/96"):
            return by_the_standard_library(IPv4Address(int(address) % 2**32))
        overlooked = (
            address.sixtofour
            or address.teredo
            or address.exploded.startswith(("2001:00", "2001:01", "2620:004f:8000:"))
        )
        if overlooked or address.exploded.startswith("3fff:0") or address.exploded[20:29] in {"0000:5efe", "0200:5efe"}:
            return False
        return address.exploded[0] in "23" and address.is_global and not address.is_multicast
    anycast = ("192.0.0.", "192.31.196.", "192.52.193.", "192.88.99.", "192.175.48.")
    if str(address).startswith(anycast) or str(address) == "168.63.129.16":
        return False
    shared = address.packed[0] == 100 and address.packed[1] & 0xC0 == 64
    return address.is_global and not (address.is_multicast or address.is_reserved or shared)


EVERY_V6 = st.one_of(
    st.integers(0, 2**128 - 1),
    st.integers(0x2000 << 112, 0x4000 << 112),
    st.sampled_from([*map(IPv6Network, REGISTRY_V6)]).flatmap(
        lambda network: st.integers(max(0, int(network[0]) - 2**64), min(2**128 - 1, int(network[-1]) + 2**64))
    ),
    st.sampled_from([*DECIDED_INSIDE.values(), *NEVER_PUBLIC.values()]).flatmap(
        lambda form: EVERY_V4.map(form).map(int)
    ),
)


@given(number=EVERY_V6)
@example(number=int(IPv6Address("2606:4700:4700::1111")))
def test_ipv6_table_agrees_with_the_standard_library_except_for_known_gaps(number: int) -> None:
    assert is_public(IPv6Address(number)) is by_the_standard_library(IPv6Address(number))


@given(number=st.one_of(EVERY_V4, PRIVATE_V4))
@example(number=int(IPv4Address("192.0.0.9")))
def test_ipv4_table_agrees_with_the_standard_library_except_for_known_gaps(number: int) -> None:
    assert is_public(IPv4Address(number)) is by_the_standard_library(IPv4Address(number))


def test_tables_agree_at_the_edges_of_each_block() -> None:
    for network in map(ip_network, [*REGISTRY_V4, *REGISTRY_V6, *BESIDE_THEM]):
        kind = IPv4Address if network.version == 4 else IPv6Address
        last = 2**network.max_prefixlen - 1
        for number in (int(network[0]) - 1, int(network[0]), int(network[-1]), int(network[-1]) + 1):
            if 0 <= number <= last:
                assert is_public(kind(number)) is by_the_standard_library(kind(number)), kind(number)
