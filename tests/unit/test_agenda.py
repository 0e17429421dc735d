"""The agenda: no delivery is lost or early, and deliveries that are due at nearly the same time are taken together."""

from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellwire.contract import CHUNK_SIZE, Action, ControlRequest, ControlResult, Deferred, Group, HoldReason
from bellwire.deliveries import Unsettled
from bellwire.targets import Channel
from workflows.agenda import Agenda, Entry, chunks, groups
from workflows.policies import JITTER, SLACK_FRACTION, SLACK_SECONDS

NOW = 1_800_000_000.0
#: Over days, and many within the slack.
TIMES = st.floats(NOW - 3, NOW + 10) | st.floats(NOW + 3600, NOW + 3800) | st.floats(NOW - 100, NOW + 7 * 86_400)
DELAYS = st.sampled_from([0.5, 5.0, 300.0, 86_400.0]) | st.floats(0.001, 7 * 86_400)


def agenda_of(times: list[float], *, channel: Channel = Channel.WEBHOOK) -> Agenda:
    agenda = Agenda()
    for number, due in enumerate(times):
        agenda.add(Group(event_key="e", channel=channel, subscription_ids=(f"s{number}",)), due=due)
    return agenda


def deferred(entry: Entry, delay: float, *, from_retry_after: bool = False, reason: str = "HTTP 503") -> Deferred:
    return Deferred(
        event_key=entry.event_key,
        subscription_id=entry.subscription_id,
        attempts=entry.attempts + 1,
        delay=delay,
        from_retry_after=from_retry_after,
        reason=reason,
    )


def control(action: Action, subscription_id: str | None = None, event_key: str | None = None) -> ControlRequest:
    return ControlRequest(action=action, subscription_id=subscription_id, event_key=event_key)


def jitters(*values: float) -> Callable[[], float]:
    return iter(values).__next__ if values else lambda: 0.0


@given(st.lists(TIMES, max_size=30))
def test_every_entry_is_taken_once_and_never_early(times: list[float]) -> None:
    agenda, now, taken = agenda_of(times), NOW, dict[str, float]()
    for _ in range(len(times) + 1):
        for entry in (due := agenda.take_due(now)):
            assert entry.subscription_id not in taken
            assert now >= entry.due
            taken[entry.subscription_id] = entry.due
        agenda.apply_results(due, [], now=now, random=jitters())
        wake_at = agenda.wake_at(now)
        if wake_at is None:
            break
        now = max(wake_at, now)
    assert sorted(taken.values()) == sorted(times)
    assert len(agenda) == 0


@given(st.lists(TIMES, min_size=1, max_size=30))
def test_a_round_starts_when_the_last_entry_within_the_slack_is_due(times: list[float]) -> None:
    first = min(times)
    latest = first + max(SLACK_SECONDS, SLACK_FRACTION * (first - NOW))
    wake_at = agenda_of(times).wake_at(NOW)
    assert wake_at is not None
    assert first <= wake_at <= latest
    assert not [due for due in times if wake_at < due <= latest]


@pytest.mark.parametrize(
    ("seconds", "wake_after"),
    [
        ([10.0], 10.0),
        ([10.0, 10.9], 10.9),
        ([10.0, 11.1], 10.0),
        ([10.0, 10.9, 11.8], 10.9),
        ([3600.0, 3671.0], 3671.0),
        ([3600.0, 3673.0], 3600.0),
        ([-5.0, 0.0], -5.0),
    ],
)
def test_entries_due_shortly_after_the_first_are_taken_with_it(seconds: list[float], wake_after: float) -> None:
    assert agenda_of([NOW + second for second in seconds]).wake_at(NOW) == NOW + wake_after


def waiting(*drawn: tuple[float, str]) -> Agenda:
    """Entries due so many seconds after NOW, each with a reason."""
    agenda = agenda_of([NOW] * len(drawn))
    sent = agenda.take_due(NOW)
    results = [
        deferred(entry, delay, from_retry_after=True, reason=reason)
        for entry, (delay, reason) in zip(sent, drawn, strict=True)
    ]
    agenda.apply_results(sent, results, now=NOW, random=jitters())
    return agenda


@pytest.mark.parametrize(
    ("drawn", "wake_after"),
    [
        # Without a limit, 2% of an hour go together.
        ([(3600.0, "HTTP 503"), (3650.0, "HTTP 503")], 3650.0),
        ([(3600.0, HoldReason.RATE_LIMIT), (3601.0, HoldReason.RATE_LIMIT), (3602.0, HoldReason.RATE_LIMIT)], 3601.0),
        ([(3600.0, HoldReason.RATE_LIMIT), (3650.0, "HTTP 503")], 3600.0),
        ([(3600.0, "HTTP 503"), (3650.0, HoldReason.RATE_LIMIT)], 3650.0),
        # An entry that waits for a limit is never late by more than SLACK_SECONDS.
        (
            [
                (3600.0, "HTTP 503"),
                (3640.0, HoldReason.RATE_LIMIT),
                (3641.5, HoldReason.RATE_LIMIT),
                (3660.0, "HTTP 503"),
            ],
            3640.0,
        ),
        (
            [
                (3600.0, "HTTP 429"),
                (3640.0, HoldReason.THROTTLED),
                (3641.5, HoldReason.THROTTLED),
                (3660.0, "HTTP 503"),
            ],
            3640.0,
        ),
        # An entry that is due much later does not count.
        ([(3600.0, "HTTP 503"), (3650.0, "HTTP 503"), (9000.0, HoldReason.RATE_LIMIT)], 3650.0),
    ],
)
def test_entries_that_wait_for_a_rate_limit_or_a_throttled_endpoint_do_not_pile_up(
    drawn: list[tuple[float, str]], wake_after: float
) -> None:
    assert waiting(*drawn).wake_at(NOW) == NOW + wake_after


@given(
    st.lists(
        st.tuples(DELAYS, st.sampled_from([*HoldReason, "HTTP 503"])),
        min_size=1,
        max_size=30,
    )
)
def test_an_entry_that_is_spread_over_time_is_late_by_the_slack_at_most(drawn: list[tuple[float, str]]) -> None:
    wake_at = waiting(*drawn).wake_at(NOW)
    assert wake_at is not None
    late = [wake_at - (NOW + delay) for delay, reason in drawn if reason != "HTTP 503"]
    assert all(seconds <= SLACK_SECONDS for seconds in late)


def test_entries_of_excepted_channels_are_not_taken_and_do_not_wake() -> None:
    agenda = agenda_of([NOW])
    agenda.add(Group(event_key="e", channel=Channel.SMS, subscription_ids=("s", "t")), due=NOW - 5)
    except_channels = frozenset({Channel.SMS})
    assert agenda.wake_at(NOW, except_channels=except_channels) == NOW
    assert [entry.channel for entry in agenda.take_due(NOW, except_channels=except_channels)] == [Channel.WEBHOOK]
    assert agenda.wake_at(NOW, except_channels=except_channels) is None
    assert agenda.take_due(NOW, except_channels=frozenset(Channel)) == []
    assert agenda.wake_at(NOW) == NOW - 5
    assert [entry.subscription_id for entry in agenda.take_due(NOW)] == ["s", "t"]


def test_an_entry_that_is_put_back_keeps_its_due_time_and_can_be_cancelled() -> None:
    agenda = agenda_of([NOW - 5, NOW - 4, NOW - 3])
    taken = agenda.take_due(NOW)
    agenda.put_back(taken[1:])
    assert agenda.wake_at(NOW) == NOW - 3
    agenda.apply(control(Action.CANCEL, "s1"), now=NOW)
    assert [entry.subscription_id for entry in agenda.cancel_requested()] == ["s1"]
    assert [(entry.subscription_id, entry.due, entry.attempts) for entry in agenda.take_due(NOW)] == [
        ("s2", NOW - 3, 0)
    ]


@given(st.lists(st.tuples(st.none() | DELAYS, st.booleans(), st.floats(0, 1, exclude_max=True)), max_size=20))
def test_a_deferred_entry_is_due_after_its_delay_and_the_others_are_removed(
    drawn: list[tuple[float | None, bool, float]],
) -> None:
    agenda = agenda_of([NOW] * len(drawn))
    sent = agenda.take_due(NOW)
    results = [
        (deferred(entry, delay, from_retry_after=from_retry_after), jitter)
        for entry, (delay, from_retry_after, jitter) in zip(sent, drawn, strict=True)
        if delay is not None
    ]
    random = jitters(*(jitter for result, jitter in results if not result.from_retry_after), 0.0)
    agenda.apply_results(sent, [result for result, _ in results], now=NOW, random=random)
    remaining = {entry.subscription_id: entry for entry in agenda}
    assert set(remaining) == {result.subscription_id for result, _ in results}
    for result, _ in results:
        entry = remaining[result.subscription_id]
        assert entry.attempts == 1
        assert entry.reason == "HTTP 503"
        assert entry.is_waiting
        if result.from_retry_after:
            assert entry.due == NOW + result.delay
        else:
            assert NOW + result.delay <= entry.due <= NOW + result.delay * (1 + JITTER)


@given(st.lists(st.tuples(TIMES, st.sampled_from([*Action, None])), max_size=20), st.integers(0, 5))
def test_the_next_run_restores_every_entry_that_is_not_cancelled(
    drawn: list[tuple[float, Action | None]], attempts: int
) -> None:
    agenda = Agenda()
    for number, (due, action) in enumerate(drawn):
        group = Group(event_key="e", channel=Channel.SMS, subscription_ids=(f"s{number}",), attempt=attempts + 1)
        agenda.add(group, due=due)
        if action is not None:
            agenda.apply(control(action, f"s{number}"), now=NOW)
    agenda.remove(agenda.cancel_requested())
    after = Agenda()
    for item in agenda.carried():
        after.restore(Unsettled.model_validate_json(item.model_dump_json()), now=NOW)
    assert {entry.subscription_id for entry in after} == {entry.subscription_id for entry in agenda}
    before = {entry.subscription_id: entry for entry in agenda}
    for entry in after:
        known = before[entry.subscription_id]
        assert (entry.attempts, entry.paused, entry.channel) == (known.attempts, known.paused, known.channel)
        assert entry.due == pytest.approx(known.due, abs=1e-3)


def test_entries_in_flight_are_not_taken_again_and_do_not_wake() -> None:
    agenda = agenda_of([NOW, NOW + 60])
    (sent,) = agenda.take_due(NOW)
    assert agenda.take_due(NOW) == []
    assert agenda.wake_at(NOW) == NOW + 60
    agenda.apply_results([sent], [deferred(sent, 5.0)], now=NOW + 1, random=jitters())
    assert agenda.wake_at(NOW + 1) == NOW + 6


def test_two_events_for_one_subscription_are_two_entries() -> None:
    agenda = Agenda()
    for key in ("e1", "e2"):
        agenda.add(Group(event_key=key, channel=Channel.EMAIL, subscription_ids=("s",)), due=NOW)
    sent = agenda.take_due(NOW)
    agenda.apply_results(sent, [deferred(sent[0], 5.0)], now=NOW, random=jitters())
    assert [entry.event_key for entry in agenda] == ["e1"]
    assert agenda.has_delivery_to("s")
    assert not agenda.has_delivery_to("t")


@pytest.mark.parametrize(
    ("control_request", "changed"),
    [
        (control(Action.RETRY_NOW), 3),
        (control(Action.RETRY_NOW, "s1"), 1),
        (control(Action.RETRY_NOW, "s9"), 0),
        (control(Action.RETRY_NOW, event_key="e"), 3),
        (control(Action.RETRY_NOW, event_key="other"), 0),
        (control(Action.RETRY_NOW, "s1", "other"), 0),
        (control(Action.PAUSE, "s0"), 1),
        (control(Action.RESUME), 0),
        (control(Action.CANCEL), 3),
    ],
)
def test_a_control_applies_to_one_subscription_one_event_or_all(control_request: ControlRequest, changed: int) -> None:
    assert agenda_of([NOW + 60] * 3).apply(control_request, now=NOW).deliveries == changed


def test_retry_now_makes_waiting_entries_due_and_leaves_paused_ones_paused() -> None:
    agenda = agenda_of([NOW + 60, NOW + 60, NOW - 5])
    agenda.apply(control(Action.PAUSE, "s0"), now=NOW)
    assert agenda.apply(control(Action.RETRY_NOW), now=NOW) == ControlResult(deliveries=2, paused=1)
    assert [(entry.subscription_id, entry.due) for entry in agenda.take_due(NOW)] == [("s1", NOW), ("s2", NOW - 5)]
    agenda.apply(control(Action.RESUME), now=NOW)
    assert agenda.wake_at(NOW) == NOW + 60


def test_retry_now_ends_a_pause_on_request() -> None:
    agenda = agenda_of([NOW + 60, NOW + 60])
    agenda.apply(control(Action.PAUSE), now=NOW)
    request = ControlRequest(action=Action.RETRY_NOW, subscription_id="s0", end_pause=True)
    assert agenda.apply(request, now=NOW) == ControlResult(deliveries=1)
    assert [(entry.subscription_id, entry.due) for entry in agenda.take_due(NOW)] == [("s0", NOW)]


def test_only_an_attempt_that_retry_now_advanced_is_extra_and_only_once() -> None:
    agenda = agenda_of([NOW + 60, NOW - 5])
    agenda.apply(control(Action.RETRY_NOW), now=NOW)
    agenda.apply(control(Action.RETRY_NOW), now=NOW)
    sent = agenda.take_due(NOW)
    assert {(group.subscription_ids, group.extra) for group in groups(sent)} == {(("s0",), True), (("s1",), False)}
    agenda.apply_results(sent, [deferred(entry, 5.0) for entry in sent], now=NOW, random=jitters())
    assert [group.extra for group in groups(agenda.take_due(NOW + 10))] == [False]


def test_an_extra_attempt_stays_extra_in_the_next_run() -> None:
    agenda, restored = agenda_of([NOW + 60]), Agenda()
    agenda.apply(control(Action.RETRY_NOW), now=NOW)
    for item in agenda.carried():
        restored.restore(item, now=NOW)
    assert [group.extra for group in groups(restored.take_due(NOW))] == [True]


def test_retry_now_does_not_change_an_entry_in_flight() -> None:
    agenda = agenda_of([NOW])
    agenda.take_due(NOW)
    assert agenda.apply(control(Action.RETRY_NOW), now=NOW).deliveries == 0


def test_a_paused_entry_waits_until_resume_and_keeps_its_due_time() -> None:
    agenda = agenda_of([NOW + 60])
    assert agenda.apply(control(Action.PAUSE), now=NOW).deliveries == 1
    assert agenda.apply(control(Action.PAUSE), now=NOW).deliveries == 0
    assert agenda.wake_at(NOW) is None
    assert agenda.take_due(NOW + 100) == []
    assert agenda.unsettled()[0].due is None
    assert agenda.apply(control(Action.RESUME), now=NOW).deliveries == 1
    assert agenda.wake_at(NOW) == NOW + 60


def test_an_entry_paused_in_flight_stays_paused_after_its_attempt() -> None:
    agenda = agenda_of([NOW])
    sent = agenda.take_due(NOW)
    agenda.apply(control(Action.PAUSE), now=NOW)
    agenda.apply_results(sent, [deferred(sent[0], 5.0)], now=NOW, random=jitters())
    assert agenda.wake_at(NOW) is None
    assert len(agenda) == 1


def test_an_entry_cancelled_in_flight_settles_after_its_attempt() -> None:
    agenda = agenda_of([NOW, NOW + 60])
    sent = agenda.take_due(NOW)
    assert agenda.apply(control(Action.CANCEL), now=NOW).deliveries == 2
    assert agenda.apply(control(Action.RETRY_NOW), now=NOW).deliveries == 0
    assert [entry.subscription_id for entry in agenda.cancel_requested()] == ["s1"]
    assert len(agenda) == 2, "a cancelled entry stays until it has settled"
    agenda.remove(agenda.cancel_requested())
    agenda.apply_results(sent, [deferred(sent[0], 5.0)], now=NOW, random=jitters())
    assert agenda.wake_at(NOW) is None
    assert [entry.subscription_id for entry in agenda.cancel_requested()] == ["s0"]
    agenda.remove(agenda.cancel_requested())
    assert len(agenda) == 0


def test_unsettled_entries_come_in_order_of_due_time_with_paused_ones_last() -> None:
    agenda = agenda_of([NOW + 30, NOW + 10, NOW + 20])
    agenda.apply(control(Action.PAUSE, "s1"), now=NOW)
    assert [item.subscription_id for item in agenda.unsettled()] == ["s2", "s0", "s1"]
    assert [item.subscription_id for item in agenda.unsettled(1)] == ["s2"]
    assert agenda.unsettled()[0].due == datetime.fromtimestamp(NOW + 20, UTC)


def test_take_all_empties_the_agenda() -> None:
    agenda = agenda_of([NOW, NOW + 60])
    agenda.take_due(NOW)
    assert len(agenda.take_all()) == 2
    assert agenda.wake_at(NOW) is None
    assert len(agenda) == 0


ENTRIES = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from(list(Channel)), st.integers(0, 2)), max_size=30
).map(
    lambda drawn: [
        Entry(key, f"s{number}", channel, attempts, NOW) for number, (key, channel, attempts) in enumerate(drawn)
    ]
)


@given(ENTRIES)
def test_every_entry_is_in_one_group_of_its_event_channel_and_attempt(entries: list[Entry]) -> None:
    made = groups(entries)
    keys = [(group.event_key, group.channel, group.attempt) for group in made]
    assert len(keys) == len(set(keys))
    found = {
        (group.event_key, each, group.channel, group.attempt - 1) for group in made for each in group.subscription_ids
    }
    assert found == {(entry.event_key, entry.subscription_id, entry.channel, entry.attempts) for entry in entries}
    assert sum(len(group.subscription_ids) for group in made) == len(entries)


@pytest.mark.parametrize(
    ("numbers", "sizes"),
    [
        ({}, []),
        ({Channel.SMS: 1}, [1]),
        ({Channel.WEBHOOK: CHUNK_SIZE}, [200]),
        ({Channel.WEBHOOK: CHUNK_SIZE + 1, Channel.EMAIL: 3}, [3, 200, 1]),
        ({Channel.EMAIL: 450}, [200, 200, 50]),
    ],
)
def test_a_chunk_has_one_channel_and_up_to_two_hundred_entries(numbers: dict[Channel, int], sizes: list[int]) -> None:
    serial = count()
    entries = [
        Entry("e", f"s{next(serial)}", channel, 0, NOW) for channel, number in numbers.items() for _ in range(number)
    ]
    entries.sort(key=lambda entry: entry.subscription_id)
    made = chunks(entries)
    assert [len(chunk) for chunk in made] == sizes
    assert all(len({entry.channel for entry in chunk}) == 1 for chunk in made)
    assert sorted(entry.subscription_id for chunk in made for entry in chunk) == [
        entry.subscription_id for entry in entries
    ]
