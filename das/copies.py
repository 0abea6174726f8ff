"""Whether a picture is a copy of a work: another verdict than influence, and never mixed with it.

Every work is compared, whatever was screened, with the picture as it is and mirrored: by PDQ (das.pdq), and by SSCD
(das.sscd) where the index was built with its file. No torch in here.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import numpy as np

from das.index import AttributionIndex
from das.pdq import BITS, BYTES, distances, pdq

COPY_BITS = 31
"""PDQ calls hashes that differ in so many bits of 256 a match (decision 21 has what was met below)."""

NEAR_BITS = 60
"""Up to so many, the picture is a changed copy or much alike; of pictures from elsewhere none came below 72."""

LEAST_QUALITY = 50
"""Of pictures with less the hash says little: PDQ's own advice is to leave them out."""

SSCD_COPY = 0.75
"""SSCD's cosine of copies: a precision of 90 % on its authors' benchmark (Pizzi et al., CVPR 2022)."""

MATCHES_KEPT = 20
_CHUNK = 1024
"""SSCD embeddings that are compared at once: of 512 numbers, 2 MiB in single precision."""

COMPARED = (
    "That is told by comparing pictures, apart from influence; of the work itself the same would be told."
)
MAYBE_THE_WORK = (
    "It may be the work itself, as it is or re-encoded: likeness is no proof that the model made it."
)
WITHOUT_SSCD = (
    "Whether the picture is a copy of a work was told by PDQ alone, which misses cut and rotated ones: the SSCD model"
    " that the index was built with isn't there."
)
UNCLEAR = "Whether the picture is a copy of a work can't be told: it has too little structure to be compared."

Verdict = Literal["copy", "near", "none", "unclear"]
Method = Literal["pdq", "sscd"]


class Embedder(Protocol):
    """What `das.sscd.Sscd` does."""

    def embed(self, pixels: np.ndarray) -> np.ndarray:
        """The embedding (e,) float32, of unit norm, of a picture (H, W, 3) uint8."""
        ...


@dataclass(frozen=True)
class Match:
    """One work that the picture is a `copy` of, or `near` to.

    `score` is the part of equal bits for pdq, of which unrelated pictures have about one half; for sscd the cosine.
    `row` is where this index has the work now.
    """

    work_id: str
    row: int
    verdict: Literal["copy", "near"]
    score: float
    method: Method
    mirrored: bool


@dataclass(frozen=True)
class CopyVerdict:
    """What is found of a picture among all works.

    `verdict` is that of the best match; `none` where there is none; `unclear` where the picture has too little
    structure to be compared. `score` is the highest of all works, None where it is unclear.
    """

    verdict: Verdict
    score: float | None
    method: Method
    matches: tuple[Match, ...] = ()

    def as_result(self) -> dict[str, Any]:
        """As plain values; works by their ids."""
        kept = [
            {name: value for name, value in asdict(match).items() if name != "row"} for match in self.matches
        ]
        return {"verdict": self.verdict, "score": self.score, "method": self.method, "matches": kept}


class CopyFinder:
    """Looks pictures up among an index's works."""

    def __init__(self, index: AttributionIndex, embedder: Embedder | None = None) -> None:
        """`embedder` is the SSCD that made the index's embeddings; without it PDQ alone is asked."""
        self._index = index
        self._embedder = embedder

    def find(self, pixels: np.ndarray) -> CopyVerdict | None:
        """What the picture (H, W, 3) uint8 sRGB is a copy of; None where the index has no hashes."""
        hashes = self._index.hashes
        if hashes is None:
            return None
        straight, quality = pdq(pixels)
        if quality < LEAST_QUALITY:
            return CopyVerdict("unclear", None, "pdq")
        # The pixels are mirrored, not the hash by the signs of its waves: sampling isn't quite symmetric.
        mirrored, _ = pdq(pixels[:, ::-1])
        near, least = _near(hashes, np.stack([straight, mirrored]))
        found = {row: self._match(row, bits, flipped) for bits, row, flipped in near}
        method: Method = "pdq"
        best = _score(least)
        if self._embedder is not None and (embeddings := self._index.sscd_embeddings) is not None:
            method = "sscd"
            asked = [self._embedder.embed(np.ascontiguousarray(one)) for one in (pixels, pixels[:, ::-1])]
            copies, most = _alike(embeddings, np.stack(asked))
            best = round(most, 4)
            # What SSCD calls a copy is one, whatever PDQ says; what only PDQ finds stays.
            for cosine, row, flipped in copies:
                found[row] = Match(self._index.works.id_of(row), row, "copy", cosine, "sscd", flipped)
        # Scores of two kinds can't be compared: copies first, SSCD's before PDQ's, equal ones in the order of rows.
        matches = sorted(
            found.values(),
            key=lambda match: (match.verdict != "copy", match.method != "sscd", -match.score, match.row),
        )[:MATCHES_KEPT]
        if not matches:
            return CopyVerdict("none", best, method)
        return CopyVerdict(matches[0].verdict, matches[0].score, matches[0].method, tuple(matches))

    def _match(self, row: int, bits: int, mirrored: bool) -> Match:
        verdict: Literal["copy", "near"] = "copy" if bits <= COPY_BITS else "near"
        return Match(self._index.works.id_of(row), row, verdict, _score(bits), "pdq", mirrored)


def hash_row(pixels: np.ndarray) -> np.ndarray:
    """What an index keeps of a work: its hash and, as the last byte, the quality of that. (33,) uint8."""
    found, quality = pdq(pixels)
    return np.append(found, np.uint8(quality))


def copy_sentence(verdict: Verdict, called: str, *, mirrored: bool, in_model: str | None) -> str | None:
    """The verdict in words, apart from influence; None where there is nothing to say.

    Args:
        called: the work, such as “Title” by Creator.
        in_model: the verdict on the model having made the picture (`References.in_model`); None: not known.
    """
    mirror = ", mirrored" if mirrored else ""
    if verdict == "copy":
        beware = COMPARED if in_model == "likely" else MAYBE_THE_WORK
        return f"The picture itself is nearly the same as {called}{mirror}. {beware}"
    if verdict == "near":
        return (
            f"The picture itself is close to {called}{mirror}: a changed version of it, or one that is much alike."
            " Only looking at both can tell."
        )
    return UNCLEAR if verdict == "unclear" else None


def name_of(title: str | None, creator: str | None) -> str:
    """A work in a sentence."""
    by = f" by {creator}" if creator else ""
    return f"“{title}”{by}" if title else f"a work{by} without a title"


def summary_of(found: CopyVerdict, index: AttributionIndex, in_model: Mapping[str, Any] | None) -> str | None:
    """`copy_sentence` of what was found in an index."""
    name, mirrored = "", False
    if found.matches:
        row = index.works.row(found.matches[0].row)
        name, mirrored = name_of(row["title"], row["creator"]), found.matches[0].mirrored
    origin = None if in_model is None else str(in_model["verdict"])
    return copy_sentence(found.verdict, name, mirrored=mirrored, in_model=origin)


def _near(hashes: np.ndarray, asked: np.ndarray) -> tuple[list[tuple[int, int, bool]], int]:
    """The nearest of the stored hashes (N, 33) uint8, memory-mapped, to a picture's as it is and mirrored (2, 32):
    bits, row, and whether the mirrored one is nearer; and the fewest bits of all.

    Those that a verdict may name, of `NEAR_BITS` at most: more than `MATCHES_KEPT` are never told.
    """
    near: list[tuple[int, int, bool]] = []
    least = BITS
    for start, (straight, mirrored) in distances(hashes[:, :BYTES], asked):
        bits = np.minimum(straight, mirrored)
        least = min(least, int(bits.min()))
        places = np.flatnonzero(bits <= NEAR_BITS)
        best = places[np.argsort(bits[places], kind="stable")][:MATCHES_KEPT]
        near += [(int(bits[at]), start + int(at), bool(mirrored[at] < straight[at])) for at in best]
    return sorted(near)[:MATCHES_KEPT], least


def _alike(embeddings: np.ndarray, asked: np.ndarray) -> tuple[list[tuple[float, int, bool]], float]:
    """The same by embeddings (N, e) float16, memory-mapped, and (2, e) float32: cosines above `SSCD_COPY`, told in
    four digits, largest first; and the largest of all."""
    alike: list[tuple[float, int, bool]] = []
    most = -1.0
    for start in range(0, len(embeddings), _CHUNK):
        straight, mirrored = asked @ embeddings[start : start + _CHUNK].astype(np.float32).T
        cosines = np.maximum(straight, mirrored)
        most = max(most, float(cosines.max()))
        for at in np.flatnonzero(cosines > SSCD_COPY):
            alike.append((round(float(cosines[at]), 4), start + int(at), bool(mirrored[at] > straight[at])))
        alike = sorted(alike, key=lambda one: (-one[0], one[1]))[:MATCHES_KEPT]
    return alike, most


def _score(bits: int) -> float:
    """The part of equal bits."""
    return round(1 - bits / BITS, 4)
