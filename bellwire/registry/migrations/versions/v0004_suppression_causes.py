"""Store what was reported of a suppressed address: a status code, a feedback type, a provider's code."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("suppressions", sa.Column("cause", sa.Text))
