"""Index what metrics count: unsettled deliveries by channel and age, and disabled subscriptions by channel."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("deliveries", sa.Column("created_at", sa.DateTime(timezone=True)))
    unsettled = sa.text("state IN ('pending', 'sending', 'waiting')")
    op.create_index(
        "deliveries_unsettled",
        "deliveries",
        ["channel", "created_at", "state"],
        sqlite_where=unsettled,
        postgresql_where=unsettled,
    )
    disabled = sa.text("state = 'disabled'")
    op.create_index(
        "subscriptions_disabled",
        "subscriptions",
        ["channel", "state"],
        sqlite_where=disabled,
        postgresql_where=disabled,
    )
