"""What providers confirm later, and whom an SMS was asked of last."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "confirmations",
        sa.Column("event_key", ID, sa.ForeignKey("events.key", name="confirmations_event_key_fk", ondelete="CASCADE")),
        sa.Column("subscription_id", ID, nullable=False),
        sa.Column("provider_id", ID, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("code", sa.Text),
        sa.Column("segments", sa.Integer),
        sa.Column("price", sa.Text),
        sa.Column("currency", sa.Text),
        sa.Column("confirmed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("event_key", "subscription_id", "provider_id", name="confirmations_pk"),
    )
    op.add_column("deliveries", sa.Column("asked", sa.Text))
    # There was one provider, which may have got what is under way now.
    op.execute(
        "UPDATE deliveries SET asked = 'twilio/' || (attempts + 1) WHERE channel = 'sms' AND intent_at IS NOT NULL"
    )
