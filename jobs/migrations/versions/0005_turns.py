"""The order of those that wait: by priority, then each owner one after the other."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # What waits already keeps its order, by id, and goes before what comes.
    op.add_column("jobs", sa.Column("turn", sa.BigInteger, nullable=False, server_default="0"))
    op.create_index("ix_jobs_turn", "jobs", ["state", "priority", "turn", "id"])
    op.create_index("ix_jobs_owner_turn", "jobs", ["owner", "state", "priority", "turn"])


def downgrade() -> None:
    op.drop_index("ix_jobs_owner_turn", "jobs")
    op.drop_index("ix_jobs_turn", "jobs")
    op.drop_column("jobs", "turn")
