"""How the receivers of subscriptions fare, what they have consented to, and what is still to be announced about them."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
TIMESTAMP = sa.DateTime(timezone=True)


def upgrade() -> None:
    for name in ("throttled_until", "failing_since", "consented_at"):
        op.add_column("subscriptions", sa.Column(name, TIMESTAMP))
    for name in ("throttles", "failures", "warnings"):
        op.add_column("subscriptions", sa.Column(name, sa.Integer))
    op.add_column("subscriptions", sa.Column("consent", sa.Text))
    op.add_column("subscriptions", sa.Column("consented_rate", sa.Float))
    op.create_table(
        "operational_events",
        sa.Column("id", ID, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="announcements_pk"),
    )
