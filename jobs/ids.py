"""Names of jobs: `att_` and a UUID version 7 in hex, so that names sort by the time they were given."""

from uuid_utils import uuid7

PREFIX = "att_"


def new_job_id() -> str:
    """A name for a new job: `att_` and 32 hex digits, later than every name this process gave before."""
    return PREFIX + uuid7().hex
