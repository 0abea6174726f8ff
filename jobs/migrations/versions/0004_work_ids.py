"""Works named by their id and no longer by their row.

Which work a row is only its index can say, so rows are marked here and exchanged by `jobs.rows.name_works` as
soon as a process has that index open. On the way back what was named by id since can't be said by row: such
look-alikes and answers are given up with it, and a question that waits for chosen candidates is asked of all works.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.alter_column("jobs", "candidate_rows", new_column_name="candidate_works")
    op.add_column("jobs", sa.Column("by_row", sa.Boolean, nullable=False, server_default=sa.false()))
    op.execute(sa.text("UPDATE jobs SET by_row = :yes WHERE state <> 'erased'").bindparams(yes=True))


def downgrade() -> None:
    op.execute(
        sa.text(
            "UPDATE jobs SET candidate_works = NULL, lookalikes = NULL, result = NULL,"
            " state = CASE state WHEN 'succeeded' THEN 'cancelled' ELSE state END WHERE by_row = :no"
        ).bindparams(no=False)
    )
    op.drop_column("jobs", "by_row")
    op.alter_column("jobs", "candidate_works", new_column_name="candidate_rows")
