"""Shares: links by which somebody without a key reads one answer."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "shares",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("job_id", sa.String(40), nullable=False),
        sa.Column("owner", sa.String(80), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("label", sa.String(200)),
        sa.Column("left_out", JSON, nullable=False),
        sa.Column("works", sa.Integer),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.Column("revoked_at", MOMENT),
        sa.Column("views", sa.Integer, nullable=False),
        sa.Column("viewed_at", MOMENT),
    )
    op.create_index("ix_shares_digest", "shares", ["digest"], unique=True)
    op.create_index("ix_shares_job_id_id", "shares", ["job_id", "id"])


def downgrade() -> None:
    op.drop_table("shares")
