"""Policies with their versions, and the decisions made by them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "policies",
        sa.Column("owner", sa.String(80), primary_key=True),
        sa.Column("id", sa.String(60), primary_key=True),
        sa.Column("versions", sa.Integer, nullable=False),
        sa.Column("active", sa.Integer),
        sa.Column("shadow", sa.Integer),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
    )
    op.create_table(
        "policy_versions",
        sa.Column("owner", sa.String(80), primary_key=True),
        sa.Column("policy_id", sa.String(60), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("document", JSON, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["owner", "policy_id"], ["policies.owner", "policies.id"]),
    )
    op.create_table(
        "decisions",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("owner", sa.String(80), nullable=False),
        sa.Column("job_id", sa.String(40), nullable=False),
        sa.Column("policy_id", sa.String(60), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("shadow_version", sa.Integer),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("decided_at", MOMENT),
        sa.Column("outcome", sa.String(16)),
        sa.Column("verdict", JSON),
        sa.Column("shadow", JSON),
        sa.Column("review_outcome", sa.String(16)),
        sa.Column("review", JSON),
    )
    op.create_index("ix_decisions_owner_id", "decisions", ["owner", "id"])
    op.create_index("ix_decisions_job_id", "decisions", ["job_id"])
    op.create_index("ix_decisions_state_id", "decisions", ["state", "id"])
    op.create_index("ix_decisions_owner_policy_id", "decisions", ["owner", "policy_id", "id"])


def downgrade() -> None:
    for table in ("decisions", "policy_versions", "policies"):
        op.drop_table(table)
