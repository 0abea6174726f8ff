"""Batches: many pictures that were sent at once, with what became of each."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "batches",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("owner", sa.String(80), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("client_tag", sa.String(200)),
        sa.Column("size", sa.Integer, nullable=False),
    )
    op.create_index("ix_batches_owner_id", "batches", ["owner", "id"])
    op.create_table(
        "batch_items",
        sa.Column("batch_id", sa.String(40), primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("owner", sa.String(80), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("turn", sa.BigInteger, nullable=False),
        sa.Column("name", sa.String(200)),
        sa.Column("asked", JSON, nullable=False),
        sa.Column("address", sa.Text),
        sa.Column("job_id", sa.String(40)),
        sa.Column("problem", JSON),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("token", sa.String(40)),
        sa.Column("claimable_at", MOMENT, nullable=False),
    )
    op.create_index("ix_batch_items_state_turn", "batch_items", ["state", "turn", "batch_id"])
    op.create_index("ix_batch_items_owner_state_turn", "batch_items", ["owner", "state", "turn"])
    op.create_index("ix_batch_items_job_id", "batch_items", ["job_id"])


def downgrade() -> None:
    for table in ("batch_items", "batches"):
        op.drop_table(table)
