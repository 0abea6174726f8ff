"""Batches, by a client that waits. Made by client/generate.py of async_batches.py; don't edit."""

import os
import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Unpack

from pydantic import TypeAdapter

from das_client import models as m
from das_client.call import BatchPicture, Call, line_of, path, with_archive, with_pictures
from das_client.errors import NotFinished, ProblemError, ServiceUnreachable, UsageError
from das_client.reading import HELD_S, Reading
from das_client.retries import RETRIED_STATUSES

WHERE = "/v1/attribution-batches"
NOT_MODIFIED = 304


class Batches(Reading):
    """Batches: up to 100 pictures, each with an answer of its own."""

    def create_batch(
        self,
        pictures: Iterable[BatchPicture] = (),
        *,
        archive: str | os.PathLike[str] | bytes | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[m.AskOptions],
    ) -> m.Batch:
        """Ask about many pictures at once; comes back when they were received.

        Args:
            pictures: up to 100, each as in `ask`, or a pair of one and what is asked of it unlike of the others.
            archive: in their place a zip of them: its path or its bytes.
            idempotency_key: a name for this batch; sent again under it within a day, it is the same batch.
            options: what is asked of all of them.
        """
        some = list(pictures)
        if bool(some) == (archive is not None):
            raise UsageError("give pictures or an archive of them, one of the two")
        sent = with_pictures(some, options) if archive is None else with_archive(archive, options)
        headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        return self._read(m.Batch, Call("POST", WHERE, headers=headers, **sent))

    def batch(self, batch_id: str, *, wait: float | None = None) -> m.Batch:
        """A batch with its pictures. `wait`: held back for so many seconds, 30 at most, until all have ended."""
        call = Call("GET", path(WHERE, batch_id), {"wait": wait or None}, held_s=wait or 0.0)
        return self._read(m.Batch, call)

    def batches(
        self, *, client_tag: str | None = None, created_after: datetime | None = None
    ) -> Iterator[m.BatchSummary]:
        """Your batches in short, the newest first."""
        query = {"client_tag": client_tag, "created_after": created_after}
        for page in self._pages(m.BatchList, WHERE, query):
            yield from page.items

    def follow_batch(self, batch_id: str) -> Iterator[m.Batch]:
        """A batch as it is, and again whenever something of it has changed, until all of its pictures have ended."""
        tag: str | None = None
        while True:
            headers: dict[str, str] = {} if tag is None else {"If-None-Match": tag}
            held = 0.0 if tag is None else HELD_S
            call = Call("GET", path(WHERE, batch_id), {"wait": held or None}, headers, held_s=held)
            response = self._send(call)
            if response.status_code != NOT_MODIFIED:
                tag = response.headers.get("etag")
                found = line_of(TypeAdapter(m.Batch), response.text, WHERE)
                yield found
                if found.state != "open":
                    return
            # Where the service holds nothing back, it isn't asked in a circle.
            time.sleep(0.1)

    def wait_for_batch(self, batch_id: str, wait: float = 3600.0) -> m.Batch:
        """A batch once all of its pictures have ended, after `wait` seconds at most; raises `NotFinished`."""
        began = time.monotonic()
        while True:
            left = wait - (time.monotonic() - began)
            found = self.batch(batch_id, wait=max(0.0, min(left, HELD_S)))
            if found.state != "open":
                return found
            if left <= 0:
                raise NotFinished(batch_id, wait)
            time.sleep(0.1)

    def batch_results(self, batch_id: str, *, after: int = 0) -> Iterator[m.BatchResult]:
        """What became of each picture, in their order, with whole answers: those that have ended, and the others as
        they stand. After a broken connection it goes on behind the last that came.

        Args:
            after: begin behind the picture of this position, the last that you have.
        """
        failures, began, last = 0, time.monotonic(), after
        while True:
            where = path(WHERE, batch_id) + "/results.jsonl"
            call = Call("GET", where, {"after": last or None}, {"Accept": "application/jsonl"})
            error: ServiceUnreachable | ProblemError
            try:
                with self._open(call) as response:
                    for line in response.iter_lines():
                        result = line_of(TypeAdapter(m.BatchResult), line, where)
                        failures, began, last = 0, time.monotonic(), result.position
                        yield result
                return
            except ServiceUnreachable as broken:
                error = broken
            except ProblemError as refused:
                if refused.status not in RETRIED_STATUSES:
                    raise
                error = refused
            asked = error.retry_after_s if isinstance(error, ProblemError) else None
            failures += asked is None
            pause = self._retries.pause(failures, time.monotonic() - began, asked)
            if pause is None:
                raise error
            time.sleep(pause)

    def cancel_batch(self, batch_id: str) -> m.Batch:
        """Stop what is open of a batch; what has ended stays."""
        return self._read(m.Batch, Call("POST", path(WHERE, batch_id) + "/cancel"))

    def erase_batch(self, batch_id: str) -> None:
        """Erase a batch with its pictures and all of its questions."""
        self._send(Call("DELETE", path(WHERE, batch_id)))
