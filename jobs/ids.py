"""Names of jobs and searches: a prefix and a UUID version 7 in hex, so that they sort by the time they were given."""

import re

from uuid_utils import uuid7

PREFIX = "att_"
SEARCH_PREFIX = "search_"
JOB_ID = re.compile(PREFIX + "[0-9a-f]{32}")


def new_job_id() -> str:
    """A name for a new job: `att_` and 32 hex digits, later than every name this process gave before."""
    return PREFIX + uuid7().hex


def new_search_id() -> str:
    """A name for a new search that workers share: `search_` and 32 hex digits."""
    return SEARCH_PREFIX + uuid7().hex
