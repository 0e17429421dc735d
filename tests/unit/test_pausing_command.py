"""`subscriptions pause` and `resume` of many: what globs select, and what stays as it is."""

import asyncio
from collections.abc import Sequence

import pytest

from bellwire.formats.counts import counted
from bellwire.registry import Registry
from bellwire.subscriptions import Subscription, SubscriptionState
from starter.cli.main import main
from tests.factories import subscription
from tests.unit.test_cli import errors_of, output_of, registry_url, stored

__all__ = ["registry_url"]

PAUSE, RESUME = ["subscriptions", "pause"], ["subscriptions", "resume"]
MAIL = {"channel": "email", "to": "ann@example.com"}


@pytest.fixture
def url(registry_url: str) -> str:
    async def fill() -> None:
        registry = await Registry.open(registry_url)
        for name, tenant, types in (
            ("eu-paid", "acme-eu", ["order.paid", "user.created"]),
            ("eu-orders", "acme-eu", ["order.*"]),
            ("us-all", "acme-us", ["*"]),
            ("other", "other", ["order.paid"]),
        ):
            await registry.subscriptions.create(subscription(id=name, tenant=tenant, types=types))
        await registry.subscriptions.create(subscription(MAIL, id="mail", tenant="acme-eu", types=["order.paid"]))
        await registry.subscriptions.create(
            subscription(id="own", tenant="acme-eu", state="paused", state_reason="theirs")
        )
        await registry.subscriptions.create(subscription(id="gone", tenant="acme-eu", state="disabled"))
        await registry.close()

    asyncio.run(fill())
    return registry_url


def in_state(found: Sequence[Subscription], state: SubscriptionState) -> set[str]:
    return {each.id for each in found if each.state is state}


@pytest.mark.parametrize(
    ("arguments", "paused"),
    [
        (["--tenant", "acme-*"], {"eu-paid", "eu-orders", "us-all", "mail"}),
        (["--tenant", "acme-eu", "--channel", "webhook"], {"eu-paid", "eu-orders"}),
        (["--tenant", "acme"], set()),
        (["--type", "order.*"], {"eu-paid", "eu-orders", "other", "mail"}),
        (["--type", "order.paid"], {"eu-paid", "other", "mail"}),
        (["--type", "user.*", "--tenant", "*"], {"eu-paid"}),
        (["--channel", "email"], {"mail"}),
    ],
)
def test_globs_select_what_is_paused(
    arguments: list[str], paused: set[str], url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*PAUSE, *arguments, "--dry-run"]) == 0
    assert capsys.readouterr() == ("", f"{counted(len(paused), 'subscription')} to pause\n")
    assert in_state(stored(url), SubscriptionState.PAUSED) == {"own"}
    assert main([*PAUSE, *arguments, "--yes", "--reason", "maintenance"]) == 0
    assert in_state(stored(url), SubscriptionState.PAUSED) == {"own"} | paused
    assert {each.state_reason for each in stored(url) if each.id in paused} <= {"maintenance"}


def test_resuming_leaves_alone_what_was_paused_for_another_reason_or_disabled(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*PAUSE, "--tenant", "acme-*", "--yes", "--reason", "maintenance 7"]) == 0
    capsys.readouterr()
    assert main([*RESUME, "--tenant", "acme-*", "--reason", "maintenance*", "--yes", "--json"]) == 0
    assert capsys.readouterr() == ('{\n  "resumed": 4\n}\n', "4 subscriptions to resume\n")
    found = stored(url)
    assert in_state(found, SubscriptionState.PAUSED) == {"own"}
    assert in_state(found, SubscriptionState.DISABLED) == {"gone"}
    assert main([*RESUME, "--tenant", "acme-*", "--yes"]) == 0
    found = stored(url)
    assert in_state(found, SubscriptionState.PAUSED) == set()
    assert in_state(found, SubscriptionState.DISABLED) == {"gone"}


def test_one_is_paused_and_resumed_by_its_id(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    paused = output_of([*PAUSE, "other", "--reason", "x"], capsys)
    assert (paused["state"], paused["state_reason"]) == ("paused", "x")
    assert output_of([*RESUME, "gone"], capsys)["state"] == "active"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (PAUSE, "ID: give a subscription's id, or options that select many"),
        ([*RESUME, "--yes"], "ID: give a subscription's id, or options that select many"),
        ([*PAUSE, "other", "--tenant", "acme*"], "ID: cannot be combined with options that select many"),
        ([*RESUME, "other", "--reason", "x"], "ID: cannot be combined with options that select many"),
    ],
)
def test_a_bad_selection_is_refused(
    arguments: list[str], named: str, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (line,) = errors_of(arguments, capsys)
    assert named in line


def test_many_are_not_changed_unasked(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*PAUSE, "--tenant", "*"]) == 2
    assert "error: --yes: is needed where there is no terminal to ask on" in capsys.readouterr().err
    assert in_state(stored(url), SubscriptionState.PAUSED) == {"own"}
