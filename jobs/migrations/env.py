"""Alembic's entry: runs the migrations on the connection that `jobs.database.upgrade` hands over."""

from alembic import context

import jobs.audit
import jobs.decisions
import jobs.keys
import jobs.opt_outs
import jobs.policies
import jobs.searches
import jobs.sessions
import jobs.shares
import jobs.webhooks.models  # noqa: F401  (their tables)
from jobs.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    # SQLite takes part in transactions with its DDL once `BEGIN` is explicit, and it is.
    transactional_ddl=True,
    # SQLite can't alter most of a column; Alembic then rebuilds the table.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
