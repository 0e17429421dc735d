"""Times, durations, numbers and tenants on the command line: what is out of range is one clear line."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from bellwire.deliveries import Counts
from bellwire.errors import EventConflict
from bellwire.events import Event
from bellwire.receipts import Receipt, Status
from starter.cli.main import main
from tests.unit.test_cli import MAIL, PUBLISH, SUBSCRIBE, errors_of, registry_url

__all__ = ["registry_url"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["suppressions", "--before", "0001-01-01T00:00:00+14:00"], "--before: is outside the years 1 to 9999 in UTC"),
        (["suppressions", "--before", "9999-12-31T23:59:59-00:01"], "--before: is outside the years 1 to 9999 in UTC"),
        (
            ["suppressions", "--before", "\u0662\u0660\u0662\u0666-11-23"],
            "is not a valid time; write it as 2026",
        ),
        (["suppressions", "--before", "0000-01-01"], "--before: '0000-01-01' is not a valid time"),
        (["purge", "--older-than", "99999999999999d"], "--older-than: '99999999999999d' is out of range"),
        (["purge", "--older-than", "\u0663\u0660d"], "is not a valid duration"),
        ([*SUBSCRIBE, *MAIL, "--retry", "9" * 400 + "d"], "is out of range"),
        (["limits", "set", "sms", "\u0661\u0660"], "is not a number from"),
        ([*SUBSCRIBE, *MAIL, "--rate-limit", "\u0665"], "'--rate-limit': must be a number"),
        (["deliveries", "list", "--limit", "\u0665"], "'--limit': must be a whole number"),
        (["deliveries", "list", "--limit", "0"], "'--limit': must be greater than or equal to 1"),
        (["deliveries", "list", "--state", "lost"], "'--state': 'lost' is not one of 'pending', "),
        ([*PUBLISH, "--wait", "-1"], "'--wait': must be greater than or equal to 0"),
    ],
)
def test_values_out_of_range_are_refused(
    arguments: list[str], named: str, registry_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (line,) = errors_of(arguments, capsys)
    assert named in line


def test_an_event_for_an_unknown_tenant_is_refused_by_setting(
    registry_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BELLWIRE_UNKNOWN_TENANTS", "refuse")
    (line,) = errors_of([*PUBLISH, "--tenant", "acmee"], capsys)
    assert line == (
        "error: --tenant: acmee: no subscription was ever stored for it; check the spelling; "
        "BELLWIRE_UNKNOWN_TENANTS refuses it, so nothing was published"
    )


def test_publishing_needs_no_registry_and_creates_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "none.db"
    monkeypatch.setenv("BELLWIRE_REGISTRY_URL", f"sqlite:///{file}")
    monkeypatch.setenv("BELLWIRE_UNKNOWN_TENANTS", "refuse")
    monkeypatch.setenv("TEMPORAL_ADDRESS", "127.0.0.1:1")
    assert main([*PUBLISH, "--tenant", "acmee"]) == 1
    assert "cannot reach Temporal" in capsys.readouterr().err
    assert not file.exists()


class OneConflict:
    """A client with which the first of the published events turns out to be a conflict."""

    async def publish_many(self, events: Sequence[Event], *, deliver_at: None = None) -> list[Receipt]:
        return [
            Receipt(event_id=each.id, source=each.source, workflow_id="events/1", duplicate=False) for each in events
        ]

    async def wait_many(self, _: Sequence[Receipt], __: float) -> list[Status]:
        raise EventConflict("event 1 of /shop was published before with other content")

    async def status(self, receipt: Receipt) -> Status:
        if receipt.event_id == "1":
            raise EventConflict("event 1 of /shop was published before with other content")
        counts = Counts(matched=1, delivered=1)
        return Status(source=receipt.source, id=receipt.event_id, workflow_id="events/1", counts=counts, settled=True)


def test_a_conflict_of_one_event_does_not_hide_the_others(
    tmp_path: Path, registry_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def connected() -> OneConflict:
        return OneConflict()

    monkeypatch.setattr("starter.cli.delivery.publish.connected", connected)
    file = tmp_path / "events.json"
    file.write_text(json.dumps([{"id": number, "source": "/shop", "type": "order.paid"} for number in ("1", "2")]))
    assert main(["publish", str(file), "--wait", "1", "--json"]) == 1
    out, err = capsys.readouterr()
    assert [(one["event_id"], one["settled"]) for one in json.loads(out)] == [("1", False), ("2", True)]
    assert err.splitlines()[-1] == "error: event 1 of /shop was published before with other content"
