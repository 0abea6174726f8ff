"""The scores of every variant of the estimators on one ground truth, from features that they share."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import numpy as np
import torch

from das.config import FEATURE_BYTES, ClipSpec, FeatureType
from das.errors import SettingsError
from das.gradients import FeatureConfig
from das.kernel import SummedForm, prepared
from das.methods import ACTIVATION
from das.models import DiffusionModel
from measure.features import FeatureTable, Progress, extract
from measure.lds import SPLITS
from measure.methods import (
    ALL_PROBES,
    ECONOMICAL,
    ECONOMICAL_DIMENSION,
    ECONOMICAL_TIMESTEPS,
    Variant,
    damped_scores,
    plain_scores,
    similarity_scores,
    variants,
)
from measure.pictures import clip_embeddings
from measure.spectrum import Spectrum
from measure.training import forget
from measure.truth import Subject


class Skipped(Exception):
    """A variant can't be scored here; the reason is told in its row."""


@dataclass(frozen=True)
class Options:
    """What a study computes with.

    Attributes:
        timesteps, dimension, draws, seed: of the features.
        checkpoints: earlier snapshots of the model, for TracInCP and GAS; the model itself counts too.
        clip: the CLIP model of clip-dot and clip-cosine; None skips them.
        feature_dtype: how an index would store the features; rounding is simulated.
        untrained: take the features from the network as it was before its training, as a control.
        cache: where features are kept between runs.
    """

    timesteps: tuple[int, ...]
    dimension: int
    draws: int = 1
    seed: int = 0
    checkpoints: tuple[Path, ...] = ()
    clip: ClipSpec | None = None
    feature_dtype: FeatureType = "float16"
    untrained: bool = False
    cache: Path | None = None
    batch_size: int = 64
    device: str = "cpu"
    splits: int = SPLITS

    def __post_init__(self) -> None:
        if self.feature_dtype not in FEATURE_BYTES:
            raise SettingsError(
                f"The feature type is {self.feature_dtype!r}; there are {', '.join(FEATURE_BYTES)}."
            )


AnyTruth = TypeVar("AnyTruth", bound=Subject)


@dataclass
class Study(Generic[AnyTruth]):
    """Scores, with features and decompositions kept for those that share them."""

    truth: AnyTruth
    options: Options
    progress: Progress | None = None
    narrowed_to: tuple[tuple[int, ...], int] | None = None
    _tables: dict[Any, tuple[FeatureTable, FeatureTable]] = field(default_factory=dict)
    _spectra: dict[Any, Spectrum] = field(default_factory=dict)

    def stored_as(self, variant: Variant) -> FeatureType:
        """How an index stores the features of a variant."""
        if variant.preset == "economical":
            return cast(FeatureType, ECONOMICAL["feature_dtype"])
        return self.options.feature_dtype

    def variants(self) -> tuple[Variant, ...]:
        """Every row of the comparison that this study's timesteps and dimension have room for."""
        options = self.options
        economical = (ECONOMICAL_TIMESTEPS, ECONOMICAL_DIMENSION)
        fits = set(ECONOMICAL_TIMESTEPS) <= set(options.timesteps)
        fits = fits and options.dimension % ECONOMICAL_DIMENSION == 0
        return variants(fits and (options.timesteps, options.dimension) != economical)

    def choices(self, variant: Variant) -> tuple[tuple[int, ...], int]:
        """Timesteps and dimension of a variant."""
        if variant.preset == "economical":
            return ECONOMICAL_TIMESTEPS, ECONOMICAL_DIMENSION
        return self.narrowed_to or (self.options.timesteps, self.options.dimension)

    def narrowed(self, timesteps: tuple[int, ...], dimension: int) -> "Study[AnyTruth]":
        """The same study with some of the timesteps and a smaller sketch, from the same features."""
        return dataclasses.replace(self, narrowed_to=(timesteps, dimension))

    def features(self, probes: Sequence[str], checkpoint: int = 0) -> tuple[FeatureTable, FeatureTable]:
        """Tables of the works and of the queries, under the model or its c-th checkpoint (1, 2, …)."""
        key = (tuple(probes), checkpoint)
        if key not in self._tables:
            earlier = self.options.checkpoints[checkpoint - 1] if checkpoint else None
            model = self._model(earlier)
            self._tables[key] = (
                self._extract(model, self.truth.works, tuple(probes)),
                self._extract(model, self.truth.queries, tuple(probes)),
            )
        return self._tables[key]

    def _model(self, checkpoint: Path | None = None) -> DiffusionModel:
        model = self.truth.model(checkpoint, device=self.options.device)
        if self.options.untrained:
            forget(model.network, self.options.seed)
        return model

    @cached_property
    def _journeys(self) -> FeatureTable:
        model = self._model()
        return self._extract(model, self.truth.queries, ("loss",), journey=True)

    def _extract(
        self, model: Any, images: np.ndarray, probes: tuple[str, ...], journey: bool = False
    ) -> FeatureTable:
        options = self.options
        config = FeatureConfig(options.dimension, probes, options.timesteps, options.draws, options.seed)
        return extract(
            model,
            images,
            config,
            cache=options.cache,
            batch_size=options.batch_size,
            journey=journey,
            progress=self.progress,
        )

    @cached_property
    def embeddings(self) -> tuple[np.ndarray, np.ndarray]:
        """CLIP embeddings of the works (N, e) and the queries (Q, e), with their norms.

        Raises:
            Skipped: no CLIP was given.
        """
        if self.options.clip is None:
            raise Skipped("no CLIP model was given")
        works, queries = clip_embeddings(
            self.options.clip, [self.truth.works, self.truth.queries], self.options.device
        )
        return works, queries

    def spectrum(
        self,
        probe: str,
        form: SummedForm,
        normalised: bool,
        timesteps: tuple[int, ...],
        dimension: int,
        *,
        checkpoint: int = 0,
        journey: bool = False,
    ) -> Spectrum:
        """The decomposed kernel of one probe's features."""
        key = (probe, form, normalised, timesteps, dimension, checkpoint, journey)
        if key not in self._spectra:
            # All probes share one forward pass; checkpoints are asked for the loss alone.
            works, queries = self.features((probe,) if checkpoint else ALL_PROBES, checkpoint)
            if journey:
                queries = self._journeys
            tensors = [
                prepared(
                    torch.from_numpy(np.array(table.at(timesteps).folded(dimension).by_probe[probe])),
                    normalise=normalised,
                )
                for table in (works, queries)
            ]
            self._spectra[key] = Spectrum.of(
                tensors[0],
                tensors[1],
                form,
                repeats=self.truth.repeats,
                activation=probe == ACTIVATION,
            )
        return self._spectra[key]

    def scores(self, variant: Variant, damping: float | None = None) -> np.ndarray:
        """Scores (Q, N) of a variant at a relative λ; None: the default rule.

        Raises:
            Skipped: something that it needs was not given.
        """
        if variant.estimator.compares:
            works, queries = (
                self.embeddings
                if variant.estimator.compares == "clip"
                else (self.truth.works.reshape(len(self.truth.works), -1), self._flat_queries)
            )
            return similarity_scores(variant.estimator, works, queries)
        spectra = self.spectra(variant)
        if not variant.damped:
            return plain_scores(variant.estimator, spectra, self.truth.repeats)
        table = self.features(ALL_PROBES)[0].at(self.choices(variant)[0])
        return damped_scores(
            variant,
            spectra,
            table,
            lambda spectrum: spectrum.default_damping(signed=variant.signed) if damping is None else damping,
            repeats=self.truth.repeats,
            stored_as=self.stored_as(variant),
        )

    @property
    def _flat_queries(self) -> np.ndarray:
        return self.truth.queries.reshape(len(self.truth.queries), -1)

    def spectra(self, variant: Variant) -> list[Spectrum]:
        """The decomposed kernels that a variant reads: one for each probe, or each checkpoint.

        Raises:
            Skipped: it needs checkpoints, and none was given.
        """
        timesteps, dimension = self.choices(variant)
        form: SummedForm = "block" if variant.form == "block" else "mean"
        checkpoints = [0]
        if variant.estimator.of_checkpoints:
            if not self.options.checkpoints:
                raise Skipped("no checkpoints were given")
            checkpoints += range(1, len(self.options.checkpoints) + 1)
        return [
            self.spectrum(
                probe,
                form,
                variant.normalised,
                timesteps,
                dimension,
                checkpoint=checkpoint,
                journey=variant.estimator.along_trajectory,
            )
            for probe in variant.probes
            for checkpoint in checkpoints
        ]
