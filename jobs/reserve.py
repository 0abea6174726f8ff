"""Room that is kept for erasing.

A full disk can refuse what it is asked to keep, but not what it is asked to forget: erasing overwrites rows, which
SQLite first writes into its log, and for that a disk without room has none. So a file beside the database holds some,
is given up when erasing needs it, and is made again once the disk has room.
"""

import logging
import os
from pathlib import Path

from das.durable import write_bytes
from jobs.errors import StorageError

log = logging.getLogger(__name__)

NAME = "reserve"
# The log takes each page of an answer that is overwritten: a thousand works and ten thousand candidates are 1 MB.
RESERVE_BYTES = 4 << 20
PRIVATE = 0o600
# What SQLite says where a disk is full, or one's part of it.
NO_ROOM = ("disk is full", "disk I/O error")


class Reserve:
    """The file that holds the room in `folder`; several processes may use it."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME

    def keep(self) -> None:
        """Hold the room, if it isn't held and the disk has it."""
        if self._path.exists():
            return
        try:
            # Noise, since some filesystems keep zeros without taking room for them.
            write_bytes(self._path, os.urandom(RESERVE_BYTES), mode=PRIVATE)
        except OSError as error:
            log.warning(
                "no room can be kept for erasing in %s: %s", self._path.parent, error.strerror or error
            )

    def give_up(self) -> bool:
        """Let the room go; False if none is held."""
        try:
            self._path.unlink()
        except OSError:
            return False
        log.warning("the disk of %s is full: what was kept there for erasing is used", self._path.parent)
        return True


def lacks_room(error: StorageError) -> bool:
    """Whether the database may have failed for want of room."""
    return any(sign in str(error) for sign in NO_ROOM)
