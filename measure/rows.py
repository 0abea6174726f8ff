"""The rows of a comparison: what a variant is and takes, how good it is, how it differs from the paper's form."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from das.config import FEATURE_BYTES
from das.methods import ACTIVATION
from measure.methods import REFERENCE, Variant
from measure.scores import Skipped, Study
from measure.statistics import Measured, differences, measured, no_differences
from measure.truth import GroundTruth

_SCALE_BYTES = 4  # of the scale that each work has in eight bits


@dataclass(frozen=True)
class Comparison:
    """Rows of one study, each held against one variant, which is measured once.

    Attributes:
        against: whose figures the rows' differences are to; None leaves them out.
    """

    study: Study[GroundTruth]
    against: Variant | None = None

    def row(self, variant: Variant) -> dict[str, Any]:
        """What the comparison says of one variant; correlations times 100, λ in units of tr(K)/N."""
        row = {"label": variant.label, **facts(self.study, variant)}
        truth = self.study.truth
        try:
            found = self._reference if variant == self.against else measured(self.study, variant)
        except Skipped as reason:
            return {**row, "skipped": str(reason)}
        row |= found.figures | no_differences(truth)
        if self.against is not None and variant != self.against:
            row |= differences(truth, found, self._reference)
        return row

    @cached_property
    def _reference(self) -> Measured:
        assert self.against is not None
        return measured(self.study, self.against)


def comparison_rows(study: Study[GroundTruth], chosen: Sequence[Variant]) -> list[dict[str, Any]]:
    """A row for each variant, held against the paper's DAS where that is among them."""
    comparison = Comparison(study, REFERENCE if REFERENCE in chosen else None)
    return [comparison.row(variant) for variant in chosen]


def facts(study: Study[GroundTruth], variant: Variant) -> dict[str, Any]:
    """What a variant is made of, and what it takes: passes for one picture, bytes for one work."""
    options = study.options
    timesteps, dimension = study.choices(variant)
    found: dict[str, Any] = {
        "method": variant.method,
        "damping": None,
        "timesteps": list(timesteps),
        "probes": list(variant.probes),
        "normalised": variant.normalised,
        "kernel": variant.form,
        "preset": variant.preset,
        "dimension": dimension,
    }
    if variant.estimator.compares:
        width = _width(study, variant)
        return found | {
            "timesteps": [],
            "kernel": "none",
            "dimension": width,
            "forward_passes": 0,
            "backward_passes": 0,
            "bytes_per_work": width * FEATURE_BYTES[options.feature_dtype],
        }
    models = len(options.checkpoints) + 1 if variant.estimator.of_checkpoints else 1
    passes = len(timesteps) * options.draws * models
    stored_as = study.stored_as(variant)
    bytes_per_set = dimension * FEATURE_BYTES[stored_as] + (_SCALE_BYTES if stored_as == "int8" else 0)
    return found | {
        # Of the diffusion model for one picture; all probes share them.
        "forward_passes": passes,
        "backward_passes": passes * sum(probe != ACTIVATION for probe in variant.probes),
        "bytes_per_work": bytes_per_set * len(variant.probes) * models,
    }


def _width(study: Study[GroundTruth], variant: Variant) -> int:
    """Numbers in the vector that a method of likeness compares; 0 for CLIP where none was given."""
    if variant.estimator.compares != "clip":
        return int(np.prod(study.truth.works.shape[1:]))
    return 0 if study.options.clip is None else study.embeddings[0].shape[1]
