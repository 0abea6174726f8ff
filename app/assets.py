"""The page's own files, addressed by their content so that browsers may keep them for ever."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from starlette.requests import Request

DIRECTORY = Path(__file__).parent / "static"
MEDIA_TYPES = {
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
    ".txt": "text/plain",
}


@dataclass(frozen=True)
class StaticFile:
    path: Path
    media_type: str
    digest: str

    def caching(self, request: Request) -> str:
        """For ever for fonts, and where the address holds this content's digest; else for an hour."""
        if self.path.suffix == ".woff2" or request.query_params.get("v") == self.digest:
            return "public, max-age=31536000, immutable"
        return "public, max-age=3600"


def _read() -> dict[str, StaticFile]:
    files = {}
    for path in sorted(DIRECTORY.rglob("*")):
        if path.suffix in MEDIA_TYPES:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
            name = path.relative_to(DIRECTORY).as_posix()
            files[name] = StaticFile(path, MEDIA_TYPES[path.suffix], digest)
    return files


# The only files that can be asked for, by their names: no path is ever made from a request.
STATIC = _read()


def static_link(name: str) -> str:
    """The address of one of the page's files."""
    return f"/static/{quote(name)}?v={STATIC[name].digest}"
