"""The tables of the registry. Migrations create them; a test compares the two.

JSON is stored as text, private data in Sealed columns. Ids are compared byte by byte on both databases (collation "C" on
PostgreSQL); otherwise the order of keyset pages would depend on the server's locale.
"""

from datetime import UTC, datetime

from sqlalchemy import (
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    text,
)

from bellwire.registry.db.sealed import Sealed

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pk",
        "fk": "%(table_name)s_%(column_0_name)s_fk",
        "ix": "%(table_name)s_%(column_0_N_name)s",
        "uq": "%(table_name)s_%(column_0_name)s_key",
    }
)

Id = Text().with_variant(Text(collation="C"), "postgresql")


class Timestamp(TypeDecorator[datetime]):
    """A timestamp: takes aware datetimes, returns them in UTC. SQLite stores no time zone, so values are stored in UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


tenants = Table(
    "tenants",
    metadata,
    Column("id", Id, primary_key=True),
    Column("created_at", Timestamp, nullable=False),
)

subscriptions = Table(
    "subscriptions",
    metadata,
    Column("id", Id, primary_key=True),
    Column("tenant", Id, ForeignKey("tenants.id"), nullable=False),
    Column("channel", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("state_reason", Text),
    Column("types", Text, nullable=False),
    Column("filters", Text, nullable=False),
    Column("target", Sealed("subscriptions.target"), nullable=False),
    Column("template", Text),
    #: The tenant's own templates, as JSON.
    Column("templates", Sealed("subscriptions.templates")),
    Column("locale", Text, nullable=False),
    Column("retry_schedule", Text),
    #: Maximum deliveries per second; null: no limit.
    Column("rate_limit", Float),
    #: The first time that no delivery of this subscription has reserved.
    Column("next_reservation_at", Timestamp),
    # EndpointHealth; all null while the endpoint is healthy.
    Column("throttled_until", Timestamp),
    Column("throttles", Integer),
    Column("failing_since", Timestamp),
    Column("failures", Integer),
    Column("warnings", Integer),
    #: A digest of what the endpoint consented to, such as the URL. Sealed, since guesses could be tested against it.
    Column("consent", Sealed("subscriptions.consent")),
    Column("consented_at", Timestamp),
    #: Maximum deliveries per second; null: no limit.
    Column("consented_rate", Float),
    Column("created_at", Timestamp, nullable=False),
    #: The secrets that sign webhooks, as JSON (see bellwire/registry/signing_secrets.py); null on other channels.
    Column("secrets", Sealed("subscriptions.secrets")),
    #: Counts the changes of the fields and of the state.
    Column("version", Integer, nullable=False, server_default="1"),
    #: When it was changed; null if it never was.
    Column("updated_at", Timestamp),
    #: The version since which the target has its address; null: the first. Attempts at earlier ones say nothing about it.
    Column("address_version", Integer),
    Index("subscriptions_by_tenant", "tenant", "id"),
)

DISABLED_STATE = "state = 'disabled'"
disabled = text(f"subscriptions.{DISABLED_STATE}")
Index(
    "subscriptions_disabled",
    subscriptions.c.channel,
    # SQLite checks the condition again, and would read the row for it.
    subscriptions.c.state,
    sqlite_where=text(DISABLED_STATE),
    postgresql_where=text(DISABLED_STATE),
)

#: One row per type pattern of each active subscription. Inactive ones have no rows, so that matching never reads them.
subscription_types = Table(
    "subscription_types",
    metadata,
    Column("pattern", Id, primary_key=True),
    Column("subscription_id", Id, ForeignKey("subscriptions.id", ondelete="CASCADE"), primary_key=True),
    Column("tenant", Id, nullable=False),
    Index("subscription_types_by_tenant", "tenant", "pattern", "subscription_id"),
    sqlite_with_rowid=False,
)

#: Operational events that are not published yet. Ids sort by creation.
operational_events = Table(
    "operational_events",
    metadata,
    Column("id", Id, primary_key=True),
    #: The event as CloudEvents JSON. It holds ids and reasons, nothing private.
    Column("body", Text, nullable=False),
)

#: Rate limits of channels. Channels without a limit have no row.
limits = Table(
    "limits",
    metadata,
    Column("channel", Text, primary_key=True),
    Column("per_second", Float, nullable=False),
)

#: Addresses that are not sent to: by one subscription, by one SMS sender, or by all if `subscription_id` is empty.
suppressions = Table(
    "suppressions",
    metadata,
    Column("channel", Text, primary_key=True),
    #: A hash of the address to look it up by; keyed if there are encryption keys.
    Column("address_key", Id, primary_key=True),
    Column("subscription_id", Id, primary_key=True),
    Column("address", Sealed("suppressions.address"), nullable=False),
    Column("reason", Text, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    #: The code or feedback type that was reported.
    Column("cause", Text),
    Index("suppressions_by_time", "created_at"),
)

events = Table(
    "events",
    metadata,
    Column("key", Id, primary_key=True),
    Column("source", Text, nullable=False),
    Column("id", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("tenant", Id),
    #: Of the content. Sealed, since guesses at the content could be tested against it.
    Column("digest", Sealed("events.digest"), nullable=False),
    Column("workflow_id", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("accepted_at", Timestamp, nullable=False),
    #: The event as CloudEvents JSON.
    Column("body", Sealed("events.body"), nullable=False),
    Index("events_by_id", "id"),
    Index("events_by_time", "accepted_at", "key"),
    # With the type, so that a replay of past events reads no row of a type that it does not want.
    Index("events_by_tenant", "tenant", "accepted_at", "key", "type"),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("event_key", Id, ForeignKey("events.key", ondelete="CASCADE"), primary_key=True),
    Column("subscription_id", Id, ForeignKey("subscriptions.id"), primary_key=True),
    Column("channel", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("schedule_from", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("delay", Float),
    Column("from_retry_after", Boolean, nullable=False),
    #: The time reserved for the next attempt by the subscription's rate limit.
    Column("not_before", Timestamp),
    Column("intent_at", Timestamp),
    Column("remaining_recipients", Sealed("deliveries.remaining_recipients")),
    #: Sealed, since the id of a message in a chat may begin with the chat's.
    Column("provider_id", Sealed("deliveries.provider_id")),
    #: The provider that an SMS was last submitted to, and the number of that attempt.
    Column("provider_attempted", Text),
    Column("workflow_id", Text, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    #: Null in rows that an earlier version inserted.
    Column("created_at", Timestamp),
    Index("deliveries_by_subscription", "subscription_id", "event_key"),
    sqlite_with_rowid=False,
)

#: The condition of the partial index below. A delivery that succeeds at once goes from pending to delivered and never
#: enters the index. SQLite uses the index only for queries that repeat the condition literally.
LISTED_STATE = "state NOT IN ('pending', 'delivered')"
listed = text(f"deliveries.{LISTED_STATE}")
Index(
    "deliveries_by_state",
    deliveries.c.state,
    deliveries.c.event_key,
    deliveries.c.subscription_id,
    sqlite_where=text(LISTED_STATE),
    postgresql_where=text(LISTED_STATE),
)

#: The deliveries that are not settled, to count them. Queries repeat the condition, as above.
UNSETTLED_STATE = "state IN ('pending', 'sending', 'waiting')"
unsettled = text(f"deliveries.{UNSETTLED_STATE}")
Index(
    "deliveries_unsettled",
    deliveries.c.channel,
    deliveries.c.created_at,
    # SQLite checks the condition again, and would read the row for it.
    deliveries.c.state,
    sqlite_where=text(UNSETTLED_STATE),
    postgresql_where=text(UNSETTLED_STATE),
)

attempts = Table(
    "attempts",
    metadata,
    # Without foreign keys: attempts stay when deliveries are deleted, and recording them never fails for a missing row.
    Column("event_key", Id, primary_key=True),
    Column("subscription_id", Id, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("started_at", Timestamp, nullable=False),
    #: Seconds.
    Column("duration", Float, nullable=False),
    Column("state", Text, nullable=False),
    Column("delay", Float),
    Column("from_retry_after", Boolean, nullable=False),
    #: The Outcome as JSON. For receipts, `provider_id` is stored beside it too, to be looked up.
    Column("outcome", Sealed("attempts.outcome"), nullable=False),
    Column("provider_id", Text),
    #: What was sent and what came back, compressed (see bellwire/exchanges.py); null if it is not kept.
    Column("exchanges", Sealed("attempts.exchanges")),
)
Index(
    "attempts_by_provider_id",
    attempts.c.provider_id,
    sqlite_where=text("provider_id IS NOT NULL"),
    postgresql_where=text("provider_id IS NOT NULL"),
)

#: What the last test send of each subscription sent and received, until it is shown.
test_sends = Table(
    "test_sends",
    metadata,
    Column("subscription_id", Id, ForeignKey("subscriptions.id", ondelete="CASCADE"), primary_key=True),
    #: The run of the test send.
    Column("workflow_id", Text, nullable=False),
    Column("exchanges", Sealed("test_sends.exchanges"), nullable=False),
    Column("created_at", Timestamp, nullable=False),
)

#: The latest delivery receipt of each SMS.
sms_receipts = Table(
    "sms_receipts",
    metadata,
    Column("event_key", Id, ForeignKey("events.key", ondelete="CASCADE"), primary_key=True),
    Column("subscription_id", Id, primary_key=True),
    Column("provider_id", Id, primary_key=True),
    Column("status", Text, nullable=False),
    Column("code", Text),
    Column("segments", Integer),
    #: A decimal number, exact as text.
    Column("price", Text),
    Column("currency", Text),
    Column("received_at", Timestamp, nullable=False),
)

#: API keys, stored as hashes. Ids sort by creation.
api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Id, primary_key=True),
    Column("hash", Id, nullable=False, unique=True),
    Column("scope", Text, nullable=False),
    #: The tenant of the scope; null unless it has one.
    Column("tenant", Id),
    Column("description", Text, nullable=False),
    #: The first characters of the key.
    Column("hint", Text, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    Column("expires_at", Timestamp),
    Column("last_used_at", Timestamp),
    Column("revoked_at", Timestamp),
    Index("api_keys_by_tenant", "tenant", "id"),
)

#: Who changed what, when and from where. Ids sort by time.
audit_log = Table(
    "audit_log",
    metadata,
    Column("id", Id, primary_key=True),
    Column("at", Timestamp, nullable=False),
    #: The id of an API key, or the user of the command line.
    Column("actor", Text, nullable=False),
    #: An address, or the host of the command line.
    Column("origin", Text, nullable=False),
    #: What was done, such as subscription.paused.
    Column("action", Text, nullable=False),
    #: The id of what was changed.
    Column("resource", Id, nullable=False),
    Column("tenant", Id),
    Index("audit_log_by_tenant", "tenant", "id"),
)

#: Requests with an idempotency key, by the API key that sent them, and their responses.
idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("owner", Id, primary_key=True),
    Column("key", Id, primary_key=True),
    Column("fingerprint", Text, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    #: Null while the request is in progress.
    Column("status", Integer),
    Column("body", Sealed("idempotency_keys.body")),
    Column("content_type", Text),
)

#: Services that have registered handlers. The handlers are subscriptions.
handler_services = Table(
    "handler_services",
    metadata,
    Column("service", Id, primary_key=True),
    #: What tells two applications apart that claim the same service.
    Column("application", Text, nullable=False),
    Column("registered_at", Timestamp, nullable=False),
    #: When a process of the service polled last, as far as a worker has seen.
    Column("last_seen", Timestamp, nullable=False),
    #: When the operational event of its absence was added; null: it is not absent.
    Column("absent_since", Timestamp),
)

#: The catalog of event types.
event_types = Table(
    "event_types",
    metadata,
    Column("type", Id, primary_key=True),
    Column("description", Text, nullable=False),
    Column("owner", Text, nullable=False),
    #: Why it should no longer be used; null: it is not deprecated.
    Column("deprecated", Text),
    #: JSON: delays in seconds; null: those of the channels.
    Column("retry_schedule", Text),
    Column("created_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
)

#: The schemas that the data of a type has had.
event_type_versions = Table(
    "event_type_versions",
    metadata,
    Column("type", Id, ForeignKey("event_types.type", ondelete="CASCADE"), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    #: JSON Schema as JSON; null: any data.
    Column("schema", Text),
    #: A list of values, as JSON.
    Column("examples", Text, nullable=False),
    Column("created_at", Timestamp, nullable=False),
)

#: What each schedule has published, by the time that it was for.
ticks = Table(
    "ticks",
    metadata,
    Column("schedule", Id, primary_key=True),
    Column("scheduled_at", Timestamp, primary_key=True),
    Column("state", Text, nullable=False),
    Column("event_key", Id, nullable=False),
    Column("workflow_id", Text, nullable=False),
    Column("recorded_at", Timestamp, nullable=False),
)
