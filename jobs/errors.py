"""Refusals and failures of the job protocol, each with a sentence for the person who meets it."""

from das.errors import DasError


class JobsError(DasError):
    """Something about jobs, their storage or their queue."""


class QueueFull(JobsError):
    """No further job is taken until the workers have caught up. `limit` is the number that may wait."""

    def __init__(self, limit: int, *, of_owner: bool = False) -> None:
        whose = f"{limit} of your pictures" if of_owner else f"{limit} pictures"
        super().__init__(f"{whose} are already waiting; send this one again in a few minutes")
        self.limit = limit


class JobNotFound(JobsError):
    """There is no job with this id."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"there is no attribution {job_id!r}; it may have been removed")
        self.job_id = job_id


class BadCursor(JobsError):
    """A page was asked for with a cursor that this service didn't give out."""


class StorageError(JobsError):
    """The database or the blob store can't be written or read: a full disk, missing rights, no connection."""


class BrokerError(JobsError):
    """The embedded broker can't be started, or nobody says where the broker is."""


class KeyNotFound(JobsError):
    """There is no key with this id."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"there is no key {key_id[:40]!r}; `das keys list` names them all")


class KeyRefused(JobsError):
    """A key can't be made or exchanged as it was asked for."""
