"""Refusals and failures of the job protocol, each with a sentence for the person who meets it."""

from das.errors import DasError
from das.plurals import counted


class JobsError(DasError):
    """Something about jobs, their storage or their queue."""


class QueueFull(JobsError):
    """No further job is taken until the workers have caught up. `limit` is the number that may wait.

    `ahead` is how many are to be answered until all of these are: an owner's take turns with those of others.
    """

    def __init__(self, limit: int, *, ahead: int | None = None, of_owner: bool = False) -> None:
        whose = f"{limit} of your pictures" if of_owner else counted(limit, "picture")
        are, done = ("is", "it is") if limit == 1 else ("are", "some of them are")
        super().__init__(f"{whose} {are} already waiting; send this one again when {done} done")
        self.limit = limit
        self.ahead = limit if ahead is None else ahead


class JobNotFound(JobsError):
    """There is no job with this id."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"there is no attribution {job_id!r}; it may have been removed")
        self.job_id = job_id


class KeyReused(JobsError):
    """An Idempotency-Key came with another request than before."""

    def __init__(self) -> None:
        super().__init__(
            "this Idempotency-Key was used for another request: send the same one again, or a new key with a new one"
        )


class RequestForgotten(JobsError):
    """Of what an Idempotency-Key made a part was erased, and with it what was kept to tell its request by."""

    def __init__(self) -> None:
        super().__init__(
            "something of what was made for this Idempotency-Key was erased, so that it isn't known any more what was"
            " asked: look at what was made, or send a new key",
        )


class RequestInFlight(JobsError):
    """A request of the same Idempotency-Key is being worked on. `retry_seconds` is when to send it again."""

    def __init__(self, retry_seconds: int) -> None:
        super().__init__("a request with this Idempotency-Key is being worked on; send it again in a moment")
        self.retry_seconds = retry_seconds


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
    """A key can't be made or exchanged as it was asked for. `field` is what of it can't be, where that is one thing,
    and `reason` a short name for why."""

    def __init__(self, message: str, field: str = "", reason: str = "") -> None:
        super().__init__(message)
        self.field, self.reason = field, reason
