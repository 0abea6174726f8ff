"""Captions in text files beside pictures: which file, which of its lines, within which bounds."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from das.errors import WorksError
from das.folder import open_file

MAX_CAPTION_BYTES = 1 << 20
SIDECARS = (".txt", ".caption")
"""Endings of caption files, the first one wins. sd-scripts' own default is `.caption`, its GUI's `.txt`."""


@dataclass(frozen=True)
class Caption:
    """A caption file's words.

    Attributes:
        first: its first line, which sd-scripts reads; may be empty.
        lines: all its lines that aren't empty, of which OneTrainer draws one each time.
        whole: all of it, which ai-toolkit reads.
    """

    first: str
    lines: tuple[str, ...]
    whole: str


def read_caption(path: Path) -> Caption:
    """Read a caption file; raises WorksError where it isn't text of a size that a person would write."""
    try:
        with open_file(path) as stream:
            data = stream.read(MAX_CAPTION_BYTES + 1)
    except OSError as error:
        raise WorksError(f"the caption {path} can't be read: {error.strerror}.") from error
    if len(data) > MAX_CAPTION_BYTES:
        raise WorksError(f"the caption {path} has more than {MAX_CAPTION_BYTES:,} bytes; is it a caption?")
    try:
        whole = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise WorksError(
            f"the caption {path} isn't UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8."
        ) from error
    lines = [line.strip() for line in whole.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    return Caption(lines[0], tuple(line for line in lines if line), whole.strip())


def beside(name: str, ending: str) -> str:
    """The name of the caption file of a picture: the same with another ending."""
    return PurePosixPath(name).with_suffix("").as_posix() + ending
