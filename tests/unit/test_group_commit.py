"""Group commit: which calls share a start, what each caller gets, and what happens when a start fails or a caller goes away."""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellwire import Event, Receipt, contract
from bellwire.errors import EventConflict, TemporalUnavailable
from bellwire.temporal import group_commit
from bellwire.temporal.group_commit import GroupCommit
from bellwire.temporal.publications import Publication


def event(event_id: str, **fields: object) -> Event:
    return Event.model_validate({"source": "/test", "type": "test.published", "id": event_id, **fields})


class Server:
    """Starts publications as Temporal would, one at a time by `let_start`, and refuses what `refuse` says."""

    def __init__(self, refuse: Callable[[Publication], Exception | None] = lambda _: None) -> None:
        self.started: list[list[str]] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self._refuse = refuse
        self._gate = asyncio.Event()

    def open(self) -> None:
        """Let all starts end, those that come too."""
        self._gate.set()

    async def start(self, publication: Publication) -> bool:
        self.started.append([each.id for each in publication.events])
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await self._gate.wait()
        finally:
            self.in_flight -= 1
        if error := self._refuse(publication):
            raise error
        return False


async def turns(number: int = 5) -> None:
    """Let the event loop run what is due now."""
    for _ in range(number):
        await asyncio.sleep(0)


async def publishing(commits: GroupCommit, first: Event, *others: Event) -> list[asyncio.Task[Receipt]]:
    """A call whose start is in flight, and calls that have arrived since."""
    calls = [asyncio.create_task(commits.publish(first))]
    await turns()
    calls += [asyncio.create_task(commits.publish(each)) for each in others]
    await turns()
    return calls


async def after_a_start(monkeypatch: pytest.MonkeyPatch, *, pause: float) -> tuple[Server, GroupCommit]:
    """The pause of `pause` seconds after this task has published an event."""
    monkeypatch.setattr(group_commit, "PAUSE", 1e9)
    monkeypatch.setattr(group_commit, "MAX_PAUSE", pause)
    server = Server()
    server.open()
    commits = GroupCommit(server.start)
    await commits.publish(event("first"))
    return server, commits


async def test_a_call_starts_at_once_and_calls_that_arrive_meanwhile_go_together() -> None:
    server = Server()
    calls = await publishing(GroupCommit(server.start), *(event(str(number)) for number in range(4)))
    assert server.started == [["0"]]
    server.open()
    receipts = await asyncio.gather(*calls)
    assert server.started == [["0"], ["1", "2", "3"]]
    assert [receipt.event_id for receipt in receipts] == ["0", "1", "2", "3"]
    assert [receipt.duplicate for receipt in receipts] == [False, None, None, None]
    assert receipts[0].workflow_id == contract.event_workflow_id("/test", "0")
    assert {receipt.workflow_id for receipt in receipts[1:]} == {
        contract.batch_workflow_id([event(each) for each in ("1", "2", "3")])
    }


async def test_calls_of_the_same_moment_go_together() -> None:
    server = Server()
    server.open()
    commits = GroupCommit(server.start)
    await asyncio.gather(*(commits.publish(event(str(number))) for number in range(3)))
    assert server.started == [["0", "1", "2"]]


async def test_after_a_start_calls_of_other_tasks_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    server, commits = await after_a_start(monkeypatch, pause=60.0)

    others = [asyncio.create_task(commits.publish(event(str(number)))) for number in range(3)]
    await turns()
    assert server.started == [["first"]]
    # This task's next call takes those along.
    await commits.publish(event("second"))
    await asyncio.gather(*others)
    assert server.started == [["first"], ["0", "1", "2", "second"]]


async def test_a_full_publication_starts_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    server, commits = await after_a_start(monkeypatch, pause=60.0)
    calls = [asyncio.create_task(commits.publish(event(str(number)))) for number in range(contract.MAX_EVENTS)]
    await asyncio.gather(*calls)
    assert [len(group) for group in server.started] == [1, contract.MAX_EVENTS]


async def test_the_pause_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    server, commits = await after_a_start(monkeypatch, pause=0.01)
    await asyncio.wait_for(asyncio.create_task(commits.publish(event("second"))), 30)
    assert server.started == [["first"], ["second"]]


@pytest.mark.parametrize("max_starts", [1, 3])
async def test_no_more_starts_are_in_flight_than_allowed(max_starts: int) -> None:
    server = Server()
    commits = GroupCommit(server.start, max_starts=max_starts)
    calls = []
    for number in range(20):
        calls += await publishing(commits, event(str(number)))
    assert server.in_flight == max_starts
    server.open()
    await asyncio.gather(*calls)
    assert server.most_in_flight == max_starts


@given(sizes=st.lists(st.integers(0, 250_000), min_size=1, max_size=250))
async def test_groups_keep_the_order_and_the_limits(sizes: list[int]) -> None:
    server = Server()
    events = [event(str(number), data={"text": "x" * size}) for number, size in enumerate(sizes)]
    calls = await publishing(GroupCommit(server.start), *events)
    server.open()
    await asyncio.gather(*calls)
    assert [event_id for group in server.started for event_id in group] == [each.id for each in events]
    for group in server.started:
        assert len(group) <= contract.MAX_EVENTS
        size = sum(len(events[int(event_id)].model_dump_json()) for event_id in group)
        assert len(group) == 1 or size <= contract.MAX_PUBLICATION_BYTES


async def test_an_event_that_is_refused_fails_alone() -> None:
    def refuse(publication: Publication) -> Exception | None:
        bad = any(each.id == "bad" for each in publication.events)
        return EventConflict("published before") if bad else None

    server = Server(refuse)
    calls = await publishing(GroupCommit(server.start), event("first"), event("good"), event("bad"), event("better"))
    server.open()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(result) for result in results] == [Receipt, Receipt, EventConflict, Receipt]
    assert server.started == [["first"], ["good", "bad", "better"], ["good"], ["bad"], ["better"]]


async def test_while_temporal_is_away_each_call_fails_by_the_same_start_and_later_calls_are_tried() -> None:
    away = True
    server = Server(lambda _: TemporalUnavailable("no response") if away else None)
    commits = GroupCommit(server.start)
    calls = await publishing(commits, event("0"), event("1"), event("2"))
    server.open()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(result) for result in results] == [TemporalUnavailable] * 3
    assert server.started == [["0"], ["1", "2"]]
    away = False
    assert (await commits.publish(event("3"))).duplicate is False


async def test_a_cancelled_caller_does_not_cancel_its_event_nor_those_of_others() -> None:
    server = Server()
    first, second, third = await publishing(GroupCommit(server.start), event("1"), event("2"), event("3"))
    first.cancel()
    second.cancel()
    await asyncio.gather(first, second, return_exceptions=True)
    server.open()
    assert (await third).event_id == "3"
    assert server.started == [["1"], ["2", "3"]]


async def test_an_event_that_is_published_twice_at_a_time_goes_once_in_a_group() -> None:
    server = Server()
    calls = await publishing(GroupCommit(server.start), event("0"), event("1"), event("1"), event("2"))
    server.open()
    await asyncio.gather(*calls)
    assert server.started == [["0"], ["1"], ["1", "2"]]
