"""Webhook endpoints, what is to be delivered to them, and the endpoint that a question was asked with."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "webhook_endpoints",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("owner", sa.String(80), nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("description", sa.String(200)),
        sa.Column("events", JSON),
        sa.Column("secret", sa.Text, nullable=False),
        sa.Column("previous_secret", sa.Text),
        sa.Column("previous_until", MOMENT),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("disabled_at", MOMENT),
        sa.Column("disabled_because", sa.Text),
        sa.Column("failing_since", MOMENT),
    )
    op.create_index("ix_webhook_endpoints_owner", "webhook_endpoints", ["owner"])
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("endpoint_id", sa.String(40), nullable=False),
        sa.Column("job_id", sa.String(40)),
        sa.Column("type", sa.String(40), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("tried", JSON, nullable=False),
        sa.Column("next_attempt_at", MOMENT),
        sa.Column("give_up_at", MOMENT),
        sa.Column("delivered_at", MOMENT),
        sa.Column("lease_token", sa.String(32)),
        sa.Column("lease_expires_at", MOMENT),
    )
    op.create_index("ix_webhook_deliveries_endpoint_id_id", "webhook_deliveries", ["endpoint_id", "id"])
    op.create_index("ix_webhook_deliveries_state_next", "webhook_deliveries", ["state", "next_attempt_at"])
    op.create_index("ix_webhook_deliveries_job_id", "webhook_deliveries", ["job_id"])
    op.add_column("jobs", sa.Column("webhook_endpoint", sa.String(40)))


def downgrade() -> None:
    op.drop_column("jobs", "webhook_endpoint")
    for table in ("webhook_deliveries", "webhook_endpoints"):
        op.drop_table(table)
