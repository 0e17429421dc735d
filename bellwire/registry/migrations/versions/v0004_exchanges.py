"""Keep what attempts and test sends sent and received."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("attempts", sa.Column("exchanges", sa.Text()))
    identifier = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.create_table(
        "test_sends",
        sa.Column("subscription_id", identifier, nullable=False),
        sa.Column("workflow_id", sa.Text(), nullable=False),
        sa.Column("exchanges", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("subscription_id", name="test_sends_pk"),
        sa.ForeignKeyConstraint(
            ["subscription_id"], ["subscriptions.id"], name="test_sends_subscription_id_fk", ondelete="CASCADE"
        ),
    )
