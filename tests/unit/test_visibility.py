"""Labels and the details table that a workflow shows to operators."""

from datetime import UTC, datetime

import pytest

from bellwire.deliveries import DeliveryState, Failed, Unsettled
from bellwire.formats.counts import counted
from bellwire.formats.json_sizes import json_bytes
from bellwire.targets import Channel
from workflows.agenda import Entry
from workflows.rounds.visibility import MAX_ROWS, failed_details, send_summary, timer_summary, unsettled_details

DUE = datetime(2026, 11, 23, 8, 0, 0, 999_999, tzinfo=UTC)


def entry(number: int = 0, *, attempts: int = 0, reason: str = "") -> Entry:
    return Entry("e", f"s{number}", Channel.WEBHOOK, attempts, 0.0, reason)


def unsettled(
    number: int = 0, *, reason: str = "HTTP 503", due: datetime | None = DUE, paused: bool = False
) -> Unsettled:
    return Unsettled(
        event_key="e",
        subscription_id=f"s{number}",
        channel=Channel.WEBHOOK,
        attempts=3,
        reason=reason,
        due=due,
        paused=paused,
    )


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (1, "delivery", "1 delivery"),
        (0, "delivery", "0 deliveries"),
        (1234, "delivery", "1,234 deliveries"),
        (2, "receiver", "2 receivers"),
    ],
)
def test_a_noun_is_plural_unless_the_count_is_one(number: int, noun: str, text: str) -> None:
    assert counted(number, noun) == text


@pytest.mark.parametrize(
    ("attempts", "text"),
    [
        ([0], "webhook: 1 delivery, attempt 1"),
        ([3, 3, 3], "webhook: 3 deliveries, attempt 4"),
        ([5, 1, 3], "webhook: 3 deliveries, attempts 2 to 6"),
    ],
)
def test_the_label_of_an_activity_has_channel_count_and_attempt(attempts: list[int], text: str) -> None:
    assert send_summary([entry(number, attempts=made) for number, made in enumerate(attempts)]) == text


@pytest.mark.parametrize(
    ("reasons", "text"),
    [
        ([], "next attempt in 30m"),
        ([""], "next attempt in 30m"),
        (["HTTP 503"], "next attempt in 30m: HTTP 503 from 1 receiver"),
        (
            ["timeout", "HTTP 503", "HTTP 503"],
            "next attempt in 30m: HTTP 503 from 2 receivers, timeout from 1 receiver",
        ),
        (["a", "b", "c", "d"], "next attempt in 30m: a from 1 receiver, b from 1 receiver, c from 1 receiver"),
    ],
)
def test_the_label_of_a_timer_has_the_reasons(reasons: list[str], text: str) -> None:
    assert timer_summary([entry(number, reason=reason) for number, reason in enumerate(reasons)], 1800) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.25, "0.25s"),
        (5.252, "5.25s"),
        (321.4, "5m21s"),
        (1890, "32m"),
        (3700, "1h2m"),
        (86_400 * 1.07, "1d2h"),
    ],
)
def test_the_label_of_a_timer_has_a_rounded_duration(seconds: float, text: str) -> None:
    assert timer_summary([], seconds) == f"next attempt in {text}"


def test_the_label_of_a_timer_is_cut_to_what_temporal_accepts() -> None:
    # The server fails a workflow task whose label has more than 400 bytes; encryption makes labels longer.
    reasons = [f"{number}{'ü' * 119}" for number in range(3)]
    text = timer_summary([entry(number, reason=reason) for number, reason in enumerate(reasons)], 1800)
    assert text.startswith("next attempt in 30m: 0ü")
    assert 196 <= len(text.encode()) <= 198  # and the quotes of JSON
    quotes = timer_summary([entry(reason='"' * 200)], 1800)
    assert json_bytes(quotes) <= 200


def test_without_unsettled_deliveries_there_are_no_details() -> None:
    assert unsettled_details((), 0) == ""


def test_the_details_list_subscription_reason_and_next_attempt() -> None:
    shown = unsettled_details((unsettled(0), unsettled(1, paused=True, due=None), unsettled(2, reason="", due=None)), 3)
    assert shown.splitlines() == [
        "3 deliveries unsettled",
        "",
        "| subscription | channel | attempts | reason | next attempt |",
        "|---|---|---|---|---|",
        "| s0 | webhook | 3 | HTTP 503 | 2026-11-23 08:00:00 UTC |",
        "| s1 | webhook | 3 | HTTP 503 | paused |",
        "| s2 | webhook | 3 |  | now |",
    ]


def test_the_table_is_cut_and_the_rest_counted() -> None:
    shown = unsettled_details(tuple(unsettled(number) for number in range(MAX_ROWS + 5)), 1200).splitlines()
    assert len([line for line in shown if line.startswith("| s") and "webhook" in line]) == MAX_ROWS
    assert shown[0] == "1,200 deliveries unsettled"
    assert shown[-1] == "… and 1,180 more"


def test_a_reason_cannot_break_the_details() -> None:
    (row,) = [
        line for line in unsettled_details((unsettled(reason="a | b\nc"),), 1).splitlines() if line.startswith("| s0")
    ]
    assert row == r"| s0 | webhook | 3 | a \| b c | 2026-11-23 08:00:00 UTC |"


def failed(number: int = 0, *, reason: str = "HTTP 410", state: DeliveryState = DeliveryState.REJECTED) -> Failed:
    return Failed(
        event_key="e", subscription_id=f"s{number}", channel=Channel.WEBHOOK, state=state, attempts=3, reason=reason
    )


def test_the_details_list_failed_deliveries_with_state_and_reason() -> None:
    shown = failed_details((failed(0), failed(1, state=DeliveryState.EXHAUSTED, reason="HTTP 503")), 2)
    assert shown.splitlines() == [
        "2 deliveries failed",
        "",
        "| subscription | channel | attempts | state | reason |",
        "|---|---|---|---|---|",
        "| s0 | webhook | 3 | rejected | HTTP 410 |",
        "| s1 | webhook | 3 | exhausted | HTTP 503 |",
    ]
    assert failed_details((), 0) == ""


def test_both_tables_fit_what_temporal_accepts() -> None:
    # 120 characters of reason may be 480 bytes.
    many = range(MAX_ROWS)
    both = unsettled_details([unsettled(each, reason="😀" * 120) for each in many], 1_000)
    both += failed_details([failed(each, reason="😀" * 120) for each in many], 1_000)
    assert len(both.encode()) < 19_000
    assert "… and 98" in both


def test_the_size_of_tables_is_that_of_their_json() -> None:
    reason = '"\\' * 60  # each of the two is two bytes of JSON
    many = range(MAX_ROWS)
    both = unsettled_details([unsettled(each, reason=reason * 5) for each in many], 1_000)
    both += failed_details([failed(each, reason=reason * 5) for each in many], 1_000)
    assert json_bytes(both) < 20_000
