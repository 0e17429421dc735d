"""Targets that the settings never reach are refused when a subscription is made; what they reach is accepted."""

import json
from typing import Any

import pytest

from bellwire.service.settings import Settings
from starter.operations.problems import InputInvalid
from starter.operations.subscribers.subscribing import read_subscription

PRIVATE_NETWORK = {"BELLWIRE_EGRESS_ALLOW": "10.0.0.0/8,127.0.0.0/8,fd00::/8"}
PROXY = {"BELLWIRE_EGRESS_PROXY": "http://proxy.example:4750"}


def problem_of(target: dict[str, Any], monkeypatch: pytest.MonkeyPatch, **variables: str) -> str:
    """Why the target is refused; empty if it is accepted."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    try:
        read_subscription({"tenant": "acme", "types": ["*"], "target": target}, Settings.read())
    except InputInvalid as error:
        return str(error)
    return ""


def hook(url: str) -> dict[str, Any]:
    return {"channel": "webhook", "url": url}


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("10.1.2.3", "not a public one"),
        ("127.0.0.1", "not a public one"),
        ("127.0.0.1.", "not a public one"),
        ("0.0.0.0", "not a public one"),
        ("169.254.169.254", "not a public one"),
        ("192.168.0.1", "not a public one"),
        ("100.64.0.1", "not a public one"),
        ("224.0.0.1", "not a public one"),
        ("255.255.255.255", "not a public one"),
        ("[::1]", "not a public one"),
        ("[::]", "not a public one"),
        ("[fd00::1]", "not a public one"),
        ("[fe80::1]", "not a public one"),
        ("[::ffff:10.0.0.1]", "not a public one"),
        ("[ff02::1]", "not a public one"),
        ("localhost", ".localhost exist in private networks only"),
        ("LOCALHOST", ".localhost exist in private networks only"),
        ("app.localhost", ".localhost exist in private networks only"),
        ("printer.local", ".local exist in private networks only"),
        ("printer.local.", ".local exist in private networks only"),
        ("metadata.google.internal", ".internal exist in private networks only"),
        ("router.home.arpa", ".home.arpa exist in private networks only"),
        ("intranet", "without a dot exists in private networks only"),
        ("com", "without a dot exists in private networks only"),
        ("hooks.invalid", "end in .invalid do not exist"),
        ("invalid", "end in .invalid do not exist"),
        ("expyuzz4wqqyqhjn.onion", "end in .onion do not exist"),
    ],
)
def test_a_url_that_is_never_reached_is_refused(host: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problem_of(hook(f"https://{host}/hooks"), monkeypatch)
    assert problem.startswith("target.url: ")
    assert why in problem
    assert "\n" not in problem


@pytest.mark.parametrize(
    "host",
    [
        "app.example",
        "app.example.",
        "localhost.app.example",
        "local.example",
        "8.8.8.8",
        "[2606:4700::1111]",
        "[::ffff:8.8.8.8]",
        "onion.example",
    ],
)
def test_a_url_that_can_be_reached_is_accepted(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert problem_of(hook(f"https://{host}/hooks"), monkeypatch) == ""


@pytest.mark.parametrize("host", ["10.1.2.3", "127.0.0.1", "[fd00::1]", "localhost", "receiver", "printer.local"])
def test_in_an_open_private_network_its_addresses_and_names_are_accepted(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert problem_of(hook(f"https://{host}/hooks"), monkeypatch, **PRIVATE_NETWORK) == ""


@pytest.mark.parametrize("host", ["192.168.0.1", "[fe80::1]", "hooks.invalid", "x.onion"])
def test_an_open_network_opens_nothing_else(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert problem_of(hook(f"https://{host}/hooks"), monkeypatch, **PRIVATE_NETWORK) != ""


def test_a_forward_proxy_decides_on_names_and_not_on_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    assert problem_of(hook("https://receiver/hooks"), monkeypatch, **PROXY) == ""
    assert problem_of(hook("https://10.0.0.1/hooks"), monkeypatch, **PROXY) != ""


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("ann@localhost", "target.to: names that end in .localhost"),
        ("ann@printer.local", "target.to: names that end in .local"),
        ("ann@nowhere.invalid", "target.to: names that end in .invalid"),
        ("ann@intranet", "target.to: a name without a dot"),
        ("ann@example.com", ""),
    ],
)
def test_domains_of_mail_are_judged_like_hosts(address: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for to in (address, ["bob@example.com", address]):
        problem = problem_of({"channel": "email", "to": to}, monkeypatch)
        assert problem.startswith(why)
        assert bool(problem) == bool(why)


@pytest.mark.parametrize("asymmetric", [[], {}, 0, 1, "true", [True]])
def test_asymmetric_is_true_or_false(asymmetric: object, monkeypatch: pytest.MonkeyPatch) -> None:
    value = json.loads(
        json.dumps({"tenant": "acme", "types": ["*"], "target": hook("https://app.example/"), "asymmetric": asymmetric})
    )
    with pytest.raises(InputInvalid, match=r"^asymmetric: must be true or false; or omit it for a shared secret$"):
        read_subscription(value, Settings.read())
