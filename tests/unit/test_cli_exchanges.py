"""`deliveries show` prints what an attempt sent and received, as other clients print it."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bellwire.contract import Group
from bellwire.deliveries import Attempt, DeliveryState, Outcome, OutcomeKind
from bellwire.exchanges import Exchange
from bellwire.registry import Registry
from bellwire.targets import Channel
from starter.cli.main import main
from tests.factories import event, subscription


@pytest.fixture
def delivery_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A delivery with three attempts; the last one kept nothing."""
    url = f"sqlite:///{tmp_path / 'registry.db'}"
    monkeypatch.setenv("BELLWIRE_REGISTRY_URL", url)
    published = event(id="1")

    async def fill() -> None:
        registry = await Registry.open(url)
        await registry.migrate()
        await registry.subscriptions.create(subscription(id="hook"))
        await registry.events.accept([published], "workflow")
        group = Group(event_key=published.key, channel=Channel.WEBHOOK, subscription_ids=("hook",))
        await registry.deliveries.add("workflow", [group])
        for number, exchanges in enumerate(
            [
                (Exchange(request="POST /first HTTP/1.1", request_body="{}"),),
                (
                    Exchange(
                        request="POST /second HTTP/1.1\nhost: app.example",
                        request_body='{"order": "42"}',
                        response="HTTP/1.1 500 Oops\nx-steer: \x1b[2J",
                        response_body="one\ntwo [bold]\x1b]0;title\x07",
                    ),
                ),
                (),
            ],
            start=1,
        ):
            made = Attempt(
                event_key=published.key,
                subscription_id="hook",
                number=number,
                started_at=datetime.now(UTC),
                duration=0.1,
                outcome=Outcome(kind=OutcomeKind.DEFERRED, reason="HTTP 500", exchanges=exchanges),
                state=DeliveryState.WAITING,
                delay=5,
            )
            await registry.attempts.record([made])
        await registry.close()

    asyncio.run(fill())
    return f"dlv_{published.key}_hook"


def test_the_last_exchange_is_printed_and_others_are_named(
    delivery_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["deliveries", "show", delivery_id]) == 0
    out, err = capsys.readouterr()
    assert (
        "attempt 2\n"
        "> POST /second HTTP/1.1\n"
        "> host: app.example\n"
        ">\n"
        '> {"order": "42"}\n'
        "< HTTP/1.1 500 Oops\n"
        "< x-steer: ?[2J\n"
        "<\n"
        "< one\n"
        "< two [bold]?]0;title?\n"
    ) in out
    assert err == "--attempt shows those of other attempts: 1\n"


def test_an_attempt_can_be_chosen(delivery_id: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["deliveries", "show", delivery_id, "--attempt", "1"]) == 0
    assert "> POST /first HTTP/1.1\n>\n> {}\n< (no response)\n" in capsys.readouterr().out
    assert main(["deliveries", "show", delivery_id, "--attempt", "3"]) == 0
    assert "attempt 3 has no exchange; BELLWIRE_KEEP_EXCHANGES" in capsys.readouterr().err


def test_json_has_the_exchanges_of_every_attempt(delivery_id: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["deliveries", "show", delivery_id, "--json"]) == 0
    log = json.loads(capsys.readouterr().out)["attempt_log"]
    assert [[each["request"].split("\n")[0] for each in one["exchanges"]] for one in log] == [
        ["POST /first HTTP/1.1"],
        ["POST /second HTTP/1.1"],
        [],
    ]
    assert set(log[0]["exchanges"][0]) == {"request", "request_body", "response", "response_body"}
