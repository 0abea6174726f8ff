"""What an index says of its approximate search: its files, what the manifest records, what answers have to say."""

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict

FOLDER = "approximate"
SAMPLE_NAME = f"{FOLDER}/sample.npy"
"""Rows of the works that stand for all, (n,) int64, ascending."""

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
