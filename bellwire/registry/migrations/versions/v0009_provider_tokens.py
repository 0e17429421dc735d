"""Access tokens of providers."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    id_type = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    timestamp = sa.DateTime(timezone=True)
    op.create_table(
        "provider_tokens",
        sa.Column("provider", id_type, nullable=False),
        sa.Column("account", id_type, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("token", sa.Text),
        sa.Column("expires_at", timestamp),
        sa.Column("fetched_at", timestamp),
        sa.Column("claimed_by", sa.Text),
        sa.Column("claimed_until", timestamp),
        sa.PrimaryKeyConstraint("provider", "account", name="provider_tokens_pk"),
    )
