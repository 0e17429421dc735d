"""Rate limits of channels and of subscriptions."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TIMESTAMP = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "limits",
        sa.Column("channel", sa.Text, nullable=False),
        sa.Column("per_second", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("channel", name="limits_pk"),
    )
    op.add_column("subscriptions", sa.Column("rate_limit", sa.Float))
    op.add_column("subscriptions", sa.Column("next_slot_at", TIMESTAMP))
    op.add_column("deliveries", sa.Column("not_before", TIMESTAMP))
