"""Grants of WeChat's users."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    id_type = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    timestamp = sa.DateTime(timezone=True)
    op.create_table(
        "wechat_grants",
        sa.Column("account", id_type, nullable=False),
        sa.Column("address_key", id_type, nullable=False),
        sa.Column("template_id", id_type, nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("counted_at", timestamp),
        sa.Column("created_at", timestamp, nullable=False),
        sa.PrimaryKeyConstraint("account", "address_key", "template_id", name="wechat_grants_pk"),
    )
