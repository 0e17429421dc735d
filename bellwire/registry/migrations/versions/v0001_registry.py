"""Create all tables of the registry."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
TIMESTAMP = sa.DateTime(timezone=True)


def upgrade() -> None:
    _tenants()
    _subscriptions()
    _subscription_types()
    _operational_events()
    _limits()
    _suppressions()
    _events()
    _deliveries()
    _attempts()
    _sms_receipts()


def _tenants() -> None:
    op.create_table(
        "tenants",
        sa.Column("id", ID, nullable=False),
        sa.Column("created_at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("id", name="tenants_pk"),
    )


def _subscriptions() -> None:
    op.create_table(
        "subscriptions",
        sa.Column("id", ID, nullable=False),
        sa.Column("tenant", ID, nullable=False),
        sa.Column("channel", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("state_reason", sa.Text),
        sa.Column("types", sa.Text, nullable=False),
        sa.Column("filters", sa.Text, nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("template", sa.Text),
        sa.Column("templates", sa.Text),
        sa.Column("locale", sa.Text, nullable=False),
        sa.Column("retry_schedule", sa.Text),
        sa.Column("rate_limit", sa.Float),
        sa.Column("next_reservation_at", TIMESTAMP),
        sa.Column("throttled_until", TIMESTAMP),
        sa.Column("throttles", sa.Integer),
        sa.Column("failing_since", TIMESTAMP),
        sa.Column("failures", sa.Integer),
        sa.Column("warnings", sa.Integer),
        sa.Column("consent", sa.Text),
        sa.Column("consented_at", TIMESTAMP),
        sa.Column("consented_rate", sa.Float),
        sa.Column("created_at", TIMESTAMP, nullable=False),
        sa.Column("secrets", sa.Text),
        sa.PrimaryKeyConstraint("id", name="subscriptions_pk"),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.id"], name="subscriptions_tenant_fk"),
    )
    op.create_index("subscriptions_by_tenant", "subscriptions", ["tenant", "id"])


def _subscription_types() -> None:
    op.create_table(
        "subscription_types",
        sa.Column("pattern", ID, nullable=False),
        sa.Column("subscription_id", ID, nullable=False),
        sa.Column("tenant", ID, nullable=False),
        sa.PrimaryKeyConstraint("pattern", "subscription_id", name="subscription_types_pk"),
        sa.ForeignKeyConstraint(
            ["subscription_id"], ["subscriptions.id"], name="subscription_types_subscription_id_fk", ondelete="CASCADE"
        ),
        sqlite_with_rowid=False,
    )
    op.create_index("subscription_types_by_tenant", "subscription_types", ["tenant", "pattern", "subscription_id"])


def _operational_events() -> None:
    op.create_table(
        "operational_events",
        sa.Column("id", ID, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="operational_events_pk"),
    )


def _limits() -> None:
    op.create_table(
        "limits",
        sa.Column("channel", sa.Text, nullable=False),
        sa.Column("per_second", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("channel", name="limits_pk"),
    )


def _suppressions() -> None:
    op.create_table(
        "suppressions",
        sa.Column("channel", sa.Text, nullable=False),
        sa.Column("address_key", ID, nullable=False),
        sa.Column("subscription_id", ID, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("created_at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("channel", "address_key", "subscription_id", name="suppressions_pk"),
    )
    op.create_index("suppressions_by_time", "suppressions", ["created_at"])


def _events() -> None:
    op.create_table(
        "events",
        sa.Column("key", ID, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("tenant", ID),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("workflow_id", sa.Text, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("accepted_at", TIMESTAMP, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("key", name="events_pk"),
    )
    op.create_index("events_by_id", "events", ["id"])
    op.create_index("events_by_time", "events", ["accepted_at", "key"])


def _deliveries() -> None:
    op.create_table(
        "deliveries",
        sa.Column("event_key", ID, nullable=False),
        sa.Column("subscription_id", ID, nullable=False),
        sa.Column("channel", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("schedule_from", sa.Integer, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("delay", sa.Float),
        sa.Column("from_retry_after", sa.Boolean, nullable=False),
        sa.Column("not_before", TIMESTAMP),
        sa.Column("intent_at", TIMESTAMP),
        sa.Column("remaining_recipients", sa.Text),
        sa.Column("provider_id", sa.Text),
        sa.Column("provider_attempted", sa.Text),
        sa.Column("workflow_id", sa.Text, nullable=False),
        sa.Column("updated_at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("event_key", "subscription_id", name="deliveries_pk"),
        sa.ForeignKeyConstraint(["event_key"], ["events.key"], name="deliveries_event_key_fk", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["subscription_id"], ["subscriptions.id"], name="deliveries_subscription_id_fk"),
        sqlite_with_rowid=False,
    )
    op.create_index("deliveries_by_subscription", "deliveries", ["subscription_id", "event_key"])
    listed = sa.text("state NOT IN ('pending', 'delivered')")
    op.create_index(
        "deliveries_by_state",
        "deliveries",
        ["state", "event_key", "subscription_id"],
        sqlite_where=listed,
        postgresql_where=listed,
    )


def _attempts() -> None:
    op.create_table(
        "attempts",
        sa.Column("event_key", ID, nullable=False),
        sa.Column("subscription_id", ID, nullable=False),
        sa.Column("number", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("started_at", TIMESTAMP, nullable=False),
        sa.Column("duration", sa.Float, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("delay", sa.Float),
        sa.Column("from_retry_after", sa.Boolean, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("provider_id", sa.Text),
        sa.PrimaryKeyConstraint("event_key", "subscription_id", "number", name="attempts_pk"),
    )
    known = sa.text("provider_id IS NOT NULL")
    op.create_index("attempts_by_provider_id", "attempts", ["provider_id"], sqlite_where=known, postgresql_where=known)


def _sms_receipts() -> None:
    op.create_table(
        "sms_receipts",
        sa.Column("event_key", ID, nullable=False),
        sa.Column("subscription_id", ID, nullable=False),
        sa.Column("provider_id", ID, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("code", sa.Text),
        sa.Column("segments", sa.Integer),
        sa.Column("price", sa.Text),
        sa.Column("currency", sa.Text),
        sa.Column("received_at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("event_key", "subscription_id", "provider_id", name="sms_receipts_pk"),
        sa.ForeignKeyConstraint(["event_key"], ["events.key"], name="sms_receipts_event_key_fk", ondelete="CASCADE"),
    )
