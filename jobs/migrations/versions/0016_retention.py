"""Pictures that are gone while their answers stay, and keys with times of their own."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("upload_gone_at", sa.DateTime(timezone=True)))
    op.add_column("api_keys", sa.Column("keep_uploads", sa.Integer))
    op.add_column("api_keys", sa.Column("keep_results", sa.Integer))
    op.create_index("ix_jobs_state_finished", "jobs", ["state", "finished_at"])
    op.create_index("ix_jobs_state_upload", "jobs", ["state", "upload_gone_at", "finished_at"])
    op.create_index("ix_batches_state_created", "batches", ["state", "created_at"])


def downgrade() -> None:
    op.drop_index("ix_batches_state_created", "batches")
    op.drop_index("ix_jobs_state_upload", "jobs")
    op.drop_index("ix_jobs_state_finished", "jobs")
    op.drop_column("api_keys", "keep_results")
    op.drop_column("api_keys", "keep_uploads")
    op.drop_column("jobs", "upload_gone_at")
