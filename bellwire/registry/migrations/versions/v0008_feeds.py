"""Feeds of subscriptions of the channel `poll`."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    id_type = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.create_table(
        "feeds",
        sa.Column("subscription_id", id_type, nullable=False),
        sa.Column("feed_id", sa.Text, nullable=False),
        sa.Column("last_position", sa.BigInteger, nullable=False),
        sa.Column("removed_to", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("subscription_id", name="feeds_pk"),
        sa.ForeignKeyConstraint(
            ["subscription_id"], ["subscriptions.id"], name="feeds_subscription_id_fk", ondelete="CASCADE"
        ),
    )
    op.create_table(
        "feed_entries",
        sa.Column("subscription_id", id_type, nullable=False),
        sa.Column("position", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("event_key", id_type, nullable=False),
        sa.Column("placed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("body", sa.Text),
        sa.PrimaryKeyConstraint("subscription_id", "position", name="feed_entries_pk"),
        sa.ForeignKeyConstraint(
            ["subscription_id"], ["feeds.subscription_id"], name="feed_entries_subscription_id_fk", ondelete="CASCADE"
        ),
    )
    op.create_index("feed_entries_by_event", "feed_entries", ["event_key"])
    is_test = sa.text("body IS NOT NULL")
    op.create_index(
        "feed_entries_of_tests", "feed_entries", ["placed_at"], sqlite_where=is_test, postgresql_where=is_test
    )
