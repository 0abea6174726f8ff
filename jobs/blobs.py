"""Where the normalised uploads lie: a directory, or anything fsspec reaches by URL, such as `s3://bucket/das`.

Only pixels we have re-encoded ourselves are kept here, one PNG a job, under the job's id; and, until they are read,
the pictures of batches as they were sent.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from das.durable import is_partial, write_bytes
from das.errors import SettingsError
from jobs.errors import StorageError
from jobs.remote import REMOTE_ADVICE, misses_bucket, modified, open_place, reason_of
from jobs.settings import Settings, writable_directory

SUFFIX = ".png"
# Pictures of batches as they were sent, until they are read.
UPLOAD = ".upload"
# For the service's own eyes only.
PRIVATE = 0o600


class BlobStore:
    """Put, read and delete images by job id.

    A directory is written atomically: a reader sees the whole file or none, also when the writer is killed or
    the disk fills up on the way. Object stores give that by themselves.
    """

    def __init__(self, settings: Settings) -> None:
        self._filesystem, self._root = open_place(settings.resolved_blob_url, "DAS_BLOB_URL")
        self._is_directory = isinstance(self._filesystem, LocalFileSystem)
        if self._is_directory:
            writable_directory(Path(self._root), "DAS_BLOB_URL")

    def check(self) -> None:
        """See that an object store answers, has the bucket and lets us in. A directory was looked at when made.

        Raises:
            SettingsError: it doesn't.
        """
        if self._is_directory:
            return
        try:
            self._listed()
        except StorageError as error:
            raise SettingsError(f"DAS_BLOB_URL can't be used: {error}") from error

    def put(self, job_id: str, data: bytes, suffix: str = SUFFIX) -> None:
        """Keep `data` as the image of `job_id`.

        Raises:
            StorageError: it can't be written whole; nothing of it is left then.
        """
        path = self._path(job_id, suffix)
        with self._explained(
            f"the picture can't be kept in {self._root}", "make room there or mend its rights"
        ):
            if self._is_directory:
                write_bytes(Path(path), data, mode=PRIVATE)
            else:
                self._filesystem.pipe_file(path, data)

    def get(self, job_id: str, suffix: str = SUFFIX) -> bytes:
        """The image of `job_id`.

        Raises:
            StorageError: it isn't there or can't be read.
        """
        path = self._path(job_id, suffix)
        with self._explained(f"the picture of {job_id} can't be read from {self._root}", "mend its rights"):
            try:
                data: bytes = self._filesystem.cat_file(path)
            except FileNotFoundError as error:
                raise StorageError(f"the picture of {job_id} is no longer in {self._root}") from error
        return data

    def delete(self, job_id: str, suffix: str = SUFFIX) -> None:
        """Remove the image of `job_id`; it may be gone already.

        Raises:
            StorageError: it is there and can't be removed.
        """
        path = self._path(job_id, suffix)
        with self._explained(
            f"the picture of {job_id} can't be removed from {self._root}", "mend its rights"
        ):
            try:
                self._filesystem.rm_file(path)
            except FileNotFoundError as error:
                if misses_bucket(error):
                    raise

    def settled_ids(self, older_than: timedelta, suffix: str = SUFFIX) -> list[str]:
        """Job ids of the images written longer than `older_than` ago; clears half-written files that old.

        Raises:
            StorageError: they can't be listed.
        """
        before = datetime.now(UTC) - older_than
        ids: list[str] = []
        for entry in self._listed():
            name = str(entry["name"]).rsplit("/", 1)[-1]
            if modified(self._filesystem, entry) >= before:
                continue
            if name.endswith(suffix):
                ids.append(name.removesuffix(suffix))
            elif is_partial(name):
                self._filesystem.rm_file(entry["name"])
        return ids

    def size(self, most: int) -> tuple[int, int, bool] | None:
        """How many files there are and how many bytes they have together, and whether that is all of them.

        None for an object store, whose listing costs money and has no end.

        Args:
            most: files that are looked at.

        Raises:
            StorageError: they can't be listed.
        """
        if not self._is_directory:
            return None
        files = size = 0
        with (
            self._explained(f"the pictures in {self._root} can't be listed", "mend its rights"),
            os.scandir(self._root) as entries,
        ):
            for entry in entries:
                if files == most:
                    return files, size, False
                # It may be removed meanwhile.
                with suppress(FileNotFoundError):
                    size += entry.stat(follow_symlinks=False).st_size
                    files += 1
        return files, size, True

    def _listed(self) -> list[dict[str, Any]]:
        with self._explained(f"the pictures in {self._root} can't be listed", "mend its rights"):
            self._filesystem.invalidate_cache()
            try:
                entries = self._filesystem.ls(self._root, detail=True)
            except FileNotFoundError as error:
                if self._is_directory or misses_bucket(error):
                    raise
                # Without a picture an object store has no such directory.
                return []
        return [entry for entry in entries if entry["type"] == "file"]

    @contextmanager
    def _explained(self, failed: str, advice: str) -> Iterator[None]:
        try:
            yield
        except StorageError:
            raise
        except Exception as error:
            # The clients of object stores have errors of their own, which have no more in common than this.
            if self._is_directory and not isinstance(error, OSError):
                raise
            raise StorageError(
                f"{failed} ({reason_of(error)}): {advice if self._is_directory else REMOTE_ADVICE}"
            ) from error

    def _path(self, job_id: str, suffix: str) -> str:
        if "/" in job_id or job_id.startswith("."):
            raise ValueError(f"{job_id!r} isn't a job id")
        return f"{self._root}/{job_id}{suffix}"
