"""Where the normalised uploads lie: a directory, or anything fsspec reaches by URL, such as `s3://bucket/das`.

Only pixels we have re-encoded ourselves are ever put here, one PNG a job, under the job's id.
"""

import os
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from das.errors import SettingsError
from jobs.errors import StorageError
from jobs.settings import Settings, writable_directory

SUFFIX = ".png"
# A dot keeps half-written files out of `names`.
UNFINISHED = ".unfinished-"


class BlobStore:
    """Put, read and delete images by job id.

    A directory is written atomically: a reader sees the whole file or none, also when the writer is killed or
    the disk fills up on the way. Object stores give that by themselves.
    """

    def __init__(self, settings: Settings) -> None:
        url = settings.resolved_blob_url
        try:
            filesystem, root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise SettingsError(f"DAS_BLOB_URL {url!r} can't be used: {error}") from error
        self._filesystem: Any = filesystem
        self._root = str(root).rstrip("/")
        self._is_directory = isinstance(filesystem, LocalFileSystem)
        if self._is_directory:
            writable_directory(Path(self._root), "DAS_BLOB_URL")

    def put(self, job_id: str, data: bytes) -> None:
        """Keep `data` as the image of `job_id`.

        Raises:
            StorageError: it can't be written whole; nothing of it is left then.
        """
        path = self._path(job_id)
        try:
            if self._is_directory:
                _write_atomically(Path(path), data)
            else:
                self._filesystem.pipe_file(path, data)
        except OSError as error:
            raise StorageError(
                f"the picture can't be kept in {self._root} ({error.strerror or error}):"
                " make room there or mend its rights"
            ) from error

    def get(self, job_id: str) -> bytes:
        """The image of `job_id`.

        Raises:
            StorageError: it isn't there or can't be read.
        """
        path = self._path(job_id)
        try:
            data: bytes = self._filesystem.cat_file(path)
        except FileNotFoundError as error:
            raise StorageError(f"the picture of {job_id} is no longer in {self._root}") from error
        except OSError as error:
            raise StorageError(f"the picture of {job_id} can't be read: {error.strerror or error}") from error
        return data

    def delete(self, job_id: str) -> None:
        """Remove the image of `job_id`; it may be gone already.

        Raises:
            StorageError: it is there and can't be removed.
        """
        try:
            self._filesystem.rm_file(self._path(job_id))
        except FileNotFoundError:
            return
        except OSError as error:
            raise StorageError(
                f"the picture of {job_id} can't be removed from {self._root}: {error.strerror or error}"
            ) from error

    def settled_ids(self, older_than: timedelta) -> list[str]:
        """Job ids of the images written longer than `older_than` ago; clears half-written files that old."""
        before = datetime.now(UTC) - older_than
        self._filesystem.invalidate_cache()
        ids: list[str] = []
        for entry in self._filesystem.ls(self._root, detail=True):
            name = str(entry["name"]).rsplit("/", 1)[-1]
            if self._modified(entry) >= before:
                continue
            if name.endswith(SUFFIX):
                ids.append(name.removesuffix(SUFFIX))
            elif name.startswith(UNFINISHED):
                self._filesystem.rm_file(entry["name"])
        return ids

    def _modified(self, entry: dict[str, Any]) -> datetime:
        # In the listing of a directory it is `mtime`, in seconds; elsewhere asking anew is the common way.
        if "mtime" in entry:
            return datetime.fromtimestamp(float(entry["mtime"]), UTC)
        moment = entry.get("LastModified") or self._filesystem.modified(entry["name"])
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)

    def _path(self, job_id: str) -> str:
        if "/" in job_id or job_id.startswith("."):
            raise ValueError(f"{job_id!r} isn't a job id")
        return f"{self._root}/{job_id}{SUFFIX}"


def _write_atomically(path: Path, data: bytes) -> None:
    unfinished = path.with_name(f"{UNFINISHED}{secrets.token_hex(8)}")
    try:
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
