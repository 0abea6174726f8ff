"""Where the service is and which key is shown to it, from arguments or the environment."""

import os
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from das_client.errors import UsageError

DEFAULT = "http://127.0.0.1:8000"
URL, KEY = "DAS_URL", "DAS_API_KEY"
PRINTABLE = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True)
class Address:
    """The service's address, without a slash at its end, and the key; None without one."""

    url: str
    key: str | None

    def __repr__(self) -> str:
        return f"Address({self.url!r}, key={'…' if self.key else None})"

    @classmethod
    def of(cls, url: str | None, key: str | None) -> "Address":
        """From arguments, and from DAS_URL and DAS_API_KEY where they are None; raises `UsageError`."""
        given = url or os.environ.get(URL) or DEFAULT
        shown = key if key is not None else os.environ.get(KEY)
        if shown is not None:
            shown = shown.strip() or None
        if shown is not None and not PRINTABLE.fullmatch(shown):
            raise UsageError("the key has characters in it that no key has: give it as it was shown, das_…")
        return cls(_checked(given.strip()), shown)


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        bad = parts.scheme not in ("http", "https") or not parts.hostname
        _ = parts.port
    except ValueError:
        bad = True
    if bad or not PRINTABLE.fullmatch(url):
        raise UsageError(f"{url!r} is no address of a service: give one such as https://das.example.org")
    if parts.username is not None or parts.query or parts.fragment:
        raise UsageError("the service's address may have a path, and no name, password, query or fragment")
    return url.rstrip("/")
