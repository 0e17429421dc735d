"""Replays, and an index that finds the past events of a tenant."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    id_type = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    timestamp = sa.DateTime(timezone=True)
    op.create_table(
        "replays",
        sa.Column("id", id_type, nullable=False),
        sa.Column("tenant", id_type, nullable=False),
        sa.Column("subscription_id", id_type, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("states", sa.Text, nullable=False),
        sa.Column("types", sa.Text, nullable=False),
        sa.Column("event_key", id_type),
        sa.Column("since", timestamp),
        sa.Column("until", timestamp, nullable=False),
        sa.Column("rate", sa.Float, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("state_reason", sa.Text),
        sa.Column("total", sa.Integer),
        sa.Column("done", sa.Integer, nullable=False),
        sa.Column("created_at", timestamp, nullable=False),
        sa.Column("updated_at", timestamp, nullable=False),
        sa.Column("started_at", timestamp),
        sa.Column("ended_at", timestamp),
        sa.PrimaryKeyConstraint("id", name="replays_pk"),
        sa.ForeignKeyConstraint(
            ["subscription_id"], ["subscriptions.id"], name="replays_subscription_id_fk", ondelete="CASCADE"
        ),
    )
    op.create_index("replays_by_subscription", "replays", ["subscription_id", "id"])
    op.create_index("replays_by_tenant", "replays", ["tenant", "id"])
    not_started = sa.text("started_at IS NULL")
    op.create_index("replays_not_started", "replays", ["id"], sqlite_where=not_started, postgresql_where=not_started)
    op.create_index("events_by_tenant", "events", ["tenant", "accepted_at", "key", "type"])
