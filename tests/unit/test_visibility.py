"""What a run says of itself, as operators read it."""

from datetime import UTC, datetime

import pytest

from bellwire.deliveries import Unsettled
from bellwire.subscriptions import Channel
from workflows.agenda import Entry
from workflows.rounds.visibility import (
    ROWS,
    count,
    sending,
    span,
    table,
    waiting,
)

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
    ("seconds", "said"),
    [
        (0, "0 s"),
        (0.5, "0.5 s"),
        (5.25, "5.25 s"),
        (59, "59 s"),
        (60, "1 min"),
        (61, "61 s"),
        (90, "90 s"),
        (120, "2 min"),
        (300, "5 min"),
        (1800, "30 min"),
        (3600, "1 h"),
        (5400, "90 min"),
        (7200, "2 h"),
        (75 * 3600 + 35 * 60, "3.15 d"),
        (86_400, "1 d"),
        (36 * 3600, "36 h"),
        (7 * 86_400, "7 d"),
    ],
)
def test_spans_are_said_as_people_say_them(seconds: float, said: str) -> None:
    assert span(seconds) == said


@pytest.mark.parametrize(
    ("number", "noun", "said"),
    [
        (1, "delivery", "1 delivery"),
        (0, "delivery", "0 deliveries"),
        (1234, "delivery", "1,234 deliveries"),
        (2, "receiver", "2 receivers"),
    ],
)
def test_counts_agree_with_their_noun(number: int, noun: str, said: str) -> None:
    assert count(number, noun) == said


@pytest.mark.parametrize(
    ("attempts", "said"),
    [
        ([0], "webhook: 1 delivery, attempt 1"),
        ([3, 3, 3], "webhook: 3 deliveries, attempt 4"),
        ([5, 1, 3], "webhook: 3 deliveries, attempts 2 to 6"),
    ],
)
def test_an_activity_says_channel_number_and_attempt(attempts: list[int], said: str) -> None:
    assert sending([entry(number, attempts=made) for number, made in enumerate(attempts)]) == said


@pytest.mark.parametrize(
    ("reasons", "said"),
    [
        ([], "next attempt in 30 min"),
        ([""], "next attempt in 30 min"),
        (["HTTP 503"], "next attempt in 30 min: HTTP 503 from 1 receiver"),
        (
            ["timeout", "HTTP 503", "HTTP 503"],
            "next attempt in 30 min: HTTP 503 from 2 receivers, timeout from 1 receiver",
        ),
        (["a", "b", "c", "d"], "next attempt in 30 min: a from 1 receiver, b from 1 receiver, c from 1 receiver"),
    ],
)
def test_a_timer_says_what_it_waits_for_and_why(reasons: list[str], said: str) -> None:
    assert waiting([entry(number, reason=reason) for number, reason in enumerate(reasons)], 1800) == said


def test_a_timer_says_no_more_than_temporal_takes() -> None:
    # The server refuses labels of more than 400 bytes, and with them the whole run; encrypted they are longer.
    reasons = [f"{number}{'ü' * 119}" for number in range(3)]
    said = waiting([entry(number, reason=reason) for number, reason in enumerate(reasons)], 1800)
    assert said.startswith("next attempt in 30 min: 0ü")
    assert 198 <= len(said.encode()) <= 200


def test_a_run_with_nothing_unsettled_has_no_table() -> None:
    assert table((), 0) == ""


def test_the_table_says_who_waits_why_and_until_when() -> None:
    shown = table((unsettled(0), unsettled(1, paused=True, due=None), unsettled(2, reason="", due=None)), 3)
    assert shown.splitlines() == [
        "3 deliveries unsettled",
        "",
        "| subscription | channel | attempts | last answer | next attempt |",
        "|---|---|---|---|---|",
        "| s0 | webhook | 3 | HTTP 503 | 2026-11-23 08:00:00 UTC |",
        "| s1 | webhook | 3 | HTTP 503 | paused |",
        "| s2 | webhook | 3 |  | now |",
    ]


def test_the_table_is_cut_and_says_so() -> None:
    shown = table(tuple(unsettled(number) for number in range(ROWS + 5)), 1200).splitlines()
    assert len([line for line in shown if line.startswith("| s") and "webhook" in line]) == ROWS
    assert shown[0] == "1,200 deliveries unsettled"
    assert shown[-1] == "… and 1,180 more"


def test_a_receiver_cannot_break_the_table() -> None:
    (row,) = [line for line in table((unsettled(reason="a | b\nc"),), 1).splitlines() if line.startswith("| s0")]
    assert row == r"| s0 | webhook | 3 | a \| b c | 2026-11-23 08:00:00 UTC |"
