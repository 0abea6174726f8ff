"""Jobs, their events and the workers' heartbeats."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("started_at", MOMENT),
        sa.Column("finished_at", MOMENT),
        sa.Column("client_tag", sa.String(200)),
        sa.Column("index_id", sa.String(200), nullable=False),
        sa.Column("method", sa.String(40), nullable=False),
        sa.Column("candidates", sa.String(16), nullable=False),
        sa.Column("top_k", sa.Integer, nullable=False),
        sa.Column("prompt", sa.Text),
        sa.Column("input", JSON, nullable=False),
        sa.Column("lookalikes", JSON),
        sa.Column("candidate_rows", JSON),
        sa.Column("stage", sa.String(16), nullable=False),
        sa.Column("progress_done", sa.Integer, nullable=False),
        sa.Column("progress_total", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("leased_by", sa.String(120)),
        sa.Column("lease_token", sa.String(80)),
        sa.Column("lease_expires_at", MOMENT),
        sa.Column("rung_at", MOMENT),
        sa.Column("result", JSON),
        sa.Column("timings", JSON),
        sa.Column("error", JSON),
    )
    op.create_index("ix_jobs_state_id", "jobs", ["state", "id"])
    op.create_index("ix_jobs_client_tag_id", "jobs", ["client_tag", "id"])
    op.create_index("ix_jobs_lease_token", "jobs", ["lease_token"], unique=True)
    op.create_table(
        "job_events",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("job_id", sa.String(40), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("kind", sa.String(24), nullable=False),
        sa.Column("data", JSON, nullable=False),
    )
    op.create_index("ix_job_events_job_id", "job_events", ["job_id"])
    op.create_table(
        "workers",
        sa.Column("id", sa.String(120), primary_key=True),
        sa.Column("started_at", MOMENT, nullable=False),
        sa.Column("seen_at", MOMENT, nullable=False),
        sa.Column("info", JSON, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("workers")
    op.drop_table("job_events")
    op.drop_table("jobs")
