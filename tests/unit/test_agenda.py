"""The agenda: nothing is lost, nothing comes early, and what is due at nearly the same time goes together."""

from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellwire.contract import CHUNK_SIZE, RATE_LIMIT, THROTTLED, Action, ControlRequest, Deferred, Group
from bellwire.deliveries import Unsettled
from bellwire.targets import Channel
from workflows.agenda import Agenda, Entry, chunks, groups
from workflows.policies import JITTER, SLACK_FRACTION, SLACK_SECONDS

NOW = 1_800_000_000.0
#: Over days, and many close together, where the slack decides.
MOMENTS = st.floats(NOW - 3, NOW + 10) | st.floats(NOW + 3600, NOW + 3800) | st.floats(NOW - 100, NOW + 7 * 86_400)
DELAYS = st.sampled_from([0.5, 5.0, 300.0, 86_400.0]) | st.floats(0.001, 7 * 86_400)


def agenda_of(moments: list[float], *, channel: Channel = Channel.WEBHOOK) -> Agenda:
    agenda = Agenda()
    for number, due in enumerate(moments):
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


def randoms(*values: float) -> Callable[[], float]:
    return iter(values).__next__ if values else lambda: 0.0


@given(st.lists(MOMENTS, max_size=30))
def test_every_entry_is_taken_once_and_never_early(moments: list[float]) -> None:
    agenda, now, taken = agenda_of(moments), NOW, dict[str, float]()
    for _ in range(len(moments) + 1):
        for entry in (due := agenda.take_due(now)):
            assert entry.subscription_id not in taken
            assert now >= entry.due
            taken[entry.subscription_id] = entry.due
        agenda.apply_results(due, [], now=now, random=randoms())
        wake_at = agenda.wake_at(now)
        if wake_at is None:
            break
        now = max(wake_at, now)
    assert sorted(taken.values()) == sorted(moments)
    assert len(agenda) == 0


@given(st.lists(MOMENTS, min_size=1, max_size=30))
def test_a_round_waits_for_what_is_due_within_the_slack_and_for_nothing_else(moments: list[float]) -> None:
    first = min(moments)
    together = first + max(SLACK_SECONDS, SLACK_FRACTION * (first - NOW))
    wake_at = agenda_of(moments).wake_at(NOW)
    assert wake_at is not None
    assert first <= wake_at <= together
    assert not [moment for moment in moments if wake_at < moment <= together]


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
def test_deliveries_due_shortly_after_the_first_go_with_it(seconds: list[float], wake_after: float) -> None:
    assert agenda_of([NOW + second for second in seconds]).wake_at(NOW) == NOW + wake_after


def waiting(*drawn: tuple[float, str]) -> Agenda:
    """Entries that wait for so many seconds from NOW on, each for a reason."""
    agenda = agenda_of([NOW] * len(drawn))
    flown = agenda.take_due(NOW)
    answers = [
        deferred(entry, delay, from_retry_after=True, reason=reason)
        for entry, (delay, reason) in zip(flown, drawn, strict=True)
    ]
    agenda.apply_results(flown, answers, now=NOW, random=randoms())
    return agenda


@pytest.mark.parametrize(
    ("drawn", "wake_after"),
    [
        # Without a limit, 2% of an hour go together.
        ([(3600.0, "HTTP 503"), (3650.0, "HTTP 503")], 3650.0),
        ([(3600.0, RATE_LIMIT), (3601.0, RATE_LIMIT), (3602.0, RATE_LIMIT)], 3601.0),
        ([(3600.0, RATE_LIMIT), (3650.0, "HTTP 503")], 3600.0),
        ([(3600.0, "HTTP 503"), (3650.0, RATE_LIMIT)], 3650.0),
        # Nothing that waits for a limit is kept waiting for longer than the slack.
        ([(3600.0, "HTTP 503"), (3640.0, RATE_LIMIT), (3641.5, RATE_LIMIT), (3660.0, "HTTP 503")], 3640.0),
        ([(3600.0, "HTTP 429"), (3640.0, THROTTLED), (3641.5, THROTTLED), (3660.0, "HTTP 503")], 3640.0),
        # What is due much later than the first does not count.
        ([(3600.0, "HTTP 503"), (3650.0, "HTTP 503"), (9000.0, RATE_LIMIT)], 3650.0),
    ],
)
def test_what_waits_for_a_rate_limit_or_a_throttled_receiver_does_not_pile_up(
    drawn: list[tuple[float, str]], wake_after: float
) -> None:
    assert waiting(*drawn).wake_at(NOW) == NOW + wake_after


@given(st.lists(st.tuples(DELAYS, st.sampled_from([RATE_LIMIT, THROTTLED, "HTTP 503"])), min_size=1, max_size=30))
def test_what_is_paced_is_late_by_the_slack_at_most(drawn: list[tuple[float, str]]) -> None:
    wake_at = waiting(*drawn).wake_at(NOW)
    assert wake_at is not None
    late = [wake_at - (NOW + delay) for delay, reason in drawn if reason != "HTTP 503"]
    assert all(seconds <= SLACK_SECONDS for seconds in late)


def test_some_channels_are_left_out_of_a_round_and_do_not_end_a_wait() -> None:
    agenda = agenda_of([NOW])
    agenda.add(Group(event_key="e", channel=Channel.SMS, subscription_ids=("s", "t")), due=NOW - 5)
    except_channels = frozenset({Channel.SMS})
    assert agenda.wake_at(NOW, except_channels=except_channels) == NOW
    assert [entry.channel for entry in agenda.take_due(NOW, except_channels=except_channels)] == [Channel.WEBHOOK]
    assert agenda.wake_at(NOW, except_channels=except_channels) is None
    assert agenda.take_due(NOW, except_channels=frozenset(Channel)) == []
    assert agenda.wake_at(NOW) == NOW - 5
    assert [entry.subscription_id for entry in agenda.take_due(NOW)] == ["s", "t"]


def test_what_is_put_back_is_due_as_before_and_obeys_operators() -> None:
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
def test_what_was_deferred_is_due_again_in_its_time_and_the_rest_is_gone(
    drawn: list[tuple[float | None, bool, float]],
) -> None:
    agenda = agenda_of([NOW] * len(drawn))
    flown = agenda.take_due(NOW)
    answers = [
        (deferred(entry, delay, from_retry_after=from_retry_after), chance)
        for entry, (delay, from_retry_after, chance) in zip(flown, drawn, strict=True)
        if delay is not None
    ]
    random = randoms(*(chance for answer, chance in answers if not answer.from_retry_after), 0.0)
    agenda.apply_results(flown, [answer for answer, _ in answers], now=NOW, random=random)
    left = {entry.subscription_id: entry for entry in agenda}
    assert set(left) == {answer.subscription_id for answer, _ in answers}
    for answer, _ in answers:
        entry = left[answer.subscription_id]
        assert entry.attempts == 1
        assert entry.reason == "HTTP 503"
        assert entry.is_waiting
        if answer.from_retry_after:
            assert entry.due == NOW + answer.delay
        else:
            assert NOW + answer.delay <= entry.due <= NOW + answer.delay * (1 + JITTER)


@given(st.lists(st.tuples(MOMENTS, st.sampled_from([*Action, None])), max_size=20), st.integers(0, 5))
def test_what_the_next_run_takes_over_is_all_that_waited(
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


def test_entries_in_flight_are_not_taken_again_and_do_not_wake_anyone() -> None:
    agenda = agenda_of([NOW, NOW + 60])
    (flown,) = agenda.take_due(NOW)
    assert agenda.take_due(NOW) == []
    assert agenda.wake_at(NOW) == NOW + 60
    agenda.apply_results([flown], [deferred(flown, 5.0)], now=NOW + 1, random=randoms())
    assert agenda.wake_at(NOW + 1) == NOW + 6


def test_two_events_for_one_subscription_are_two_entries() -> None:
    agenda = Agenda()
    for key in ("e1", "e2"):
        agenda.add(Group(event_key=key, channel=Channel.EMAIL, subscription_ids=("s",)), due=NOW)
    flown = agenda.take_due(NOW)
    agenda.apply_results(flown, [deferred(flown[0], 5.0)], now=NOW, random=randoms())
    assert [entry.event_key for entry in agenda] == ["e1"]
    assert agenda.has_delivery_to("s")
    assert not agenda.has_delivery_to("t")


@pytest.mark.parametrize(
    ("given_control", "changed"),
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
def test_an_operator_means_one_subscription_one_event_or_all(given_control: ControlRequest, changed: int) -> None:
    assert agenda_of([NOW + 60] * 3).apply(given_control, now=NOW) == changed


def test_retry_now_makes_due_and_ends_a_pause() -> None:
    agenda = agenda_of([NOW + 60, NOW - 5])
    agenda.apply(control(Action.PAUSE, "s0"), now=NOW)
    assert agenda.apply(control(Action.RETRY_NOW), now=NOW) == 2
    assert [entry.due for entry in agenda.take_due(NOW)] == [NOW, NOW - 5]


def test_retry_now_leaves_what_is_in_flight_alone() -> None:
    agenda = agenda_of([NOW])
    agenda.take_due(NOW)
    assert agenda.apply(control(Action.RETRY_NOW), now=NOW) == 0


def test_what_is_paused_waits_for_resume_and_keeps_its_time() -> None:
    agenda = agenda_of([NOW + 60])
    assert agenda.apply(control(Action.PAUSE), now=NOW) == 1
    assert agenda.apply(control(Action.PAUSE), now=NOW) == 0
    assert agenda.wake_at(NOW) is None
    assert agenda.take_due(NOW + 100) == []
    assert agenda.unsettled()[0].due is None
    assert agenda.apply(control(Action.RESUME), now=NOW) == 1
    assert agenda.wake_at(NOW) == NOW + 60


def test_what_is_paused_in_flight_lands_paused() -> None:
    agenda = agenda_of([NOW])
    flown = agenda.take_due(NOW)
    agenda.apply(control(Action.PAUSE), now=NOW)
    agenda.apply_results(flown, [deferred(flown[0], 5.0)], now=NOW, random=randoms())
    assert agenda.wake_at(NOW) is None
    assert len(agenda) == 1


def test_what_is_cancelled_in_flight_settles_when_it_lands() -> None:
    agenda = agenda_of([NOW, NOW + 60])
    flown = agenda.take_due(NOW)
    assert agenda.apply(control(Action.CANCEL), now=NOW) == 2
    assert agenda.apply(control(Action.RETRY_NOW), now=NOW) == 0
    assert [entry.subscription_id for entry in agenda.cancel_requested()] == ["s1"]
    assert len(agenda) == 2, "what is doomed stays until it has settled"
    agenda.remove(agenda.cancel_requested())
    agenda.apply_results(flown, [deferred(flown[0], 5.0)], now=NOW, random=randoms())
    assert agenda.wake_at(NOW) is None
    assert [entry.subscription_id for entry in agenda.cancel_requested()] == ["s0"]
    agenda.remove(agenda.cancel_requested())
    assert len(agenda) == 0


def test_what_is_unsettled_comes_earliest_first_and_what_does_not_wait_last() -> None:
    agenda = agenda_of([NOW + 30, NOW + 10, NOW + 20])
    agenda.apply(control(Action.PAUSE, "s1"), now=NOW)
    assert [item.subscription_id for item in agenda.unsettled()] == ["s2", "s0", "s1"]
    assert [item.subscription_id for item in agenda.unsettled(1)] == ["s2"]
    assert agenda.unsettled()[0].due == datetime.fromtimestamp(NOW + 20, UTC)


def test_taking_all_leaves_nothing() -> None:
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
def test_groups_hold_every_entry_once_with_its_like(entries: list[Entry]) -> None:
    made = groups(entries)
    likeness = [(group.event_key, group.channel, group.attempt) for group in made]
    assert len(likeness) == len(set(likeness))
    found = {
        (group.event_key, wish, group.channel, group.attempt - 1) for group in made for wish in group.subscription_ids
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
def test_chunks_are_of_one_channel_and_two_hundred_at_most(numbers: dict[Channel, int], sizes: list[int]) -> None:
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
