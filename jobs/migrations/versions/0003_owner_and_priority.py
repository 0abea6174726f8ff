"""Whose a job is, and whether it may go before others."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # What was asked before there were owners is the one local caller's.
    op.add_column("jobs", sa.Column("owner", sa.String(80), nullable=False, server_default="local"))
    op.add_column("jobs", sa.Column("priority", sa.Integer, nullable=False, server_default="0"))
    op.create_index("ix_jobs_owner_id", "jobs", ["owner", "id"])


def downgrade() -> None:
    op.drop_index("ix_jobs_owner_id", "jobs")
    op.drop_column("jobs", "priority")
    op.drop_column("jobs", "owner")
