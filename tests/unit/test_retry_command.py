"""`deliveries retry` of many: what it selects and counts, and what it refuses. Temporal cannot be reached."""

import asyncio
import json
from datetime import UTC, datetime

import pytest

from bellwire.contract import Group
from bellwire.deliveries import Attempt, DeliveryState, Outcome, OutcomeKind
from bellwire.formats.counts import counted
from bellwire.registry import Registry
from bellwire.subscriptions import SubscriptionState
from bellwire.targets import Channel
from starter.cli.input.times import parse_past
from starter.cli.main import main
from starter.operations.problems import InputInvalid
from tests.factories import event, subscription
from tests.unit.test_cli import errors_of, output_of, registry_url

__all__ = ["registry_url"]

RETRY = ["deliveries", "retry"]
NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


@pytest.fixture
def url(registry_url: str) -> str:
    """Three subscriptions, one of them paused, each with one exhausted and one rejected delivery."""

    async def fill() -> None:
        registry = await Registry.open(registry_url)
        events = [event(id="paid", type="order.paid"), event(id="sent", type="order.sent")]
        await registry.events.accept(events, "workflow")
        for name, tenant in (("a", "acme-eu"), ("b", "acme-us"), ("c", "other")):
            await registry.subscriptions.create(subscription(id=name, tenant=tenant))
            for each, state, kind in zip(
                events,
                (DeliveryState.EXHAUSTED, DeliveryState.REJECTED),
                (OutcomeKind.DEFERRED, OutcomeKind.REJECTED),
                strict=True,
            ):
                group = Group(event_key=each.key, channel=Channel.WEBHOOK, subscription_ids=(name,))
                await registry.deliveries.add("workflow", [group])
                outcome = Outcome(kind=kind, reason="HTTP 500")
                at = {"event_key": each.key, "subscription_id": name, "number": 1, "started_at": datetime.now(UTC)}
                await registry.attempts.record([Attempt(**at, duration=0.1, outcome=outcome, state=state)])
        await registry.subscriptions.set_state("c", SubscriptionState.PAUSED)
        await registry.close()

    asyncio.run(fill())
    return registry_url


@pytest.mark.parametrize(
    ("arguments", "states"),
    [
        (["--subscription", "a"], {"exhausted": 1, "rejected": 1}),
        (["--subscription", "a", "--state", "exhausted"], {"exhausted": 1}),
        (["--state", "rejected, exhausted"], {"exhausted": 2, "rejected": 2}),
        (["--tenant", "acme*"], {"exhausted": 2, "rejected": 2}),
        (["--tenant", "acme-eu"], {"exhausted": 1, "rejected": 1}),
        (["--tenant", "acme"], {}),
        (["--type", "*.paid"], {"exhausted": 2}),
        (["--type", "ORDER.*"], {}),
        (["--event", "sent"], {"rejected": 2}),
        (["--event", "sent", "--subscription", "b", "--since", "1h"], {"rejected": 1}),
        (["--channel", "email"], {}),
        (["--channel", "webhook", "--since", "1h"], {"exhausted": 2, "rejected": 2}),
        (["--until", "2h"], {}),
        (["--state", "delivered,cancelled"], {}),
    ],
)
def test_a_dry_run_counts_what_is_selected(
    arguments: list[str], states: dict[str, int], url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*RETRY, *arguments, "--dry-run", "--json"]) == 0
    out, err = capsys.readouterr()
    selected = json.loads(out)
    assert (selected["states"], selected["selected"]) == (states, sum(states.values()))
    assert (selected["redelivered"], selected["left_out"]) == (0, 0)
    assert f"{counted(sum(states.values()), 'delivery')} to redeliver" in err


def test_deliveries_of_paused_subscriptions_are_counted_apart(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*RETRY, "--subscription", "c", "--dry-run"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "0 deliveries to redeliver",
        "2 more left out: the subscription is paused; `subscriptions resume` it first",
    ]


def test_the_count_says_how_long_it_takes_and_nothing_is_sent_unasked(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*RETRY, "--tenant", "acme*", "--rate", "0.1"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "4 deliveries to redeliver: 2 rejected, 2 exhausted; about 40s at 0.1 per second",
        "error: --yes: is needed where there is no terminal to ask on",
    ]


def test_without_temporal_nothing_is_done(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*RETRY, "--tenant", "acme*", "--yes"]) == 1
    assert "cannot reach Temporal at" in capsys.readouterr().err
    states = output_of(["deliveries", "list"], capsys)
    assert {each["state"] for each in states} == {"exhausted", "rejected"}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "DELIVERY_ID: give a delivery id, or options that select deliveries"),
        (["--yes"], "DELIVERY_ID: give a delivery id, or options that select deliveries"),
        (["dlv_x", "--since", "2h"], "DELIVERY_ID: cannot be combined with options that select deliveries"),
        (["dlv_x", "--event", "1"], "DELIVERY_ID: cannot be combined with options that select deliveries"),
        (["dlv_x"], "DELIVERY_ID: dlv_x is not a valid delivery id"),
        (["--subscription", "a", "--state", "waiting"], "--state: waiting is not a settled state; give cancelled"),
        (["--subscription", "a", "--state", "lost"], "--state: 'lost' is not a state of a delivery; give cancelled"),
        (["--subscription", "a", "--rate", "0"], "--rate: must be 0.01 to 1,000 per second"),
        (["--subscription", "a", "--rate", "5000"], "--rate: must be 0.01 to 1,000 per second"),
        (["--subscription", "a", "--since", "soon"], "--since: 'soon' is neither a duration nor a time"),
        (["--subscription", "a", "--since", "\u0662h"], "--since: '\u0662h' is neither a duration nor a time"),
        (["--subscription", "a", "--since", "9999999d"], "--since: '9999999d' is out of range; the longest duration"),
        (["--subscription", "a", "--since", "9999-12-31T23:00:00-10:00"], "--since: is outside the years 1 to 9999"),
        (["--subscription", "a", "--until", "tomorrow"], "--until: 'tomorrow' is neither"),
        (["--subscription", "a", "--end-pause"], "--end-pause: ends the pause of one delivery only"),
    ],
)
def test_a_bad_selection_is_refused(
    arguments: list[str], named: str, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = errors_of([*RETRY, *arguments], capsys)
    assert len(lines) == 1
    assert named in lines[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2h", "2026-11-29T10:00:00+00:00"),
        ("1d", "2026-11-28T12:00:00+00:00"),
        ("2026-11-29T08:00:00Z", "2026-11-29T08:00:00+00:00"),
        ("2026-11-29T08:00:00.5+02:00", "2026-11-29T06:00:00.500000+00:00"),
        ("2026-11-29", "2026-11-29T00:00:00+00:00"),
        ("2026-11-29T08:00:00", "2026-11-29T08:00:00+00:00"),
    ],
)
def test_a_time_is_how_long_ago_or_a_time_in_utc_or_its_zone(text: str, expected: str) -> None:
    assert parse_past("--since", text, now=NOW).isoformat() == expected


@pytest.mark.parametrize("text", ["", "yesterday", "99999999d", "-2h", "T"])
def test_any_other_time_is_refused(text: str) -> None:
    with pytest.raises(InputInvalid, match=r"^--since: "):
        parse_past("--since", text, now=NOW)
