"""Events and decisions can be followed by their moments; a question has the trace that it belongs to."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_job_events_at", "job_events", ["at"])
    op.create_index("ix_decisions_decided_at", "decisions", ["decided_at"])
    op.add_column("jobs", sa.Column("traceparent", sa.String(55)))


def downgrade() -> None:
    op.drop_column("jobs", "traceparent")
    op.drop_index("ix_decisions_decided_at", "decisions")
    op.drop_index("ix_job_events_at", "job_events")
