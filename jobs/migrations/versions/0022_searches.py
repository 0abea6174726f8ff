"""Searches that several workers share."""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "searches",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("index_id", sa.String(200), nullable=False),
        sa.Column("method", sa.String(40), nullable=False),
        sa.Column("question", sa.LargeBinary, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
    )
    op.create_index("ix_searches_created_at", "searches", ["created_at"])
    op.create_table(
        "search_sections",
        sa.Column("search_id", sa.String(40), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("first_row", sa.Integer, nullable=False),
        sa.Column("end_row", sa.Integer, nullable=False),
        sa.Column("worker", sa.String(120), nullable=False),
        sa.Column("taken_at", MOMENT),
        sa.Column("result", sa.LargeBinary),
    )
    op.create_index("ix_search_sections_worker_taken_at", "search_sections", ["worker", "taken_at"])


def downgrade() -> None:
    op.drop_table("search_sections")
    op.drop_table("searches")
