"""Places that a URL names: a directory, or what fsspec reaches, such as `s3://bucket/das`."""

from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import fsspec

from das.errors import SettingsError
from jobs.masking import masked

# An S3 server that doesn't answer would by default hold a request's thread for minutes.
S3_PATIENCE = {
    "connect_timeout": 5,
    "read_timeout": 20,
    "retries": {"mode": "standard", "total_max_attempts": 2},
}
REMOTE_ADVICE = "see that the store can be reached, has this bucket and lets this key in"


def open_place(url: str, named: str) -> tuple[Any, str]:
    """The filesystem that a URL names, and the path in it, which doesn't end in a slash.

    Args:
        named: what the URL is called where it can't be used.

    Raises:
        SettingsError: the URL is none, has a key in it, or needs a package that isn't installed.
    """
    on_s3 = url.startswith(("s3://", "s3a://"))
    if on_s3 and "@" in urlsplit(url).netloc:
        raise SettingsError(
            f"{named} {masked(url)!r} can't be used: a key for S3 is given by AWS_ACCESS_KEY_ID and"
            " AWS_SECRET_ACCESS_KEY"
        )
    try:
        filesystem, root = fsspec.core.url_to_fs(url, **({"config_kwargs": S3_PATIENCE} if on_s3 else {}))
    except (ValueError, ImportError) as error:
        advice = "; the extra `s3` of das-attribution brings what is missing" if on_s3 else ""
        raise SettingsError(f"{named} {masked(url)!r} can't be used: {masked(str(error))}{advice}") from error
    return filesystem, str(root).rstrip("/")


def reason_of(error: Exception) -> str:
    """Why a filesystem failed. The clients of object stores have errors of their own, with nothing in common."""
    return masked(str(getattr(error, "strerror", None) or error))


def misses_bucket(error: FileNotFoundError) -> bool:
    """Whether S3 misses the whole bucket and not an object in it."""
    return "NoSuchBucket" in repr(error.__cause__)


def modified(filesystem: Any, entry: dict[str, Any]) -> datetime:
    """When a file of a listing was written last."""
    # In the listing of a directory it is `mtime`, in seconds; elsewhere asking anew is the common way.
    if "mtime" in entry:
        return datetime.fromtimestamp(float(entry["mtime"]), UTC)
    moment: datetime = entry.get("LastModified") or filesystem.modified(entry["name"])
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
