"""Several signing secrets of a subscription, each with its end, in place of one."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("subscriptions", sa.Column("secrets", sa.Text))
    table = sa.table("subscriptions", sa.column("secret", sa.Text), sa.column("secrets", sa.Text))
    # Secrets are base64 behind a prefix, which JSON needs not escape.
    as_list = sa.literal('[{"secret":"') + table.c.secret + sa.literal('","expires_at":null}]')
    op.execute(sa.update(table).where(table.c.secret.is_not(None)).values(secrets=as_list))
    op.drop_column("subscriptions", "secret")
