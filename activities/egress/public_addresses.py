"""Which addresses are public, by IANA's registries.

The standard library does not decide: `ipaddress.is_global` of Python 3.11 also passes multicast, 6to4, IPv4-compatible
addresses and several special blocks.
"""

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

#: IANA IPv4 Special-Purpose Address Registry, all of it, "globally reachable" or not: no endpoint lives there.
#: Also multicast, and Azure's WireServer, which has a public address.
_DENIED_V4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network; Linux takes 0.0.0.0 for the machine itself
        "10.0.0.0/8",
        "100.64.0.0/10",  # shared address space; holds Alibaba Cloud's metadata service, 100.100.100.200
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure: WireServer, DHCP, DNS and health probes, reachable from each virtual machine
        "169.254.0.0/16",  # link local; holds the metadata services of most clouds, 169.254.169.254
        "172.16.0.0/12",
        "192.0.0.0/24",  # IETF protocol assignments; holds Oracle Cloud's older metadata service, 192.0.0.192
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # 6to4 relays, deprecated; 6a44 relays
        "192.168.0.0/16",
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarking
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved; holds broadcast
    )
)
#: The only part of IPv6 from which IANA gives out global unicast addresses. Outside it lie ::, ::1, IPv4-compatible and
#: -translated addresses, local NAT64 (64:ff9b:1::/48), discard-only and dummy (100::/64, 100:0:0:1::/64), segment
#: routing (5f00::/16), unique local (fc00::/7, where AWS has fd00:ec2::254 and Google fd20:ce::254), link local, site
#: local and multicast.
_GLOBAL_V6 = IPv6Network("2000::/3")
#: The part of the IANA IPv6 Special-Purpose Address Registry that lies within the above.
_DENIED_V6 = tuple(
    IPv6Network(network)
    for network in (
        # IETF protocol assignments: Teredo, benchmarking, AMT, AS112, ORCHID, drone identifiers.
        "2001::/23",
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
)
# 6to4 and Teredo are denied whatever IPv4 address they embed: a tunnel on the path reaches that address from an unknown
# place. The public relays are gone (RFC 7526), and an endpoint behind one has an IPv4 address of its own.

#: The well-known NAT64 prefix (RFC 6052). A translator reaches any IPv4 address through it, and networks without IPv4
#: reach all of IPv4 that way, so the embedded address decides. A translator with its own prefix cannot be recognised.
_NAT64 = IPv6Network("64:ff9b::/96")
#: ISATAP (RFC 5214): an interface identifier, in any prefix, that embeds the IPv4 address to tunnel to. The masked bit
#: says whether that address is public.
_ISATAP, _ISATAP_MASK = 0x0000_5EFE, 0xFDFF_FFFF


def is_public(address: str | IPv4Address | IPv6Address) -> bool:
    """Whether the address belongs to the public internet. Text in an unusual notation does not."""
    found = reached(address)
    if isinstance(found, IPv4Address):
        return not any(found in network for network in _DENIED_V4)
    if found is None or found.scope_id is not None or found not in _GLOBAL_V6:
        return False
    if int(found) >> 32 & _ISATAP_MASK == _ISATAP:
        return False
    return not any(found in network for network in _DENIED_V6)


@lru_cache(maxsize=4096)
def reached(address: str | IPv4Address | IPv6Address) -> IPv4Address | IPv6Address | None:
    """The address that packets reach: the embedded one of an IPv4-mapped or NAT64 address, else the address itself.

    None for text that is not an address in the usual notation.
    """
    if isinstance(address, str):
        try:
            address = ip_address(address)
        except ValueError:
            return None
    if isinstance(address, IPv6Address) and address.scope_id is None:
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address
