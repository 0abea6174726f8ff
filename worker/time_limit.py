"""Whether an error is the time limit of a batch."""

from celery.exceptions import SoftTimeLimitExceeded


def out_of_time(error: BaseException | None) -> bool:
    """Whether the time limit is behind an error, also where a library or ours made another of it."""
    while error is not None and not isinstance(error, SoftTimeLimitExceeded):
        error = error.__cause__ or error.__context__
    return error is not None
