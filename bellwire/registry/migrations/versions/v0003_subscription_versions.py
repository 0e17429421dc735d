"""Count the changes of subscriptions, so that they can be updated without overwriting each other."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("subscriptions", sa.Column("version", sa.Integer, nullable=False, server_default="1"))
    op.add_column("subscriptions", sa.Column("updated_at", sa.DateTime(timezone=True)))
    op.add_column("subscriptions", sa.Column("address_version", sa.Integer))
