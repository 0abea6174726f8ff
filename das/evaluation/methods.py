"""Which estimators a study compares, and the scores of each over dense features (METHOD, sections 3 and 4)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from das.config import ACTIVATION, PAPER_PROBE, PRESETS, SIMILARITIES, FeatureType, KernelForm, Method
from das.estimators import (
    cosine_scores,
    das_block_scores,
    das_scores,
    dot_scores,
    relative_influence_scores,
    renormalised_influence_scores,
    residual_weights,
)
from das.evaluation.features import FeatureTable
from das.evaluation.spectrum import Spectrum

ECONOMICAL = PRESETS["economical"]
ECONOMICAL_TIMESTEPS: tuple[int, ...] = ECONOMICAL["timesteps"]
ECONOMICAL_DIMENSION: int = ECONOMICAL["dimension"]
FOUR = ("loss", "mean", "square", "random")
EVERY = (*FOUR, ACTIVATION)
"""All probes; they share one forward pass."""


@dataclass(frozen=True)
class Candidate:
    """One estimator with the choices that make a row of the comparison.

    Attributes:
        probes: their scores are added, each in units of its own mean.
        normalised: whether each timestep's gradient is normalised (Eq. 17).
        form: of the kernel.
        preset: "economical" takes its timesteps, dimension and bits from das.config; none takes the study's own.
    """

    method: Method
    probes: tuple[str, ...] = ()
    normalised: bool = False
    form: KernelForm = "mean"
    preset: str | None = None

    @property
    def label(self) -> str:
        """A name that is different for every row."""
        if self.method not in ("das", "das-block"):
            return self.method
        parts = [self.method, *(["+".join(self.probes)] if self.method == "das-block" else [])]
        if not self.normalised:
            parts.append("plain")
        return " ".join(parts + ([self.preset] if self.preset else []))

    @property
    def signed(self) -> bool:
        """Whether scores are linear in the inner products, not squared."""
        return self.method not in ("das", "das-block")

    @property
    def damped(self) -> bool:
        """Whether there is a kernel, and so a λ to choose."""
        return self.method not in SIMILARITIES and self.form != "none"


REFERENCE = Candidate("das", (PAPER_PROBE,), normalised=True)
"""The paper's DAS (Eq. 17 and 18), which the other rows are held against."""


def candidates(economical: bool) -> tuple[Candidate, ...]:
    """All rows of the comparison, weakest family first; the economical ones where they can be had."""
    das: tuple[str, ...] = (PAPER_PROBE,)
    loss: tuple[str, ...] = ("loss",)
    rows = [
        *(Candidate(name) for name in ("pixel-dot", "pixel-cosine", "clip-dot", "clip-cosine")),
        *(
            Candidate(name, loss, form="none")
            for name in ("gradient-dot", "gradient-cosine", "tracincp", "gas")
        ),
        *(Candidate(name, loss) for name in ("trak", "relative-influence", "renormalised-influence")),
        Candidate("journey-trak", loss),
        Candidate("d-trak", ("square",)),
        Candidate("das", das),
        REFERENCE,
        *(
            Candidate("das-block", probes, normalised=True, form="block")
            for probes in (
                (PAPER_PROBE,),
                ("random",),
                loss,
                (ACTIVATION,),
                ("loss", "random"),
                ("loss", ACTIVATION),
                ("loss", "random", ACTIVATION),
                FOUR,
            )
        ),
    ]
    if economical:
        rows += [
            Candidate("das", das, normalised=True, preset="economical"),
            *(
                Candidate("das-block", probes, normalised=True, form="block", preset="economical")
                for probes in (loss, (ACTIVATION,), ("loss", "random"), ("loss", ACTIVATION))
            ),
        ]
    return tuple(rows)


def similarity_scores(method: str, works: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Inner products or cosines (Q, N) of vectors (N, e) and (Q, e): pixels, or CLIP embeddings with their norms."""
    works, queries = works.astype(np.float64), queries.astype(np.float64)
    products = queries @ works.T
    if method.endswith("-dot"):
        return dot_scores(products, np.ones(len(works)))
    return cosine_scores(products, np.linalg.norm(queries, axis=1), np.linalg.norm(works, axis=1))


def plain_scores(method: str, spectra: list[Spectrum]) -> np.ndarray:
    """Gradient dot and cosine, TracInCP and GAS: means over checkpoints of (Q, N), without a kernel."""
    found = []
    for spectrum in spectra:
        products = (spectrum.queries @ spectrum.works.T).numpy()
        if method in ("gas", "gradient-cosine"):
            found.append(cosine_scores(products, spectrum.query_norms, spectrum.norms()))
        else:
            found.append(dot_scores(products, np.ones(len(spectrum.works))))
    return np.asarray(np.mean(found, axis=0))


def damped_scores(
    candidate: Candidate,
    spectra: list[Spectrum],
    works: FeatureTable,
    damping: Callable[[Spectrum], float],
    *,
    stored_as: FeatureType = "float32",
) -> np.ndarray:
    """Scores (Q, N) of a candidate with a kernel for each of its probes, at the relative λ that `damping` gives.

    Args:
        works: the works' own table, for the residuals of DAS.
        stored_as: round the stored features as an index does.
    """
    total = np.zeros((len(spectra[0].queries), len(spectra[0].works)))
    ones = np.ones(len(spectra[0].works))
    for spectrum in spectra:
        chosen = damping(spectrum)
        products = spectrum.products(chosen, stored_as)
        match candidate.method:
            case "das-block":
                scores = das_block_scores(products, ones)
            case "das":
                residuals = residual_weights(works.residual_rms.astype(np.float64), ones)
                scores = das_scores(products, spectrum.leverage(chosen), residuals, ones)
            case "relative-influence":
                scores = relative_influence_scores(products, spectrum.solved_norms(chosen))
            case "renormalised-influence":
                scores = renormalised_influence_scores(products, spectrum.norms())
            case _:
                scores = dot_scores(products, ones)
        total += scores / (spectrum.mean_square(chosen) if len(spectra) > 1 else 1.0)
    return total
