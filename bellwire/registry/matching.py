"""Matching: finds the subscriptions that match an event. SQL narrows by type pattern and tenant; filters are applied here."""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from sqlalchemy import Integer, Row, Select, bindparam, select, union
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.events import Event
from bellwire.filters import CompiledFilters, EventView, patterns_matching
from bellwire.registry.db.engine import Database
from bellwire.registry.db.tables import subscription_types, subscriptions
from bellwire.targets import Channel
from bellwire.tenants import ALL_TENANTS

#: Candidate rows that the first query of a match reads, and each further one. Most events have few subscribers.
FIRST_BATCH = 1_000
NEXT_BATCH = 10_000

#: The id of a matching subscription, and its channel.
Found = tuple[str, Channel]


class Match(NamedTuple):
    """A page of the subscriptions that match an event."""

    #: By ascending id.
    found: tuple[Found, ...]
    #: The last id that was examined, if there may be more; None at the end.
    reached: str | None
    #: Candidate rows that were read.
    scanned: int = 0


#: A subscription that may match: its id, its channel and its filters as JSON.
_Candidate = Row[str, str, str]

#: Compiled filters of all tenants.
_COMPILED = CompiledFilters()


class Matcher:
    """Collects the matches of one event among candidates, which come in order of their ids."""

    def __init__(self, event: Event, limit: int | None) -> None:
        self._view = EventView(event)
        #: By the text of filters: many subscriptions have the same.
        self._results: dict[str, bool] = {"[]": True}
        self._limit = limit
        self.found: list[Found] = []
        self.stopped_at: str | None = None

    def add_matches(self, candidates: Sequence[_Candidate], *, last: bool) -> None:
        """Add the candidates that match, up to the limit. `last`: no candidates follow these."""
        if self.stopped_at is not None:
            return
        results, view, compiled = self._results, self._view, _COMPILED.get
        for number, (name, channel, filters) in enumerate(candidates, start=1):
            matched = results.get(filters)
            if matched is None:
                matched = results[filters] = compiled(filters)(view)
            if matched:
                self.found.append((name, Channel(channel)))
                if len(self.found) == self._limit and not (last and number == len(candidates)):
                    self.stopped_at = name
                    return


async def match(
    connection: AsyncConnection, events: Sequence[Event], *, after: str, limit: int, scan: int
) -> list[Match]:
    """Match events of one type and tenant, which share each read of candidates."""
    if limit < 1 or scan < 1:
        return [Match((), after) for _ in events]
    matchers = [Matcher(event, limit) for event in events]
    scanned, ended, reached = 0, False, after
    while not ended and scanned < scan and any(matcher.stopped_at is None for matcher in matchers):
        size = min(NEXT_BATCH if scanned else FIRST_BATCH, scan - scanned)
        batch = await _candidates(connection, events[0], after=reached, size=size)
        scanned += len(batch)
        ended = len(batch) < size
        reached = batch[-1][0] if batch else reached
        for matcher in matchers:
            matcher.add_matches(batch, last=ended)
    end = None if ended else reached
    return [Match(tuple(matcher.found), matcher.stopped_at or end, scanned) for matcher in matchers]


async def match_each(
    connection: AsyncConnection, alike: Sequence[Sequence[Event]], *, after: str, limit: int, scan: int
) -> list[list[Match]]:
    found = []
    for events in alike:
        matches = await match(connection, events, after=after, limit=limit, scan=scan)
        scan -= matches[0].scanned
        found.append(matches)
    return found


async def match_range(connection: AsyncConnection, event: Event, *, after: str, until: str) -> tuple[Found, ...]:
    matcher = Matcher(event, None)
    matcher.add_matches(await _candidates(connection, event, after=after, until=until), last=True)
    return tuple(matcher.found)


async def _candidates(
    connection: AsyncConnection, event: Event, *, after: str, until: str | None = None, size: int | None = None
) -> Sequence[_Candidate]:
    """Return the active subscriptions with a pattern for the event's type, of its tenant or all of them, by id."""
    patterns = patterns_matching(event.type)
    optional = {"tenant": None if event.tenant == ALL_TENANTS else event.tenant, "until": until, "size": size}
    bounds = {name: value for name, value in optional.items() if value is not None}
    values = {"after": after, **bounds, **{f"pattern_{number}": one for number, one in enumerate(patterns)}}
    return (await connection.execute(_query(len(patterns), frozenset(bounds)), values)).all()


@cache
def _query(patterns: int, bounds: frozenset[str]) -> Select[str, str, str]:
    """Build the query for a number of patterns and these bounds; cached, since building costs more than executing.

    Each pattern is its own range of an index, read in order and up to `size` rows: a match of `*` with a million
    subscriptions costs what a match with a thousand does.
    """
    column = subscription_types.c
    size = bindparam("size", type_=Integer) if "size" in bounds else None
    ranges = []
    for number in range(patterns):
        part = select(column.subscription_id).where(
            column.pattern == bindparam(f"pattern_{number}"), column.subscription_id > bindparam("after")
        )
        if "tenant" in bounds:
            part = part.where(column.tenant == bindparam("tenant"))
        if "until" in bounds:
            part = part.where(column.subscription_id <= bindparam("until"))
        ordered = part.order_by(column.subscription_id).limit(size).subquery()
        ranges.append(select(ordered.c.subscription_id))
    ids = union(*ranges).subquery()
    first = select(ids.c.subscription_id).order_by(ids.c.subscription_id).limit(size).subquery()
    return (
        select(subscriptions.c.id, subscriptions.c.channel, subscriptions.c.filters)
        .join(first, first.c.subscription_id == subscriptions.c.id)
        .order_by(subscriptions.c.id)
    )


class Matching:
    """The resource `registry.matching`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def match(self, event: Event, *, after: str = "", limit: int, scan: int) -> Match:
        """Return up to `limit` matching subscriptions after the id `after`, reading at most `scan` candidate rows."""
        (matches,) = await self.match_each([[event]], after=after, limit=limit, scan=scan)
        return matches[0]

    async def match_each(
        self, alike: Sequence[Sequence[Event]], *, after: str = "", limit: int, scan: int
    ) -> Sequence[list[Match]]:
        """Match lists of events, each of one type and tenant, so that a list reads each candidate row once.

        `scan` limits the candidate rows of all lists together.
        """
        return await self._database.read(match_each, alike, after=after, limit=limit, scan=scan)

    async def match_range(self, event: Event, *, after: str, until: str) -> tuple[Found, ...]:
        """Return all matching subscriptions after the id `after` and up to `until`, by ascending id."""
        return await self._database.read(match_range, event, after=after, until=until)
