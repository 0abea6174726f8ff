"""Which works an owner was shown in the last day, and how many a key may be shown."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "revealed_works",
        sa.Column("owner", sa.String(80), primary_key=True),
        sa.Column("work_id", sa.String(200), primary_key=True),
        sa.Column("shown_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_revealed_works_shown_at", "revealed_works", ["shown_at"])
    op.add_column("api_keys", sa.Column("daily_works", sa.Integer))


def downgrade() -> None:
    op.drop_column("api_keys", "daily_works")
    op.drop_table("revealed_works")
