"""Ticks of schedules."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    id_type = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    timestamp = sa.DateTime(timezone=True)
    op.create_table(
        "ticks",
        sa.Column("schedule", id_type, nullable=False),
        sa.Column("scheduled_at", timestamp, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("event_key", id_type, nullable=False),
        sa.Column("workflow_id", sa.Text, nullable=False),
        sa.Column("recorded_at", timestamp, nullable=False),
        sa.PrimaryKeyConstraint("schedule", "scheduled_at", name="ticks_pk"),
    )
