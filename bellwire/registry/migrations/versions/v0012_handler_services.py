"""Services that have registered handlers."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    timestamp = sa.DateTime(timezone=True)
    op.create_table(
        "handler_services",
        sa.Column("service", sa.Text().with_variant(sa.Text(collation="C"), "postgresql"), nullable=False),
        sa.Column("application", sa.Text, nullable=False),
        sa.Column("registered_at", timestamp, nullable=False),
        sa.Column("last_seen", timestamp, nullable=False),
        sa.Column("absent_since", timestamp),
        sa.PrimaryKeyConstraint("service", name="handler_services_pk"),
    )
