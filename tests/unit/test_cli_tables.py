"""What the command line prints for people: tables that fit, ids that can be copied, times with their zone."""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bellwire.contract import Group
from bellwire.deliveries import Attempt, DeliveryState, Outcome, OutcomeKind
from bellwire.registry import Registry
from bellwire.suppressions import Suppression, SuppressionReason
from bellwire.targets import Channel
from starter.cli.main import main
from starter.cli.tables import print_table
from tests.factories import NOW, event, subscription

LONG_EVENT = "01a225ef-1df7-70bf-b96d-0adfb442a4b0"
LONG_SUBSCRIPTION = "sub_01a225ef-1df7-70bf-b96d-0adfb442a4b0"
ADDRESS = f"{'a' * 60}@{'b' * 60}.example"
PUBLISHED = event(id=LONG_EVENT, tenant="acme", source="/shop/orders/europe/west")
DELIVERY = f"dlv_{PUBLISHED.key}_{LONG_SUBSCRIPTION}"


@pytest.fixture
def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry with ids as long as generated ones, shown 80 columns wide. Temporal cannot be reached."""
    url = f"sqlite:///{tmp_path / 'registry.db'}"
    monkeypatch.setenv("BELLWIRE_REGISTRY_URL", url)
    monkeypatch.setenv("TEMPORAL_ADDRESS", "127.0.0.1:1")
    monkeypatch.setenv("COLUMNS", "80")

    async def fill() -> None:
        registry = await Registry.open(url)
        await registry.migrate()
        target = {"channel": "email", "to": ADDRESS}
        await registry.subscriptions.create(subscription(target, id=LONG_SUBSCRIPTION, tenant="acme"))
        await registry.events.accept([PUBLISHED], f"event//shop/orders/europe/west/{LONG_EVENT}")
        group = Group(event_key=PUBLISHED.key, channel=Channel.EMAIL, subscription_ids=(LONG_SUBSCRIPTION,))
        await registry.deliveries.add("workflow", [group])
        made = Attempt(
            event_key=PUBLISHED.key,
            subscription_id=LONG_SUBSCRIPTION,
            number=1,
            started_at=NOW,
            duration=0.01,
            outcome=Outcome(kind=OutcomeKind.DEFERRED, reason="SMTP 451 4.7.1"),
            state=DeliveryState.WAITING,
            delay=300,
        )
        await registry.attempts.record([made])
        added = Suppression(channel=Channel.EMAIL, address=ADDRESS, reason=SuppressionReason.OPERATOR)
        await registry.suppressions.add(added)
        await registry.close()

    asyncio.run(fill())


@pytest.mark.parametrize(
    ("arguments", "copied"),
    [
        (["subscriptions", "list"], [LONG_SUBSCRIPTION, ADDRESS]),
        (["subscriptions", "show", LONG_SUBSCRIPTION], [LONG_SUBSCRIPTION, ADDRESS]),
        (["events", "list"], [LONG_EVENT]),
        (["events", "show", LONG_EVENT], [LONG_EVENT, LONG_SUBSCRIPTION]),
        (["deliveries", "list"], [DELIVERY, LONG_EVENT, LONG_SUBSCRIPTION]),
        (["deliveries", "show", DELIVERY], [DELIVERY, LONG_EVENT, LONG_SUBSCRIPTION]),
        (["suppressions", "list"], [ADDRESS]),
        (["templates", "list"], ["order.paid"]),
    ],
)
def test_no_table_cuts_or_wraps_an_id_at_80_columns(
    arguments: list[str], copied: list[str], filled: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 0
    out = capsys.readouterr().out
    for text in copied:
        assert text in out
    assert "…" not in out
    boxed = [line for line in out.splitlines() if re.search("[│┃━─]", line)]
    assert all(len(line) <= 80 for line in boxed)


def test_a_table_that_fits_is_one_and_a_wide_one_a_block_for_each_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    print_table(("id", "state"), [("a", "active")])
    assert "│ a  │ active │" in capsys.readouterr().out
    print_table(("id", "state"), [("a" * 100, "active"), ("b", None)], title="these")
    assert capsys.readouterr().out == f"these\nid     {'a' * 100}\nstate  active\n\nid     b\n"
    monkeypatch.delenv("COLUMNS")
    print_table(("id", "state"), [("a" * 300, "active")])
    assert f"│ {'a' * 300} │ active │" in capsys.readouterr().out


def test_deliveries_are_listed_with_event_state_and_next_attempt_in_utc(
    filled: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["deliveries", "list"]) == 0
    out = capsys.readouterr().out
    due = datetime.now(UTC) + timedelta(minutes=5)
    assert re.search(r"^state +waiting$", out, re.MULTILINE)
    found = re.search(r"^next attempt +(\S+ \S+Z)$", out, re.MULTILINE)
    assert found
    assert due - timedelta(minutes=5) < datetime.fromisoformat(found[1]) <= due
    assert main(["deliveries", "list", "--since", "1h"]) == 0
    assert LONG_EVENT in capsys.readouterr().out
    assert main(["deliveries", "list", "--since", "9000-01-01"]) == 0
    assert capsys.readouterr().out == "none\n"
