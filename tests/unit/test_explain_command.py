"""`explain` and `subscriptions simulate`: what they print for people and as JSON."""

import asyncio
import json
from pathlib import Path

import pytest

from bellwire.contract import Group
from bellwire.registry import Registry
from bellwire.targets import Channel
from starter.cli.main import main
from tests.factories import event, subscription
from tests.unit.test_cli import errors_of, output_of, registry_url

__all__ = ["registry_url"]

SIMULATE = ["subscriptions", "simulate", "--tenant", "acme"]


@pytest.fixture(autouse=True)
def url(registry_url: str) -> str:
    async def fill() -> None:
        registry = await Registry.open(registry_url)
        for fields in (
            {"id": "matching"},
            {"id": "by-type", "types": ["user.*"]},
            {"id": "by-filter", "filters": [{"exact": {"subject": "43"}}]},
            {"id": "by-state", "state": "paused", "state_reason": "holidays"},
            {"id": "of-another", "tenant": "globex"},
        ):
            await registry.subscriptions.create(subscription(**fields))
        for name in ("e1", "e2"):
            accepted = event(id=name, subject="42")
            await registry.events.accept([accepted], f"event//shop/{name}")
            if name == "e1":
                group = Group(event_key=accepted.key, channel=Channel.WEBHOOK, subscription_ids=("matching",))
                await registry.deliveries.add(f"event//shop/{name}", [group])
        await registry.events.accept([event(id="e1", source="/other")], "event//other/e1")
        await registry.close()

    asyncio.run(fill())
    return registry_url


def test_the_steps_of_one_subscription_are_marked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "e2", "--subscription", "by-filter"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert '✗ filter       The filter does not match: subject is "42", not "43".' in lines
    assert "✓ state        The subscription is active." in lines
    assert "✗ delivery     No delivery is recorded." in lines
    assert next(line for line in lines if line.startswith("result")).split(maxsplit=1)[1] == (
        'Not matched. The filter does not match: subject is "42", not "43".'
    )


def test_the_subscriptions_of_the_tenant_are_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "e1", "--source", "/shop"]) == 0
    out, err = capsys.readouterr()
    order = [out.index(name) for name in ("matching", "by-state", "by-filter", "by-type")]
    assert order == sorted(order)
    assert "globex" not in out
    assert "type: The type order.paid does not match user.*." in out
    assert err == "1 matched; looked at 4 subscriptions of acme\n"
    assert main(["explain", "e2", "--limit", "2"]) == 0
    out, err = capsys.readouterr()
    assert ("by-state" in out, "by-type" in out) == (True, False)
    assert err == "nobody matched; looked at 4 subscriptions of acme, the closest first\n"
    assert main(["explain", "e1", "--source", "/shop", "--limit", "3"]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "1 matched; looked at 3 subscriptions of acme",
        "there may be more: --after by-type",
    ]
    assert main(["explain", "e1", "--source", "/shop", "--after", "by-type"]) == 0
    assert "by-state" not in capsys.readouterr().out


def test_json_has_all_steps(capsys: pytest.CaptureFixture[str]) -> None:
    page = output_of(["explain", "e2"], capsys)
    assert (page["matched"], page["looked_at"], page["next"]) == (0, 4, None)
    assert page["event"] == {"source": "/shop", "id": "e2", "type": "order.paid"}
    first = page["subscriptions"][0]
    assert (first["subscription"], first["matched"], first["matches_now"]) == ("matching", False, True)
    one = output_of(["explain", "e1", "--source", "/shop", "--subscription", "matching"], capsys)
    assert (one["matched"], one["delivery"]["state"]) == (True, "pending")
    assert {step["name"] for step in one["steps"]} >= {"tenant", "type", "filter", "state", "delivery"}
    assert one["changes"] == []


def test_what_does_not_exist_or_is_not_clear_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert "2 events have the id e1" in errors_of(["explain", "e1"], capsys)[0]
    assert main(["explain", "none"]) == 1
    assert "no event none is known" in capsys.readouterr().err
    assert main(["explain", "e2", "--subscription", "none"]) == 1
    assert "no subscription none exists" in capsys.readouterr().err


def test_another_tenants_subscription_says_whose_event_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "e2", "--subscription", "of-another"]) == 0
    assert "The event is for acme; the subscription belongs to globex." in capsys.readouterr().out


def test_types_and_filters_are_tried(capsys: pytest.CaptureFixture[str]) -> None:
    filters = ["--filter", '{"exact": {"source": "/other"}}']
    assert main([*SIMULATE, "--type", "order.*", *filters]) == 0
    out, err = capsys.readouterr()
    assert out.index("matched") < out.index("/other") < out.index("not matched")
    assert 'source is "/shop", not "/other"' in out
    assert err == "1 of 3 events of acme matched\n"
    found = output_of([*SIMULATE, "--type", "order.*", "--last", "2", "--show", "1", *filters], capsys)
    assert (found["looked_at"], found["matched"]) == (2, 1)
    assert ([each["source"] for each in found["matches"]], len(found["others"])) == (["/other"], 1)


def test_a_subscription_in_a_file_is_tried_by_what_it_matches(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "subscription.json"
    file.write_text(json.dumps({"tenant": "acme", "types": ["*"], "target": {"channel": "sms", "to": "+14155550123"}}))
    found = output_of(["subscriptions", "simulate", "--file", str(file)], capsys)
    assert (found["tenant"], found["matched"]) == ("acme", 3)
    assert errors_of(["subscriptions", "simulate", "--file", str(file), "--type", "a"], capsys) == [
        "error: --file: cannot be combined with other options; omit them"
    ]


def test_without_types_all_are_tried(capsys: pytest.CaptureFixture[str]) -> None:
    assert output_of(SIMULATE, capsys)["matched"] == 3


def test_a_bad_option_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert errors_of([*SIMULATE, "--type", "a", "--filter", "{"], capsys)[0].startswith("error: --filter: is not valid")
    assert "filters" in errors_of([*SIMULATE, "--type", "a", "--filter", '{"no": 1}'], capsys)[0]
