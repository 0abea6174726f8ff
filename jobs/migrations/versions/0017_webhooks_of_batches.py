"""A batch may name the only endpoint that hears of it; deliveries can be followed by when they were settled."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("batches", sa.Column("webhook_endpoint", sa.String(40)))
    op.add_column("webhook_deliveries", sa.Column("settled_at", sa.DateTime(timezone=True)))
    op.create_index("ix_webhook_deliveries_settled_at", "webhook_deliveries", ["settled_at"])


def downgrade() -> None:
    op.drop_index("ix_webhook_deliveries_settled_at", "webhook_deliveries")
    op.drop_column("webhook_deliveries", "settled_at")
    op.drop_column("batches", "webhook_endpoint")
