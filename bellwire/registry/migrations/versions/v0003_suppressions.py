"""Addresses that are written to no more."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "suppressions",
        sa.Column("channel", sa.Text, nullable=False),
        sa.Column("address_key", ID, nullable=False),
        sa.Column("subscription_id", ID, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("channel", "address_key", "subscription_id", name="suppressions_pk"),
    )
    op.create_index("suppressions_by_time", "suppressions", ["created_at"])
