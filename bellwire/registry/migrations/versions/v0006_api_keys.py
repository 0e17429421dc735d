"""API keys, the audit log of changes, and idempotency keys."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    id_type = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    timestamp = sa.DateTime(timezone=True)
    op.create_table(
        "api_keys",
        sa.Column("id", id_type, nullable=False),
        sa.Column("hash", id_type, nullable=False),
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("tenant", id_type),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("hint", sa.Text, nullable=False),
        sa.Column("created_at", timestamp, nullable=False),
        sa.Column("expires_at", timestamp),
        sa.Column("last_used_at", timestamp),
        sa.Column("revoked_at", timestamp),
        sa.PrimaryKeyConstraint("id", name="api_keys_pk"),
        sa.UniqueConstraint("hash", name="api_keys_hash_key"),
    )
    op.create_index("api_keys_by_tenant", "api_keys", ["tenant", "id"])
    op.create_table(
        "audit_log",
        sa.Column("id", id_type, nullable=False),
        sa.Column("at", timestamp, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("origin", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("resource", id_type, nullable=False),
        sa.Column("tenant", id_type),
        sa.PrimaryKeyConstraint("id", name="audit_log_pk"),
    )
    op.create_index("audit_log_by_tenant", "audit_log", ["tenant", "id"])
    op.create_table(
        "idempotency_keys",
        sa.Column("owner", id_type, nullable=False),
        sa.Column("key", id_type, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("created_at", timestamp, nullable=False),
        sa.Column("status", sa.Integer),
        sa.Column("body", sa.Text),
        sa.Column("content_type", sa.Text),
        sa.PrimaryKeyConstraint("owner", "key", name="idempotency_keys_pk"),
    )
