"""The seed a picture was generated with, for Journey TRAK."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("seed", sa.BigInteger))


def downgrade() -> None:
    op.drop_column("jobs", "seed")
