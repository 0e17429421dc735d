"""The catalog of event types."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    id_type = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    timestamp = sa.DateTime(timezone=True)
    op.create_table(
        "event_types",
        sa.Column("type", id_type, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("deprecated", sa.Text),
        sa.Column("retry_schedule", sa.Text),
        sa.Column("created_at", timestamp, nullable=False),
        sa.Column("updated_at", timestamp, nullable=False),
        sa.PrimaryKeyConstraint("type", name="event_types_pk"),
    )
    op.create_table(
        "event_type_versions",
        sa.Column("type", id_type, nullable=False),
        sa.Column("version", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("schema", sa.Text),
        sa.Column("examples", sa.Text, nullable=False),
        sa.Column("created_at", timestamp, nullable=False),
        sa.PrimaryKeyConstraint("type", "version", name="event_type_versions_pk"),
        sa.ForeignKeyConstraint(["type"], ["event_types.type"], name="event_type_versions_type_fk", ondelete="CASCADE"),
    )
