"""Reachability: targets to which the settings never let anything be sent, so that a subscription for them is refused."""

from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit

from bellwire.service.settings import Settings
from bellwire.targets import EmailTarget, WebhookTarget
from starter.operations.problems import Problem

#: Names that no name server on the internet answers for (RFC 6761, RFC 7686).
_NOWHERE = ("invalid", "onion")
#: Names that exist in private networks only (RFC 6761, RFC 6762, RFC 8375, ICANN's .internal).
_PRIVATE = ("local", "localhost", "internal", "home.arpa")
_OPEN_NETWORK = "use a public name, or open the private network with BELLWIRE_EGRESS_ALLOW"


def webhook_problems(target: WebhookTarget, settings: Settings) -> Iterable[Problem]:
    """Why the settings never let the URL be requested: its scheme, its port, its host."""
    parts = urlsplit(target.url)
    if parts.scheme == "http" and not settings.webhook_allow_http:
        yield Problem(
            message="http is not allowed here",
            field="target.url",
            remedy="use https, or set BELLWIRE_WEBHOOK_ALLOW_HTTP=true",
        )
    port = parts.port or (443 if parts.scheme == "https" else 80)
    if settings.webhook_ports is not None and port not in settings.webhook_ports:
        allowed = ", ".join(map(str, sorted(settings.webhook_ports)))
        yield Problem(
            message=f"port {port} is not one of {allowed}",
            field="target.url",
            remedy="use one of them, or add it to BELLWIRE_WEBHOOK_PORTS",
        )
    yield from _host_problems(parts.hostname or "", "target.url", settings)


def email_problems(target: EmailTarget, settings: Settings) -> Iterable[Problem]:
    """Why no mail ever arrives at some of the addresses: their domains are judged like hosts of URLs."""
    for domain in dict.fromkeys(address.rpartition("@")[2] for address in target.recipients):
        yield from _host_problems(domain, "target.to", settings)


def _host_problems(host: str, field: str, settings: Settings) -> Iterable[Problem]:
    try:
        address = ip_address(host.removesuffix("."))
    except ValueError:
        yield from _name_problems(host.lower().removesuffix("."), field, settings)
        return
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if (address.is_global and not address.is_multicast) or any(address in network for network in settings.egress_allow):
        return
    yield Problem(
        message="the address is not a public one", field=field, remedy="use another, or add it to BELLWIRE_EGRESS_ALLOW"
    )


def _name_problems(name: str, field: str, settings: Settings) -> Iterable[Problem]:
    # A forward proxy looks names up itself, perhaps in a network of its own.
    if settings.egress_proxy is not None and field == "target.url":
        return
    for ending in _NOWHERE:
        if _ends(name, ending):
            yield Problem(message=f"names that end in .{ending} do not exist", field=field, remedy="use a public name")
            return
    if settings.egress_allow:
        return
    for ending in _PRIVATE:
        if _ends(name, ending):
            yield Problem(
                message=f"names that end in .{ending} exist in private networks only", field=field, remedy=_OPEN_NETWORK
            )
            return
    if "." not in name:
        yield Problem(message="a name without a dot exists in private networks only", field=field, remedy=_OPEN_NETWORK)


def _ends(name: str, ending: str) -> bool:
    return name == ending or name.endswith(f".{ending}")
