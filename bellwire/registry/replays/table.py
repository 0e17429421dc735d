"""The table of replays."""

from sqlalchemy import Column, Float, ForeignKey, Index, Integer, Table, Text, text

from bellwire.registry.db.tables import Id, Timestamp, metadata

#: Replays of past deliveries and events. Ids sort by creation.
replays = Table(
    "replays",
    metadata,
    Column("id", Id, primary_key=True),
    Column("tenant", Id, nullable=False),
    Column("subscription_id", Id, ForeignKey("subscriptions.id", ondelete="CASCADE"), nullable=False),
    Column("kind", Text, nullable=False),
    #: Lists of states and of type patterns, as JSON.
    Column("states", Text, nullable=False),
    Column("types", Text, nullable=False),
    Column("event_key", Id),
    Column("since", Timestamp),
    Column("until", Timestamp, nullable=False),
    #: Deliveries per second.
    Column("rate", Float, nullable=False),
    Column("state", Text, nullable=False),
    Column("state_reason", Text),
    Column("total", Integer),
    Column("done", Integer, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    #: When its workflow began; null: not yet.
    Column("started_at", Timestamp),
    Column("ended_at", Timestamp),
    Index("replays_by_subscription", "subscription_id", "id"),
    Index("replays_by_tenant", "tenant", "id"),
)
Index(
    "replays_not_started",
    replays.c.id,
    sqlite_where=text("started_at IS NULL"),
    postgresql_where=text("started_at IS NULL"),
)
