"""A decision keeps all that people said of it, not the newest word only."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
AS_A_LIST = {"sqlite": "json_array(json(review))", "postgresql": "jsonb_build_array(review)"}


def upgrade() -> None:
    op.add_column("decisions", sa.Column("reviews", JSON))
    told = AS_A_LIST[op.get_bind().dialect.name]
    op.execute(f"UPDATE decisions SET reviews = {told} WHERE review IS NOT NULL")


def downgrade() -> None:
    op.drop_column("decisions", "reviews")
