"""Sessions that can be ended, and indexes for the lists of whoever runs the service."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "sessions",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("key_id", sa.String(12), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("ends_at", MOMENT, nullable=False),
    )
    op.create_index("ix_sessions_key_id_created_at", "sessions", ["key_id", "created_at"])
    op.create_index("ix_sessions_ends_at", "sessions", ["ends_at"])
    op.create_index("ix_api_keys_created_at_id", "api_keys", ["created_at", "id"])
    op.create_index("ix_webhook_endpoints_enabled_id", "webhook_endpoints", ["enabled", "id"])
    op.create_index("ix_webhook_deliveries_state_id", "webhook_deliveries", ["state", "id"])


def downgrade() -> None:
    op.drop_index("ix_webhook_deliveries_state_id", "webhook_deliveries")
    op.drop_index("ix_webhook_endpoints_enabled_id", "webhook_endpoints")
    op.drop_index("ix_api_keys_created_at_id", "api_keys")
    op.drop_table("sessions")
