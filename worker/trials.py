"""Which index a child was loading, as the next child learns where this one died of it."""

import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager

# A system that is out of memory kills the process, and nobody says why; once may have been somebody's hand.
MOST_DEATHS = 2
_NOTE = struct.Struct("?q256s")


class Trials:
    """Made in the parent, in a page that it shares with its children, one after the other."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, _NOTE.size)

    @contextmanager
    def of(self, index_id: str) -> Iterator[None]:
        """While this index is loaded. One that a child died of stays noted until it was loaded or is left out."""
        _, deaths, noted = self._read()
        if noted not in ("", index_id):
            yield
            return
        self._write(True, deaths, index_id)
        try:
            yield
        finally:
            self._write(False, 0, "")

    def left_out(self) -> str | None:
        """In a new child: the index that it is to leave out, because others before it died of loading it."""
        loading, deaths, noted = self._read()
        if not loading:
            return None
        if deaths + 1 < MOST_DEATHS:
            self._write(False, deaths + 1, noted)
            return None
        self._write(False, 0, "")
        return noted

    def _read(self) -> tuple[bool, int, str]:
        loading, deaths, noted = _NOTE.unpack_from(self._page)
        return loading, deaths, noted.rstrip(b"\0").decode()

    def _write(self, loading: bool, deaths: int, noted: str) -> None:
        _NOTE.pack_into(self._page, 0, loading, deaths, noted.encode())
