"""The estimators: one record for each, read by config, builder, attribution, evaluation, answers and help.

To add one, write how it scores in `das.estimators` and its record here, or bring both from outside the package
(docs/extending.md). No torch in here.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

from das.errors import ExtensionError
from das.estimators import (
    cosine_scores,
    das_block_scores,
    das_scores,
    dot_scores,
    product_scores,
    relative_influence_scores,
    renormalised_influence_scores,
)

KernelForm = Literal["block", "mean", "none"]
"""How a kernel is summed (das.kernel); "none" is the identity: plain inner products."""

Quantity = Literal[
    "query_norms", "repeats", "content_repeats", "residuals", "leverage", "norms", "solved_norms"
]
"""What a score may ask for besides the inner products, by the name of its parameter:

- `query_norms` (B,): `‖φ‖` of each query;
- `repeats` (N,): `w_i`, how often the model was trained on a work;
- `content_repeats` (N,): `W_i`, how often on its content, all works with the same bytes and prompt together;
- `residuals` (N,): `r_i`, see `das.estimators.residual_weights`;
- `leverage` (N,): `h_i = φ_iᵀH⁻¹φ_i`, of methods with a kernel; T times that where the kernel sums T features of a
  work (the form "block");
- `norms` (N,): `‖φ_i‖`;
- `solved_norms` (N,): `‖H⁻¹φ_i‖`, of methods with a kernel; an index keeps it for those that ask.
"""

ACTIVATION = "activation"
"""The probe that reads the network's hidden states and takes no backward pass (das.activations)."""

PROBES = ("loss", "mean", "square", "random", ACTIVATION)
"""The probes that das brings itself (das.probes)."""

PAPER_PROBE = "mean"
"""The paper's DAS scalarises the output to its mean (METHOD section 1: `v = 1/d`)."""

NAME_PATTERN = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
"""Names of estimators and probes: they become parts of file names and of the answer's record."""

_OF_KERNELS: frozenset[Quantity] = frozenset({"leverage", "solved_norms"})
_OF_PICTURES: frozenset[Quantity] = frozenset({"query_norms", "norms"})


@dataclass(frozen=True)
class Method:
    """One estimator.

    Attributes:
        name: as it is asked for.
        formula: its score in one line, for help and docs.
        score: from inner products (B, N) to scores (B, N), larger for more influence. Besides `products` it takes
            quantities of `Quantity`, those that its parameters name.
        form: of the kernel between query and work.
        probes: whose features it reads; None: those of the build's `probes`. The scores of several are added,
            each in units of its kernel's mean square.
        normalised: whether each timestep's feature is normalised (Eq. 17); None: as the build's `normalise` says.
        squared: whether scores are squares of the inner products, not linear in them; the damping depends on it.
        of_checkpoints: whether it is a mean over checkpoints of the training.
        along_trajectory: whether the query's feature is taken along its own sampling trajectory.
        compares: what a likeness compares instead of gradients: CLIP embeddings, or pixels (latents for latent
            models). It measures no influence and reads no features.
    """

    name: str
    formula: str
    score: Callable[..., np.ndarray]
    form: KernelForm = "mean"
    probes: tuple[str, ...] | None = ("loss",)
    normalised: bool | None = False
    squared: bool = False
    of_checkpoints: bool = False
    along_trajectory: bool = False
    compares: Literal["clip", "pixels"] | None = None
    needs: tuple[Quantity, ...] = field(init=False)
    """The quantities that `score` asks for."""

    def __post_init__(self) -> None:
        first, *needs = inspect.signature(self.score).parameters
        object.__setattr__(self, "needs", tuple(needs))
        if wrong := self._fault(first):
            raise ExtensionError(f"The method {self.name!r} {wrong}.")

    def _fault(self, first: str) -> str | None:
        """What of the record doesn't go together; None where all does."""
        several = self.probes is None or len(self.probes) > 1
        needs, known = set(self.needs), get_args(Quantity)
        if not NAME_PATTERN.fullmatch(self.name):
            return "must be named with up to 40 small letters, digits and hyphens"
        if first != "products" or needs - set(known):
            taken = ", ".join([first, *self.needs])
            return f"has a score of ({taken}); it takes products, then any of {', '.join(known)}"
        if self.compares and needs - _OF_PICTURES:
            return f"compares pictures, which have {' and '.join(sorted(_OF_PICTURES))} only"
        if self.form == "none" and needs & _OF_KERNELS:
            return f"has no kernel, and so no {' or '.join(sorted(needs & _OF_KERNELS))}"
        if self.probes == ():
            return "names no probe"
        if several and not (self.squared and self.form != "none"):
            return "adds the scores of several probes, which takes squared scores and a kernel"
        return None

    def scores(self, products: np.ndarray, quantities: Mapping[Quantity, np.ndarray]) -> np.ndarray:
        """The scores (B, N) of products (B, N), from at least the quantities that it `needs`."""
        found = self.score(products, **{need: quantities[need] for need in self.needs})
        if found.shape != products.shape:
            raise ExtensionError(
                f"The method {self.name!r} made scores of shape {found.shape} from products of {products.shape};"
                " it has to give one score for each."
            )
        return found


METHODS: tuple[Method, ...] = (
    Method(
        "das-block",
        "`w_i^⅗ Σ_probes (f̄ᵀ H⁻¹ f̄_i)² / (1 - w_i h_i)`, each probe in units of its own mean;"
        " `K = Σ_i w_i Σ_t f_{i,t} f_{i,t}ᵀ`, `h_i = T f̄_iᵀ H⁻¹ f̄_i`",
        das_block_scores,
        form="block",
        probes=None,
        normalised=None,
        squared=True,
    ),
    Method(
        "das",
        "`( φᵀ H⁻¹ φ_i · r_i / (1 - w_i h_i) )²`; `K = Σ_i w_i f̄_i f̄_iᵀ`",
        das_scores,
        probes=(PAPER_PROBE,),
        normalised=None,
        squared=True,
    ),
    Method("trak", "`w_i φᵀ H⁻¹ φ_i`", dot_scores),
    Method("d-trak", "`w_i φᵀ H⁻¹ φ_i`", dot_scores, probes=("square",)),
    Method(
        "journey-trak",
        "TRAK with the query's feature taken along its own sampling trajectory: at each timestep the clean prediction"
        " `x̂_0`, noised again",
        dot_scores,
        along_trajectory=True,
    ),
    Method("relative-influence", "`φᵀ H⁻¹ φ_i / ‖H⁻¹ φ_i‖`", relative_influence_scores),
    Method("renormalised-influence", "`φᵀ H⁻¹ φ_i / ‖φ_i‖`", renormalised_influence_scores),
    Method(
        "tracincp",
        "mean over checkpoints of `w_i φ_cᵀ φ_{i,c}` (`--checkpoint DIR`, repeatable)",
        dot_scores,
        form="none",
        of_checkpoints=True,
    ),
    Method("gas", "mean over checkpoints of the cosine", cosine_scores, form="none", of_checkpoints=True),
    Method("gradient-dot", "`w_i φᵀ φ_i`", dot_scores, form="none"),
    Method("gradient-cosine", "the cosine of `φ` and `φ_i`", cosine_scores, form="none"),
    Method("clip-dot", "the inner product of CLIP embeddings", product_scores, form="none", compares="clip"),
    Method("clip-cosine", "the cosine of CLIP embeddings", cosine_scores, form="none", compares="clip"),
    Method(
        "pixel-dot",
        "the inner product of pixels in [-1, 1], or latents",
        product_scores,
        form="none",
        compares="pixels",
    ),
    Method(
        "pixel-cosine",
        "the cosine of pixels in [-1, 1], or latents",
        cosine_scores,
        form="none",
        compares="pixels",
    ),
)
"""Every estimator that das brings itself (METHOD sections 3 and 4), the default first."""

SEEDED = " and ".join(method.name for method in METHODS if method.along_trajectory)
"""Which of them the seed of a generation has a say in, in words."""
