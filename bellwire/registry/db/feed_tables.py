"""The tables of feeds: what apps read of subscriptions of the channel `poll`."""

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Table, Text, text

from bellwire.registry.db.sealed import Sealed
from bellwire.registry.db.tables import Id, Timestamp, metadata

#: One row per subscription whose feed has had an entry.
feeds = Table(
    "feeds",
    metadata,
    Column("subscription_id", Id, ForeignKey("subscriptions.id", ondelete="CASCADE"), primary_key=True),
    #: Random: a cursor of an earlier subscription with the same id is not one of this feed.
    Column("feed_id", Text, nullable=False),
    #: The position of the last entry. A transaction that adds entries locks this row until it ends, so that positions become
    #: visible in their order and a reader skips none.
    Column("last_position", BigInteger, nullable=False),
    #: The highest position of an entry that was removed; 0: none was.
    Column("removed_to", BigInteger, nullable=False),
)

feed_entries = Table(
    "feed_entries",
    metadata,
    Column("subscription_id", Id, ForeignKey("feeds.subscription_id", ondelete="CASCADE"), primary_key=True),
    #: From 1, without gaps until entries are removed.
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("event_key", Id, nullable=False),
    Column("placed_at", Timestamp, nullable=False),
    #: The event of a test send as CloudEvents JSON, which `events` does not have; null for all others.
    Column("body", Sealed("feed_entries.body")),
    Index("feed_entries_by_event", "event_key"),
)

TEST_ENTRY = "body IS NOT NULL"
is_test = text(f"feed_entries.{TEST_ENTRY}")
Index(
    "feed_entries_of_tests",
    feed_entries.c.placed_at,
    sqlite_where=text(TEST_ENTRY),
    postgresql_where=text(TEST_ENTRY),
)
