"""What an index says of its approximate search: its files, what the manifest records, what answers have to say."""

import math
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

from das.config import FEATURE_BYTES

if TYPE_CHECKING:
    from das.manifest import Manifest

FOLDER = "approximate"
SAMPLE_NAME = f"{FOLDER}/sample.npy"
"""Rows of the works that stand for all, (n,) int64, ascending."""

ALL_UP_TO_FEATURE_BYTES = 512 * 2**20
"""A service answers a question that doesn't say otherwise about all works where that reads no more features.

One product over all works reads every stored feature once: half a gigabyte is 0.2 to 0.5 s of memory bandwidth on two
cores, below what a real model's gradients of one picture cost. Up to there, screening would save less than it costs:
CLIP misses works that had influence and don't look alike, and the shares would be shares of a selection. In works:
65,536 at 4096 dimensions in float16.
"""

STILL_SCREENED = (
    "The features of its sample are {size:,.0f} MB, more than {most:,.0f}: a question that leaves `candidates` at"
    " `auto` is still screened by CLIP, and one that says `all` is searched. With --sample {sample} both would be."
)

TOP_WORKS = 20
"""So many of the works that rank highest are looked for when a search is measured."""

FEWEST_WORKS = 1_000
"""Of fewer there is nothing to be won."""

Asked = Literal["given", "references", "held-out", "works"]
ASKED: dict[Asked, str] = {
    "given": "pictures that were given for it",
    "references": "pictures that the model made",
    "held-out": "pictures that the model was not trained on",
    "works": "its own works' thumbnails, of which each finds at least itself",
}
"""What a search was measured with."""

APPROXIMATE = (
    "Works were found by an approximate search, which when it was measured found {found} of the 20 that rank highest"
    " on average; shares of creators and rights holders, and percentiles, are estimated from a sample of {count}"
    " works."
)


class ApproximateRecord(BaseModel):
    """How an index finds works without scoring all of them, and how many of the highest it found."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    """The estimator that is asked so; others score every work."""
    parent: str
    """Id of the index that this was made for, which is the same but for this."""
    bytes: int
    """Of the search, for each work and feature set."""
    depth: int
    """Candidates of each sign and feature set, which are then scored exactly."""
    sample: int
    """Works that stand for all where shares of groups are estimated."""
    seed: int
    recall: float
    """The part of the 20 works that rank highest that is among the candidates, mean over the pictures asked about."""
    queries: int
    """How many pictures that were."""
    asked: Asked
    """Which."""

    @property
    def found(self) -> str:
        """How many of the 20 that is, never rounded up."""
        return f"{math.floor(self.recall * TOP_WORKS * 10 + 1e-6) / 10:.1f}"

    @property
    def caveat(self) -> str:
        """What every answer by it has to say."""
        return APPROXIMATE.format(found=self.found, count=f"{self.sample:,}")

    def describe(self) -> str:
        """In one line."""
        return (
            f"approximate by {self.method}: {self.bytes:,} bytes a work and feature set, {self.depth:,} candidates of"
            f" each sign; finds {self.found} of the {TOP_WORKS} works that rank highest, on average over"
            f" {self.queries:,} of {ASKED[self.asked]}; groups from a sample of {self.sample:,}"
        )


def search_name(features: str) -> str:
    """The FAISS index of a feature set, relative to the index."""
    return f"{FOLDER}/{features}/search.faiss"


def sum_name(features: str) -> str:
    """`Σ_i c_i w_i w_iᵀ` (k, k) float64 of a feature set, relative to the index."""
    return f"{FOLDER}/{features}/sum.npy"


def read_bytes(manifest: "Manifest", method: str) -> int:
    """Bytes of features that a question by `method` about all works reads: of the sample's, where it is searched."""
    record = manifest.approximate
    searched = record is not None and record.method == method
    return (record.sample if record is not None and searched else manifest.works.count) * _work_bytes(
        manifest
    )


def still_screened(manifest: "Manifest") -> str | None:
    """In a sentence, that a service screens most questions in spite of the search; None where it doesn't."""
    record = manifest.approximate
    if record is None or manifest.screening is None:
        return None
    size = read_bytes(manifest, record.method)
    if size <= ALL_UP_TO_FEATURE_BYTES:
        return None
    fitting = ALL_UP_TO_FEATURE_BYTES // _work_bytes(manifest)
    return STILL_SCREENED.format(size=size / 2**20, most=ALL_UP_TO_FEATURE_BYTES / 2**20, sample=fitting)


def _work_bytes(manifest: "Manifest") -> int:
    features = manifest.features
    return features.dimension * FEATURE_BYTES[features.dtype] * len(features.sets)
