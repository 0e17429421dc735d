"""Polling: reading the feed of a subscription by cursors, and waiting for its next event.

A cursor says how far its reader has come; nothing is stored about readers. So reading again with a cursor returns the same
events, any number of readers may follow one feed, and an event is received at least once by each reader that keeps its cursor
after it has processed what it read.
"""

import asyncio
import base64
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from bellwire.errors import BellwireError, CursorExpired
from bellwire.registry import Registry
from bellwire.registry.api.feeds import FeedEntry, FeedPage
from bellwire.subscriptions import Subscription
from bellwire.targets import Channel
from starter.operations.problems import InputInvalid, Kind, OperationError

#: The cursor of the end of the feed: only what is placed from now on.
LATEST = "latest"
#: Seconds between two looks for new events of all feeds that are waited for.
LOOK_SECONDS = 0.25
#: The extension attribute of an event that has the id of its delivery.
DELIVERY_ID = "deliveryid"

_CURSOR = re.compile(
    r"([A-Za-z0-9_-]{1,63}):([0-9a-f]{8}|):(0|[1-9][0-9]{0,17})(?::([1-9][0-9]{0,17}):(0|[1-9][0-9]{0,17}))?"
)
_RESTART = "poll without a cursor, from the oldest event that is kept, or with cursor=latest"


class NotPolled(OperationError):
    """The subscription is not of the channel poll, so it has no feed."""

    kind = Kind.CONFLICT


class FeedCursor(NamedTuple):
    """A position in the feed of a subscription."""

    subscription_id: str
    #: Empty in a cursor that was given before the feed had an entry.
    feed_id: str
    position: int
    #: The highest position that was removed before the cursor was given, if the cursor is before it. Entries in between are
    #: still there when their events were removed out of order, such as one that was redelivered.
    removed_to: int = 0
    #: How many of them there were.
    kept: int = 0

    @classmethod
    def after(cls, subscription_id: str, page: FeedPage) -> Self:
        """The cursor of the end of a page."""
        begin = cls(subscription_id, page.feed.feed_id, page.reached)
        return (
            begin._replace(removed_to=page.removed_to, kept=page.kept_after)
            if begin.position < page.removed_to
            else begin
        )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises InputInvalid."""
        try:
            decoded = base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4)).decode()
        except ValueError:
            decoded = ""
        found = _CURSOR.fullmatch(decoded)
        cursor = cls(found[1], found[2], int(found[3]), int(found[4] or 0), int(found[5] or 0)) if found else None
        # The decoder ignores what is not base64.
        if cursor is None or str(cursor) != text:
            raise InputInvalid(
                "is not a cursor", field="cursor", remedy="use `cursor` of an earlier response, or omit it"
            )
        return cursor

    def __str__(self) -> str:
        parts = self if self.removed_to else self[:3]
        return base64.urlsafe_b64encode(":".join(map(str, parts)).encode()).decode().rstrip("=")

    def check(self, subscription_id: str, page: FeedPage) -> None:
        """Raise InputInvalid or CursorExpired unless all that followed it in this feed is still there, or on its page."""
        feed = page.feed
        if self.subscription_id != subscription_id:
            raise InputInvalid("is one of another subscription", field="cursor", remedy="use one that this one gave")
        known = self.removed_to if self.feed_id == feed.feed_id else 0
        removed = feed.removed_to > max(self.position, known) or page.kept < self.kept
        if removed or (page.reached >= page.removed_to and page.kept_after):
            raise CursorExpired(f"events after this cursor were deleted, as they were too old; {_RESTART}")
        if self.position > feed.last_position or (self.feed_id != feed.feed_id and self.position > 0):
            raise CursorExpired(f"this cursor is from before the subscription was created again; {_RESTART}")


@dataclass(frozen=True)
class Polled:
    """What one request reads."""

    #: In the CloudEvents JSON format, each with the id of its delivery.
    events: list[dict[str, Any]]
    #: Where the next request begins.
    cursor: str
    #: Whether there is more already.
    more: bool


class FeedWatcher:
    """Lets any number of requests wait for new entries of feeds, by one query at a time for all of them."""

    def __init__(self, registry: Registry, *, interval: float = LOOK_SECONDS) -> None:
        self._registry, self._interval = registry, interval
        self._waiting: dict[str, dict[asyncio.Future[None], int]] = defaultdict(dict)
        self._looking: asyncio.Task[None] | None = None
        self._stopped = False

    async def wait(self, subscription_id: str, position: int, seconds: float) -> None:
        """Return once the feed has an entry after the position, or after some seconds. Raises RegistryUnavailable."""
        if self._stopped:
            return
        found = asyncio.get_running_loop().create_future()
        self._waiting[subscription_id][found] = position
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
        try:
            await asyncio.wait([found], timeout=seconds)
            if found.done():
                found.result()
        finally:
            found.cancel()
            self._waiting[subscription_id].pop(found, None)
            if not self._waiting[subscription_id]:
                del self._waiting[subscription_id]

    def stop(self) -> None:
        """End the waiting of all requests, also of those that come."""
        self._stopped = True
        for waiting in self._waiting.values():
            for found in waiting:
                _wake(found)

    async def _look(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(self._interval)
                await self._wake_ready()
        finally:
            self._looking = None

    async def _wake_ready(self) -> None:
        try:
            last = await self._registry.feeds.last_positions(list(self._waiting))
        except BellwireError as error:
            for waiting in self._waiting.values():
                for found in waiting:
                    _wake(found, error)
            return
        for name, waiting in self._waiting.items():
            for found, position in waiting.items():
                if last.get(name, 0) > position:
                    _wake(found)


def _wake(found: asyncio.Future[None], error: Exception | None = None) -> None:
    if found.done():
        return
    if error is None:
        found.set_result(None)
    else:
        found.set_exception(error)


async def poll(
    registry: Registry, watcher: FeedWatcher, subscription: Subscription, *, cursor: str, limit: int, wait: float = 0
) -> Polled:
    """Up to `limit` events after the cursor; if there are none, those that come within `wait` seconds.

    The cursor is empty for the oldest event that is kept, or `latest`. Raises NotPolled, InputInvalid, CursorExpired.
    """
    if subscription.channel is not Channel.POLL:
        message = f"subscription {subscription.id} is of channel {subscription.channel}, which cannot be polled"
        raise NotPolled(message, remedy='create one with the target {"channel": "poll"}')
    given = FeedCursor.parse(cursor) if cursor not in {"", LATEST} else None
    after = given.position if given else 0
    if cursor == LATEST:
        after = (await registry.feeds.get(subscription.id)).last_position
    page = await registry.feeds.read(subscription.id, after=after, limit=limit)
    if given:
        given.check(subscription.id, page)
    following = FeedCursor.after(subscription.id, page)
    if wait and not page.entries and not page.more:
        await watcher.wait(subscription.id, following.position, wait)
        page = await registry.feeds.read(subscription.id, after=following.position, limit=limit)
        following.check(subscription.id, page)
        following = FeedCursor.after(subscription.id, page)
    return Polled([_structured(entry) for entry in page.entries], str(following), page.more)


def _structured(entry: FeedEntry) -> dict[str, Any]:
    return {**entry.event.structured(), DELIVERY_ID: entry.delivery_id}
