"""The command line against a real SQLite registry: errors name their field and nothing is stored; JSON has its shape."""

import asyncio
import json
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bellwire.contract import Group
from bellwire.deliveries import Attempt, Counts, DeliveryState, Outcome, OutcomeKind, SmsFacts
from bellwire.events import Event
from bellwire.receipts import Status
from bellwire.registry import Registry, StoredEvent
from bellwire.sms.receipts import SmsReceipt, SmsReceiptStatus
from bellwire.subscriptions import Subscription
from bellwire.targets import Channel
from bellwire.targets.sms_segments import Encoding
from starter.cli.input.documents import read_items
from starter.cli.input.durations import parse_schedule
from starter.cli.main import main
from starter.operations.delivery.events import LiveStatus
from starter.operations.problems import InputInvalid
from tests.factories import NOW, event, subscription

SUBSCRIBE = ["subscribe", "--tenant", "acme", "--type", "order.*"]
HOOK = ["--webhook", "https://app.example/hooks"]
MAIL = ["--email", "ann@example.com"]
GOOD = {"tenant": "acme", "types": ["order.*"], "target": {"channel": "email", "to": "ann@example.com"}}
PUBLISH = ["publish", "--type", "order.paid", "--source", "/shop"]


@pytest.fixture
def registry_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty registry, which commands use; Temporal cannot be reached."""
    url = f"sqlite:///{tmp_path / 'registry.db'}"
    monkeypatch.setenv("BELLWIRE_REGISTRY_URL", url)
    monkeypatch.setenv("TEMPORAL_ADDRESS", "127.0.0.1:1")

    async def prepare() -> None:
        registry = await Registry.open(url)
        await registry.migrate()
        await registry.close()

    asyncio.run(prepare())
    return url


def stored(url: str) -> Sequence[Subscription]:
    async def read() -> Sequence[Subscription]:
        registry = await Registry.open(url)
        try:
            return await registry.subscriptions.list()
        finally:
            await registry.close()

    return asyncio.run(read())


def output_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> Any:
    """The JSON that a command prints. It must succeed."""
    status = main([*arguments, "--json"])
    out, err = capsys.readouterr()
    assert (status, err) == (0, "")
    return json.loads(out)


def errors_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The error lines of a command. It must refuse its input."""
    status = main(arguments)
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    return err.splitlines()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["subscribe", "--tenant", "*", "--type", "a", *MAIL], "tenant: is *, which addresses an event to all tenants"),
        (["subscribe", "--tenant", "acme", *MAIL], "--type: is missing"),
        (SUBSCRIBE, "target: give exactly one of --email, --sms, --webhook and --poll"),
        ([*SUBSCRIBE, *MAIL, *HOOK], "target: give exactly one"),
        ([*SUBSCRIBE, "--email", "ann"], "to"),
        ([*SUBSCRIBE, "--email", "ann@example.com", "--email", "bob"], "to"),
        ([*SUBSCRIBE, "--sms", "0123"], "target.to: is not an E.164 number"),
        ([*SUBSCRIBE, "--sms", "+14155550123", "--sms-sender", "+1"], "target.sender: is not a sender"),
        ([*SUBSCRIBE, *MAIL, "--max-segments", "2"], "--max-segments: only for --sms"),
        ([*SUBSCRIBE, "--webhook", "ftp://app.example"], "target.url: must be an http or https URL"),
        ([*SUBSCRIBE, "--webhook", "http://app.example"], "target.url: http is not allowed here"),
        ([*SUBSCRIBE, "--webhook", "https://app.example:0"], "target.url: has port 0"),
        ([*SUBSCRIBE, "--webhook", "https://app.example:22"], "target.url: port 22 is not one of 80, 443"),
        ([*SUBSCRIBE, "--type", "a*b", *MAIL], "types.1: is not a valid pattern"),
        ([*SUBSCRIBE, *MAIL, "--filter", "{"], "--filter: is not valid JSON"),
        ([*SUBSCRIBE, *MAIL, "--filter", '{"regex": {}}'], "filters.0: is not a valid filter"),
        ([*SUBSCRIBE, *MAIL, "--template", "no.such"], "--template: no template no.such exists for email"),
        ([*SUBSCRIBE, *MAIL, "--locale", "english!"], "locale: must be a BCP 47"),
        ([*SUBSCRIBE, *MAIL, "--retry", "5s,soon"], "--retry: 'soon' is not a valid duration"),
        ([*SUBSCRIBE, *MAIL, "--retry", "8d"], "retry_schedule.0"),
        ([*SUBSCRIBE, *MAIL, "--rate-limit", "many"], "--rate-limit"),
        ([*SUBSCRIBE, *MAIL, "--rate-limit", "0"], "--rate-limit: must be greater than or equal to 0.001"),
        ([*SUBSCRIBE, *MAIL, "--rate-limit", "1e5"], "--rate-limit: must be less than or equal to 10000"),
        ([*SUBSCRIBE, *MAIL, "--id", "a b"], "id: must be 1 to 63"),
        ([*SUBSCRIBE, *MAIL, "--secret", "whsec_x"], "secret: only webhooks are signed"),
        ([*SUBSCRIBE, *HOOK, "--secret", "whsec_x"], "secret: must be whsec_"),
        ([*SUBSCRIBE, "--file", "x.json"], "--file: cannot be combined with other options"),
        (["subscribe", "--file", "nowhere.json"], "nowhere.json: cannot be read"),
        (
            [*SUBSCRIBE, *HOOK, "--handshake"],
            "target.handshake: the handshake needs an origin; set BELLWIRE_WEBHOOK_ORIGIN",
        ),
        ([*SUBSCRIBE, *MAIL, "--handshake"], "handshake"),
        (["subscribe", "--colour", "red"], "--colour"),
    ],
)
def test_a_bad_subscription_is_refused_with_its_field_and_not_stored(
    arguments: list[str], named: str, registry_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = errors_of(arguments, capsys)
    assert len(lines) == 1
    assert named in lines[0]
    assert stored(registry_url) == []


def test_a_webhook_can_require_a_handshake(
    registry_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BELLWIRE_WEBHOOK_ORIGIN", "notifications.example.com")
    assert output_of([*SUBSCRIBE, *HOOK, "--handshake"], capsys)["target"]["handshake"] is True
    assert [each.target.model_dump()["handshake"] for each in stored(registry_url)] == [True]


def test_with_one_bad_subscription_no_subscription_of_a_file_is_stored_and_every_bad_one_is_named(
    registry_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "many.json"
    file.write_text(json.dumps([GOOD, {**GOOD, "tenant": "a b"}, 7, {**GOOD, "colour": "red"}]))
    lines = errors_of(["subscribe", "--file", str(file)], capsys)
    assert [line[: len("error: item 2: tenant")] for line in lines] == [
        "error: item 2: tenant",
        "error: item 3: is not",
        "error: item 4: colour",
    ]
    assert stored(registry_url) == []


def test_with_an_id_given_twice_no_subscription_of_a_file_is_stored(
    registry_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SUBSCRIBE, *MAIL, "--id", "first"]) == 0
    capsys.readouterr()
    file = tmp_path / "many.jsonl"
    file.write_text("\n".join(json.dumps({**GOOD, "id": name}) for name in ("second", "first", "second")))
    lines = errors_of(["subscribe", "--file", str(file)], capsys)
    assert ["line 2: id: first is already in use" in lines[0], "line 3: id: second is given twice" in lines[1]] == [
        True,
        True,
    ]
    assert [each.id for each in stored(registry_url)] == ["first"]


def test_a_webhook_gets_a_generated_secret_or_keeps_its_own(
    registry_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = output_of([*SUBSCRIBE, *HOOK, "--id", "made", "--retry", "5s,5m,1h"], capsys)
    assert made["secret"].startswith("whsec_")
    assert (made["id"], made["retry_schedule"]) == ("made", [5.0, 300.0, 3600.0])
    brought = {**GOOD, "target": {"channel": "webhook", "url": HOOK[1]}, "secret": made["secret"], "id": "brought"}
    file = tmp_path / "one.json"
    file.write_text(json.dumps(brought))
    assert [one["secret"] for one in output_of(["subscribe", "--file", str(file)], capsys)] == [made["secret"]]
    shown = output_of(["subscriptions", "show", "brought"], capsys)
    assert "secret" not in shown


def test_attachments_are_stored_with_the_target(registry_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert output_of([*SUBSCRIBE, *MAIL, "--id", "files", "--attachments"], capsys)["target"]["attachments"] is True
    assert output_of([*SUBSCRIBE, *MAIL, "--id", "none"], capsys)["target"]["attachments"] is False
    assert [getattr(each.target, "attachments", None) for each in stored(registry_url)] == [True, False]
    assert "--attachments: only emails" in errors_of([*SUBSCRIBE, *HOOK, "--attachments"], capsys)[0]


def test_a_rate_limit_is_read_from_an_option_or_a_file_and_shown(
    registry_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert output_of([*SUBSCRIBE, *HOOK, "--id", "option", "--rate-limit", "0.5"], capsys)["rate_limit"] == 0.5
    file = tmp_path / "many.json"
    file.write_text(json.dumps([{**GOOD, "id": "file", "rate_limit": 20}, {**GOOD, "id": "free"}]))
    output_of(["subscribe", "--file", str(file)], capsys)
    listed = {one["id"]: one["rate_limit"] for one in output_of(["subscriptions"], capsys)}
    assert listed == {"option": 0.5, "file": 20, "free": None}
    assert {each.id: each.rate_limit for each in stored(registry_url)} == listed
    shown = {}
    for name in listed:
        assert main(["subscriptions", "show", name]) == 0
        shown[name] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("rate limit")]
    assert [line.split(maxsplit=2)[2].strip() for line in shown["option"] + shown["file"]] == [
        "0.5 per second",
        "20 per second",
    ]
    assert shown["free"] == []


def test_subscriptions_are_listed_paused_and_resumed(registry_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    negation = '{"not": {"prefix": {"source": "/legacy"}}}'
    output_of([*SUBSCRIBE, *MAIL, "--id", "mail", "--filter", negation], capsys)
    output_of([*SUBSCRIBE, *HOOK, "--id", "hook"], capsys)
    assert [one["id"] for one in output_of(["subscriptions"], capsys)] == ["hook", "mail"]
    assert [one["id"] for one in output_of(["subscriptions", "--channel", "email"], capsys)] == ["mail"]
    assert output_of(["subscriptions", "show", "mail"], capsys)["filters"] == [json.loads(negation)]
    paused = output_of(["subscriptions", "pause", "mail", "--reason", "holidays"], capsys)
    assert (paused["state"], paused["state_reason"]) == ("paused", "holidays")
    assert [one["id"] for one in output_of(["subscriptions", "--state", "active"], capsys)] == ["hook"]
    assert output_of(["subscriptions", "resume", "mail"], capsys)["state"] == "active"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["subscriptions", "show", "unknown"], "subscription"),
        (["events", "show", "nothing"], "no event nothing is known"),
        (["deliveries", "show", f"dlv_{'a' * 26}_unknown"], "no delivery"),
        (["deliveries", "retry", "--event", "nothing", "--subscription", "s"], "no event nothing is known"),
        (PUBLISH, "cannot reach Temporal at 127.0.0.1:1"),
        (["setup"], "cannot reach Temporal at 127.0.0.1:1"),
    ],
)
def test_a_failure_is_one_line_with_status_one(
    arguments: list[str], message: str, registry_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(arguments)
    lines = capsys.readouterr().err.splitlines()
    assert (status, len(lines)) == (1, 1)
    assert message in lines[0]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["publish"], "--type and --source"),
        (["publish", "--type", "order.paid"], "source: is missing"),
        (["publish", "--source", "/shop"], "type: is missing"),
        (["publish", "--type", "order.paid", "--source", "a b"], "source: is not a valid URI-reference"),
        ([*PUBLISH, "--data", "{"], "--data: is not valid JSON"),
        ([*PUBLISH, "--data", '{"n": NaN}'], "--data: is not valid JSON: NaN"),
        ([*PUBLISH, "--data", "@nowhere.json"], "--data: nowhere.json: cannot be read"),
        ([*PUBLISH, "--time", "yesterday"], "time: is not a valid RFC 3339 timestamp"),
        ([*PUBLISH, "--time", "0001-01-01T00:00:00+14:00"], "time: is outside the years 1 to 9999 in UTC"),
        ([*PUBLISH, "--time", "9999-12-31T23:59:59-14:00"], "time: is outside the years 1 to 9999 in UTC"),
        (
            [*PUBLISH, "--data", '{"total": 1, "total": 2}'],
            "--data: is not valid JSON: total: is given twice in one object",
        ),
        ([*PUBLISH, "--data", "9" * 5000], "--data: is not valid JSON: holds an integer of more than 1,000 digits"),
        (["events", "show", "\udcff"], "argument 3: is not UTF-8"),
        ([*PUBLISH, "--extension", "specversion=0.3"], "specversion is not an extension; it is always 1.0"),
        ([*PUBLISH, "--tenant", "a b"], "tenant: must be 1 to 63"),
        ([*PUBLISH, "--extension", "severity"], "--extension: 'severity' is not NAME=VALUE"),
        ([*PUBLISH, "--extension", "Severity=1"], "Severity: extension attribute names"),
        ([*PUBLISH, "--extension", "id=1"], "--extension: id is not an extension; use --id"),
        ([*PUBLISH, "--wait", "-1"], "--wait"),
        (
            ["publish", "events.json", "--type", "order.paid"],
            "events.json: cannot be combined with options of the event",
        ),
        (["deliveries", "show", "dlv_x"], "DELIVERY_ID: dlv_x is not a valid delivery id"),
        (["deliveries", "retry"], "DELIVERY_ID: give a delivery id"),
        (["deliveries", "list", "--source", "/shop"], "--source: needs an event id"),
        (["deliveries", "list", "--state", "lost"], "--state"),
        (["templates", "preview", "order.paid", "--data", "{"], "--data: is not valid JSON"),
    ],
)
def test_bad_input_is_refused_before_a_server_is_reached(
    arguments: list[str], named: str, registry_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = errors_of(arguments, capsys)
    assert len(lines) == 1
    assert named in lines[0]


def test_every_bad_event_of_a_file_is_named_by_line_and_field(
    registry_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = {"id": "1", "source": "/shop", "type": "order.paid"}
    bad = [{**good, "source": "a b"}, {**good, "data": {"other": "content"}}, {"source": "/shop"}]
    file = tmp_path / "events.jsonl"
    file.write_text("\n".join(map(json.dumps, [good, *bad])))
    lines = errors_of(["publish", str(file)], capsys)
    assert [line.removeprefix("error: ").split(":")[:2] for line in lines] == [
        ["line 2", " source"],
        ["line 3", " id"],
        ["line 4", " type"],
    ]
    file.write_text(json.dumps(good) + '\n{"id": "2", "source": "/shop", "type": "order.paid", "id": "3"}\n')
    assert [
        "line 2: is not valid JSON: id: is given twice" in line for line in errors_of(["publish", str(file)], capsys)
    ] == [True]
    file.write_text(json.dumps(good) + "\n{oops}\n")
    assert ["line 2: is not valid JSON" in line for line in errors_of(["publish", str(file)], capsys)] == [True]


def test_a_bad_setting_is_named_by_its_variable(
    registry_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BELLWIRE_SMTP_PORT", "many")
    assert ["BELLWIRE_SMTP_PORT" in line for line in errors_of(["subscriptions"], capsys)] == [True]
    monkeypatch.delenv("BELLWIRE_SMTP_PORT")
    monkeypatch.setenv("BELLWIRE_TEMPLATES", "nowhere")
    assert [
        "BELLWIRE_TEMPLATES: nowhere is not a folder" in line for line in errors_of(["templates", "list"], capsys)
    ] == [True]


def test_the_error_for_a_registry_without_tables_names_the_command_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "empty.db"
    file.touch()
    monkeypatch.setenv("BELLWIRE_REGISTRY_URL", f"sqlite:///{file}")
    assert main(["events", "list"]) == 1
    assert "python -m starter setup" in capsys.readouterr().err


def attempted(url: str) -> tuple[Event, Subscription]:
    """An event in the registry with one delivery that was deferred once."""

    async def write() -> tuple[Event, Subscription]:
        registry = await Registry.open(url)
        try:
            published, matched = event(id="1", tenant="acme"), subscription(id="hook")
            await registry.subscriptions.create(matched)
            await registry.events.accept([published], "event//shop/1")
            group = Group(event_key=published.key, channel=Channel.WEBHOOK, subscription_ids=(matched.id,))
            await registry.deliveries.add("event//shop/1", [group])
            made = Attempt(
                event_key=published.key,
                subscription_id=matched.id,
                number=1,
                started_at=NOW,
                duration=0.01,
                outcome=Outcome(kind=OutcomeKind.DEFERRED, reason="HTTP 503", response="\x1b[2J sorry"),
                state=DeliveryState.WAITING,
                delay=300,
            )
            await registry.attempts.record([made])
            return published, matched
        finally:
            await registry.close()

    return asyncio.run(write())


def test_an_event_is_shown_with_its_deliveries_although_temporal_is_down(
    registry_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    published, matched = attempted(registry_url)
    assert main(["events", "show", "1", "--json"]) == 0
    out, err = capsys.readouterr()
    shown = json.loads(out)
    assert shown["event"] == published.structured()
    assert (shown["key"], shown["live"], shown["counts"]["matched"]) == (published.key, None, 1)
    delivery = shown["deliveries"][0]
    assert (delivery["subscription_id"], delivery["state"], delivery["attempt_log"][0]["number"]) == (
        matched.id,
        "waiting",
        1,
    )
    assert "Temporal cannot report the status" in err


def test_an_event_that_was_redelivered_has_the_result_of_the_registry(
    registry_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run of the event has ended before, and says what was the result then."""
    attempted(registry_url)

    async def ended(_: object, stored: StoredEvent) -> LiveStatus:
        counts = Counts(matched=1, exhausted=1)
        return LiveStatus(
            status=Status(source="/shop", id="1", workflow_id=stored.workflow_id, settled=True, counts=counts)
        )

    monkeypatch.setattr("starter.cli.delivery.events.live_status", ended)
    assert main(["events", "show", "1"]) == 0
    assert "not settled: 1 unsettled of 1" in capsys.readouterr().out


def test_deliveries_are_listed_and_shown(registry_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    published, matched = attempted(registry_url)
    listed = output_of(["deliveries", "list", "--event", "1", "--state", "waiting"], capsys)
    assert [one["id"] for one in listed] == [f"dlv_{published.key}_{matched.id}"]
    assert output_of(["deliveries", "list", "--after", listed[0]["id"]], capsys) == []
    shown = output_of(["deliveries", "show", listed[0]["id"]], capsys)
    assert shown["event"] == {"source": "/shop", "id": "1", "type": "order.paid"}
    assert [one["event"]["id"] for one in output_of(["events", "list", "--tenant", "acme"], capsys)] == ["1"]


def test_tables_contain_no_control_characters_of_responses(
    registry_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    published, matched = attempted(registry_url)
    assert main(["deliveries", "show", f"dlv_{published.key}_{matched.id}"]) == 0
    out = capsys.readouterr().out
    assert "HTTP 503" in out
    assert "5m" in out
    assert "\x1b[2J" not in out


def test_the_segments_cost_and_receipt_of_an_sms_are_shown(
    registry_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    published, matched = event(id="1"), subscription({"channel": "sms", "to": "+14155550123"}, id="sub_sms")
    facts = SmsFacts(encoding=Encoding.GSM_7, segments=2, provider="twilio", estimate=Decimal("0.145"), currency="EUR")

    async def fill() -> None:
        registry = await Registry.open(registry_url)
        await registry.subscriptions.create(matched)
        await registry.events.accept([published], "run")
        await registry.deliveries.add(
            "run", [Group(event_key=published.key, channel=Channel.SMS, subscription_ids=(matched.id,))]
        )
        outcome = Outcome(kind=OutcomeKind.DELIVERED, reason="Twilio 201", provider_id="SM1", sms=facts)
        made = Attempt(
            event_key=published.key,
            subscription_id=matched.id,
            number=1,
            started_at=NOW,
            duration=0.1,
            outcome=outcome,
            state=DeliveryState.DELIVERED,
        )
        await registry.attempts.record([made])
        fields = {"status": SmsReceiptStatus.UNDELIVERED, "code": "30003", "received_at": NOW}
        await registry.sms_receipts.record(
            SmsReceipt(event_key=published.key, subscription_id=matched.id, provider_id="SM1", **fields)
        )
        await registry.close()

    asyncio.run(fill())
    shown = output_of(["deliveries", "show", f"dlv_{published.key}_{matched.id}"], capsys)
    assert (shown["state"], shown["receipt"]["status"]) == ("delivered", "undelivered")
    assert shown["attempt_log"][0]["outcome"]["sms"]["estimate"] == "0.145"
    (listed,) = output_of(["deliveries", "list"], capsys)
    assert listed["receipt"]["code"] == "30003"
    for words in (["list"], ["show", f"dlv_{published.key}_{matched.id}"]):
        assert main(["deliveries", *words]) == 0
        assert "undelivered 30003" in capsys.readouterr().out
    assert main(["deliveries", "show", f"dlv_{published.key}_{matched.id}"]) == 0
    out = capsys.readouterr().out
    assert "2 (GSM-7)" in out
    assert "0.145 EUR" in out


def test_a_subscription_can_name_only_a_sender_that_the_operator_allows(
    registry_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BELLWIRE_SMS_SENDERS", "+14155550100,Acme")
    options = [*SUBSCRIBE, "--sms", "+14155550123", "--max-segments", "3", "--sms-sender"]
    assert "target.sender: Other is not one of +14155550100, Acme" in errors_of([*options, "Other"], capsys)[0]
    assert output_of([*options, "Acme"], capsys)["target"]["sender"] == "Acme"
    assert [each.target.model_dump()["max_segments"] for each in stored(registry_url)] == [3]


@pytest.mark.parametrize(
    ("text", "delays"), [("5s,5m,1h", (5, 300, 3600)), (" 1.5s , 1d ", (1.5, 86_400)), ("none", ())]
)
def test_a_retry_schedule_is_read_in_seconds(text: str, delays: tuple[float, ...]) -> None:
    assert parse_schedule(text) == delays


@pytest.mark.parametrize("text", ["", "5", "5s,", "-5s", "5 weeks", "s"])
def test_an_invalid_retry_schedule_is_refused(text: str) -> None:
    with pytest.raises(InputInvalid, match="--retry"):
        parse_schedule(text)


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ('{"a": 1}', ["{file}"]),
        ('{\n  "a": 1\n}', ["{file}"]),
        ('[{"a": 1},\n{"a": 2}]', ["item 1", "item 2"]),
        ('{"a": 1}\n\n{"a": 2}\n', ["line 1", "line 3"]),
        ('{"a": "\u2028"}\n{"a": 2}', ["line 1", "line 2"]),
        ('\ufeff{"a": 1}', ["{file}"]),
    ],
)
def test_an_object_an_array_and_json_lines_are_distinguished(text: str, places: list[str], tmp_path: Path) -> None:
    file = tmp_path / "input.json"
    file.write_text(text, encoding="utf-8")
    assert [item.place for item in read_items(str(file))] == [place.format(file=file) for place in places]


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff{}", b"[" * 100_000, b'{"a": Infinity}'])
def test_an_invalid_document_is_refused(data: bytes, tmp_path: Path) -> None:
    file = tmp_path / "input.json"
    file.write_bytes(data)
    with pytest.raises(InputInvalid, match=r"input\.json"):
        read_items(str(file))
