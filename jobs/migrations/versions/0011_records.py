"""Opt-outs, the audit log, and the rights holders that a key speaks for."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "opt_outs",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("owner", sa.String(80), nullable=False),
        sa.Column("token_digest", sa.String(64)),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("index_name", sa.String(200), nullable=False),
        sa.Column("works", JSON),
        sa.Column("creator", sa.Text),
        sa.Column("contact", sa.Text),
        sa.Column("statement", sa.Text),
        sa.Column("reason", sa.Text),
        sa.Column("created_at", MOMENT, nullable=False),
        *(
            sa.Column(name, MOMENT)
            for name in (
                "verified_at",
                "hidden_at",
                "shown_again_at",
                "left_out_at",
                "removed_at",
                "closed_at",
                "erased_at",
            )
        ),
    )
    op.create_index("ix_opt_outs_owner_id", "opt_outs", ["owner", "id"])
    op.create_index("ix_opt_outs_state_id", "opt_outs", ["state", "id"])
    op.create_table(
        "audit_events",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("actor", sa.String(80), nullable=False),
        sa.Column("action", sa.String(40), nullable=False),
        sa.Column("object", sa.String(200)),
        sa.Column("outcome", sa.String(40), nullable=False),
        sa.Column("request_id", sa.String(128)),
        sa.Column("details", JSON, nullable=False),
    )
    op.create_index("ix_audit_events_at", "audit_events", ["at"])
    op.create_index("ix_audit_events_actor_id", "audit_events", ["actor", "id"])
    op.create_index("ix_audit_events_action_id", "audit_events", ["action", "id"])
    op.create_index("ix_audit_events_object_id", "audit_events", ["object", "id"])
    with op.batch_alter_table("api_keys") as table:
        table.add_column(sa.Column("rights_holders", JSON))


def downgrade() -> None:
    with op.batch_alter_table("api_keys") as table:
        table.drop_column("rights_holders")
    op.drop_table("audit_events")
    op.drop_table("opt_outs")
