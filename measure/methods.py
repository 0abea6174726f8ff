"""Which estimators a study compares, and the scores of each over dense features (METHOD, sections 3 and 4)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from das import registry
from das.config import PRESETS, FeatureType
from das.estimators import residual_weights
from das.methods import ACTIVATION, PAPER_PROBE, PROBES, KernelForm, Method, Quantity
from measure.features import FeatureTable
from measure.spectrum import Spectrum

ECONOMICAL = PRESETS["economical"]
ECONOMICAL_TIMESTEPS: tuple[int, ...] = ECONOMICAL["timesteps"]
ECONOMICAL_DIMENSION: int = ECONOMICAL["dimension"]
GRADIENT_PROBES = tuple(probe for probe in PROBES if probe != ACTIVATION)
ALL_PROBES = PROBES
"""All probes of das itself; they share one forward pass."""


@dataclass(frozen=True)
class Variant:
    """One estimator with the choices that make a row of the comparison.

    Attributes:
        probes: their scores are added, each in units of its own mean.
        normalised: whether each timestep's gradient is normalised (Eq. 17).
        preset: "economical" takes its timesteps, dimension and bits from das.config; none takes the study's own.
    """

    method: str
    probes: tuple[str, ...] = ()
    normalised: bool = False
    preset: str | None = None

    @property
    def estimator(self) -> Method:
        """The record of the method."""
        return registry.method(self.method)

    @property
    def form(self) -> KernelForm:
        """Of the kernel."""
        return self.estimator.form

    @property
    def label(self) -> str:
        """A name that is different for every row: with whatever of the variant a build may choose."""
        if self.estimator.normalised is not None:
            return self.method
        parts = [self.method, *(["+".join(self.probes)] if self.estimator.probes is None else [])]
        if not self.normalised:
            parts.append("plain")
        return " ".join(parts + ([self.preset] if self.preset else []))

    @property
    def signed(self) -> bool:
        """Whether scores are linear in the inner products, not squared."""
        return not self.estimator.squared

    @property
    def damped(self) -> bool:
        """Whether there is a kernel, and so a λ to choose."""
        return self.form != "none"


REFERENCE = Variant("das", (PAPER_PROBE,), normalised=True)
"""The paper's DAS (Eq. 17 and 18), which the other rows are held against."""


def variants(economical: bool) -> tuple[Variant, ...]:
    """All rows of the comparison, weakest family first; the economical ones where they can be had."""
    das: tuple[str, ...] = (PAPER_PROBE,)
    loss: tuple[str, ...] = ("loss",)
    rows = [
        *(Variant(name) for name in ("pixel-dot", "pixel-cosine", "clip-dot", "clip-cosine")),
        *(Variant(name, loss) for name in ("gradient-dot", "gradient-cosine", "tracincp", "gas")),
        *(Variant(name, loss) for name in ("trak", "relative-influence", "renormalised-influence")),
        Variant("journey-trak", loss),
        Variant("d-trak", ("square",)),
        Variant("das", das),
        REFERENCE,
        *(
            Variant("das-block", probes, normalised=True)
            for probes in (
                (PAPER_PROBE,),
                ("random",),
                loss,
                (ACTIVATION,),
                ("loss", "random"),
                ("loss", ACTIVATION),
                ("loss", "random", ACTIVATION),
                GRADIENT_PROBES,
            )
        ),
    ]
    if economical:
        rows += [
            Variant("das", das, normalised=True, preset="economical"),
            *(
                Variant("das-block", probes, normalised=True, preset="economical")
                for probes in (loss, (ACTIVATION,), ("loss", "random"), ("loss", ACTIVATION))
            ),
        ]
    return tuple(rows)


def similarity_scores(method: Method, works: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Scores (Q, N) of vectors (N, e) and (Q, e): pixels, or CLIP embeddings with their norms."""
    works, queries = works.astype(np.float64), queries.astype(np.float64)
    norms: dict[Quantity, np.ndarray] = {
        "query_norms": np.linalg.norm(queries, axis=1),
        "norms": np.linalg.norm(works, axis=1),
    }
    return method.scores(queries @ works.T, norms)


def plain_scores(method: Method, spectra: list[Spectrum], repeats: np.ndarray) -> np.ndarray:
    """Scores (Q, N) without a kernel, of works with `repeats` (N,): means over checkpoints."""
    found = []
    for spectrum in spectra:
        quantities: dict[Quantity, np.ndarray] = {
            "repeats": repeats,
            "query_norms": spectrum.query_norms,
            "norms": spectrum.norms(),
        }
        found.append(method.scores((spectrum.queries @ spectrum.works.T).numpy(), quantities))
    return np.asarray(np.mean(found, axis=0))


def damped_scores(
    variant: Variant,
    spectra: list[Spectrum],
    works: FeatureTable,
    damping: Callable[[Spectrum], float],
    *,
    repeats: np.ndarray,
    stored_as: FeatureType = "float32",
) -> np.ndarray:
    """Scores (Q, N) of a variant with a kernel for each of its probes, at the relative λ that `damping` gives.

    Args:
        works: the works' own table, for the residuals of DAS.
        repeats: (N,), how often an epoch shows each work.
        stored_as: round the stored features as an index does.
    """
    total = np.zeros((len(spectra[0].queries), len(spectra[0].works)))
    for spectrum in spectra:
        chosen = damping(spectrum)
        quantities = {
            need: _quantity(need, spectrum, chosen, works, repeats) for need in variant.estimator.needs
        }
        scores = variant.estimator.scores(spectrum.products(chosen, stored_as), quantities)
        total += scores / (spectrum.mean_square(chosen) if len(spectra) > 1 else 1.0)
    return total


def _quantity(
    name: Quantity, spectrum: Spectrum, damping: float, works: FeatureTable, repeats: np.ndarray
) -> np.ndarray:
    """What an estimator asks for besides products; no two works of a ground truth are the same."""
    match name:
        case "repeats" | "content_repeats":
            return repeats
        case "residuals":
            return residual_weights(works.residual_rms.astype(np.float64), repeats)
        case "leverage":
            return spectrum.leverage(damping)
        case "solved_norms":
            return spectrum.solved_norms(damping)
        case "norms":
            return spectrum.norms()
        case "query_norms":
            return spectrum.query_norms
