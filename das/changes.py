"""What came and went since an index was built: what its manifest says of that, and what answers have to.

An index never changes. Adding or removing works makes a new one, a *version*, whose manifest lists every change since
the build. A version doesn't name the works that it leaves out: it keeps the digest of each id (`REMOVED_NAME`), by
which whoever knows a work's id, or has its file, can see that it went.
"""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from das.errors import IndexFormatError

REMOVED_NAME = "removed.txt"
"""One sha256 in hex a line, sorted, of the id of each work that was removed and is in no longer."""

STALE_BEYOND = 0.1
"""When so large a part of the works came or went since the build, what was measured of shares isn't kept any more."""

COARSE_BEYOND = 0.02
"""A rounding error of a feature's size from which answers say so."""

ROUNDING = {"int8": 1 / 127, "float16": 2.0**-11, "float32": 2.0**-24}
"""About how far a stored number may be off, in units of the largest of its work's."""

REMOVED = (
    "Works that the model was trained on are left out of this index ({count}): what the picture owes to them isn't"
    " told, and shares are of the other works alone."
)
STALE = (
    "Intervals of shares, and how usual a first share is, were measured before works of this index came or went"
    " ({count} of {before})."
)
COARSE = (
    "Since works came or went, the rounding of this index's features counts {growth} times: works of nearly equal"
    " scores may change places."
)

Kind = Literal["added", "removed"]


class ChangeRecord(BaseModel):
    """How a version was made of another one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    parent: str
    """Id of the index that it was made of."""
    at: str
    works: int
    """How many came or went."""
    before: int
    """How many the parent had."""
    source: str | None = None
    """Absolute path that added works were read from; what was removed isn't named."""
    format: str | None = None
    """The convention that it was read by."""


def keeps_shares(changes: Sequence[ChangeRecord]) -> bool:
    """Whether what the build measured of shares still says something."""
    return not changes or sum(change.works for change in changes) <= STALE_BEYOND * changes[0].before


def caveats_of(
    changes: Sequence[ChangeRecord], removed: int, *, measured: bool, dtype: str, growth: float
) -> list[str]:
    """What answers of a version have to say.

    Args:
        removed: works that it leaves out.
        measured: whether the index was built with references, so that there is something about shares to be stale.
        dtype: of the stored features.
        growth: by how much more than at the build their rounding counts.
    """
    said = []
    if removed:
        said.append(REMOVED.format(count=removed))
    if changes and measured and keeps_shares(changes):
        came_or_went = sum(change.works for change in changes)
        said.append(STALE.format(count=came_or_went, before=changes[0].before))
    if is_coarse(dtype, growth):
        said.append(COARSE.format(growth=f"{growth:.2g}"))
    return said


def is_coarse(dtype: str, growth: float) -> bool:
    """Whether rounding counts for so much that answers say so; an index's own, without a change, never does."""
    return growth > 1.5 and growth * ROUNDING[dtype] > COARSE_BEYOND


def digest_of_id(work_id: str) -> str:
    """What a version keeps of a work that is gone."""
    return hashlib.sha256(work_id.encode()).hexdigest()


def read_removed(directory: Path) -> frozenset[str]:
    """Digests of the ids of the works that a version leaves out; none of an index from which none was removed.

    Raises:
        IndexFormatError: the file can't be read.
    """
    path = directory / REMOVED_NAME
    try:
        return frozenset(path.read_text(encoding="ascii").split())
    except FileNotFoundError:
        return frozenset()
    except (OSError, ValueError) as error:
        raise IndexFormatError(f"{path} can't be read: {error}") from error


def removed_bytes(digests: Iterable[str]) -> bytes:
    """The file of digests."""
    return "".join(f"{digest}\n" for digest in sorted(digests)).encode()
