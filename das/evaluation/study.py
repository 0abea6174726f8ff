"""A study: the scores of every candidate on one ground truth, and how good they are."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from das.config import ACTIVATION, FEATURE_BYTES, OF_CHECKPOINTS, SIMILARITIES, ClipSpec, FeatureType
from das.errors import SettingsError
from das.evaluation.features import FeatureTable, Progress, extract
from das.evaluation.lds import (
    SPLITS,
    Quality,
    assess,
    ceiling,
    difference_interval,
    percentiles,
    predictions,
    resampled,
)
from das.evaluation.methods import (
    ECONOMICAL,
    ECONOMICAL_DIMENSION,
    ECONOMICAL_TIMESTEPS,
    EVERY,
    REFERENCE,
    Candidate,
    candidates,
    damped_scores,
    plain_scores,
    similarity_scores,
)
from das.evaluation.spectrum import GRID, Spectrum
from das.evaluation.training import forget
from das.evaluation.truth import KINDS, GroundTruth
from das.gradients import FeatureConfig
from das.kernel import SummedForm, prepared
from das.models import DiffusionModel

HUNDRED = 100.0  # correlations are told times 100, as in the paper
_SCALE_BYTES = 4  # of the scale that each work has in eight bits


class Skipped(Exception):
    """A candidate can't be scored here; the reason is told in its row."""


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


@dataclass(frozen=True)
class Measured:
    """The figures of one candidate.

    Attributes:
        figures: of its row.
        draws: each query's score over the bootstrap's draws of subsets, (R, Q).
    """

    figures: dict[str, Any]
    draws: np.ndarray


@dataclass
class Study:
    """Scores and rows, with features and decompositions kept for those that share them."""

    truth: GroundTruth
    options: Options
    progress: Progress | None = None
    narrowed_to: tuple[tuple[int, ...], int] | None = None
    _tables: dict[Any, tuple[FeatureTable, FeatureTable]] = field(default_factory=dict)
    _spectra: dict[Any, Spectrum] = field(default_factory=dict)
    _references: dict[Any, "Measured"] = field(default_factory=dict)

    def stored_as(self, candidate: Candidate) -> FeatureType:
        """How an index stores the features of a candidate."""
        if candidate.preset == "economical":
            return cast(FeatureType, ECONOMICAL["feature_dtype"])
        return self.options.feature_dtype

    def candidates(self) -> tuple[Candidate, ...]:
        """Every row of the comparison that this study's timesteps and dimension have room for."""
        options = self.options
        economical = (ECONOMICAL_TIMESTEPS, ECONOMICAL_DIMENSION)
        fits = set(ECONOMICAL_TIMESTEPS) <= set(options.timesteps)
        fits = fits and options.dimension % ECONOMICAL_DIMENSION == 0
        return candidates(fits and (options.timesteps, options.dimension) != economical)

    def choices(self, candidate: Candidate) -> tuple[tuple[int, ...], int]:
        """Timesteps and dimension of a candidate."""
        if candidate.preset == "economical":
            return ECONOMICAL_TIMESTEPS, ECONOMICAL_DIMENSION
        return self.narrowed_to or (self.options.timesteps, self.options.dimension)

    def narrowed(self, timesteps: tuple[int, ...], dimension: int) -> "Study":
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
            works, queries = self.features((probe,) if checkpoint else EVERY, checkpoint)
            if journey:
                queries = self._journeys
            tensors = [
                prepared(
                    torch.from_numpy(np.array(table.at(timesteps).folded(dimension).by_probe[probe])),
                    normalise=normalised,
                )
                for table in (works, queries)
            ]
            self._spectra[key] = Spectrum.of(tensors[0], tensors[1], form, activation=probe == ACTIVATION)
        return self._spectra[key]

    def scores(self, candidate: Candidate, damping: float | None = None) -> np.ndarray:
        """Scores (Q, N) of a candidate at a relative λ; None: the default rule.

        Raises:
            Skipped: something that it needs was not given.
        """
        if candidate.method in SIMILARITIES:
            works, queries = (
                self.embeddings
                if candidate.method.startswith("clip")
                else (self.truth.works.reshape(len(self.truth.works), -1), self._flat_queries)
            )
            return similarity_scores(candidate.method, works, queries)
        spectra = self.spectra(candidate)
        if not candidate.damped:
            return plain_scores(candidate.method, spectra)
        table = self.features(EVERY)[0].at(self.choices(candidate)[0])
        return damped_scores(
            candidate,
            spectra,
            table,
            lambda spectrum: (
                spectrum.default_damping(signed=candidate.signed) if damping is None else damping
            ),
            stored_as=self.stored_as(candidate),
        )

    @property
    def _flat_queries(self) -> np.ndarray:
        return self.truth.queries.reshape(len(self.truth.queries), -1)

    def spectra(self, candidate: Candidate) -> list[Spectrum]:
        """The decomposed kernels that a candidate reads: one for each probe, or each checkpoint.

        Raises:
            Skipped: it needs checkpoints, and none was given.
        """
        timesteps, dimension = self.choices(candidate)
        form: SummedForm = "block" if candidate.form == "block" else "mean"
        checkpoints = [0]
        if candidate.method in OF_CHECKPOINTS:
            if not self.options.checkpoints:
                raise Skipped("no checkpoints were given")
            checkpoints += range(1, len(self.options.checkpoints) + 1)
        return [
            self.spectrum(
                probe,
                form,
                candidate.normalised,
                timesteps,
                dimension,
                checkpoint=checkpoint,
                journey=candidate.method == "journey-trak",
            )
            for probe in candidate.probes
            for checkpoint in checkpoints
        ]

    def rows(self, chosen: Sequence[Candidate]) -> list[dict[str, Any]]:
        """A row for each candidate, held against the paper's DAS where that is among them."""
        against = REFERENCE if REFERENCE in chosen else None
        return [self.row(candidate, against) for candidate in chosen]

    def row(self, candidate: Candidate, against: Candidate | None = None) -> dict[str, Any]:
        """What the comparison says of one candidate; correlations times 100, λ in units of tr(K)/N.

        Args:
            against: whose figures the row's differences are to; measured once for each choice.
        """
        row = {"label": candidate.label, **self._facts(candidate)}
        try:
            found = self._reference(candidate) if candidate == against else self._measure(candidate)
        except Skipped as reason:
            return {**row, "skipped": str(reason)}
        row |= found.figures
        for suffix, queries in self._groups():
            row |= dict.fromkeys(
                f"{name}{suffix}" for name in ("difference", "difference_low", "difference_high")
            )
            if against is not None and candidate != against:
                other = self._reference(against)
                low, high = difference_interval(found.draws[:, queries], other.draws[:, queries])
                row[f"difference{suffix}"] = row[f"lds{suffix}"] - other.figures[f"lds{suffix}"]
                row[f"difference_low{suffix}"] = HUNDRED * low
                row[f"difference_high{suffix}"] = HUNDRED * high
        return row

    def _groups(self) -> list[tuple[str, np.ndarray]]:
        """Groups of queries by the ending of their figures: all, and each kind where there are both."""
        kinds = [kind for kind in KINDS if len(self.truth.queries_of(kind))]
        groups = [("", np.arange(len(self.truth.queries)))]
        if len(kinds) > 1:
            groups += [(f"_{kind}", self.truth.queries_of(kind)) for kind in kinds]
        return groups

    def _reference(self, candidate: Candidate) -> Measured:
        key = (candidate, self.choices(candidate))
        if key not in self._references:
            self._references[key] = self._measure(candidate)
        return self._references[key]

    def _measure(self, candidate: Candidate) -> Measured:
        default = predictions(self.scores(candidate), self.truth.members)
        grid = GRID if candidate.damped else (None,)
        curve = np.stack(
            [predictions(self.scores(candidate, damping), self.truth.members) for damping in grid]
        )
        figures: dict[str, Any] = {}
        if candidate.damped:
            used = [spectrum.default_damping(signed=candidate.signed) for spectrum in self.spectra(candidate)]
            figures["damping"] = float(np.exp(np.mean(np.log(used))))
        draws = resampled(default, self.truth.mean_losses(), seed=self.options.seed)
        for suffix, queries in self._groups():
            found = self._figures(queries, curve, default, draws, candidate)
            figures |= {f"{name}{suffix}": value for name, value in found.items()}
        return Measured(figures, draws)

    def _figures(
        self,
        chosen: np.ndarray,
        curve: np.ndarray,
        default: np.ndarray,
        draws: np.ndarray,
        candidate: Candidate,
    ) -> dict[str, Any]:
        losses = self.truth.mean_losses()[:, chosen]
        quality: Quality = assess(
            curve[:, chosen], default[chosen], losses, splits=self.options.splits, seed=self.options.seed
        )
        low, high = percentiles(draws[:, chosen])
        top = ceiling(self.truth.losses[:, :, chosen])
        found: dict[str, Any] = {
            "lds": HUNDRED * quality.lds,
            "low": HUNDRED * low,
            "high": HUNDRED * high,
            "oracle_lds": HUNDRED * quality.oracle,
            "chosen_lds": HUNDRED * quality.chosen,
            "ceiling": None if top is None else HUNDRED * top,
            "perfect": None if top is None else HUNDRED * max(top, 0.0) ** 0.5,
        }
        if candidate.damped:
            found["regret"] = HUNDRED * (quality.oracle - quality.lds)
            found["oracle_damping"] = GRID[quality.oracle_option]
            found["curve"] = [
                [damping, HUNDRED * float(y)] for damping, y in zip(GRID, quality.curve, strict=True)
            ]
        return found

    def _bytes_per_set(self, candidate: Candidate, dimension: int) -> int:
        stored_as = self.stored_as(candidate)
        return dimension * FEATURE_BYTES[stored_as] + (_SCALE_BYTES if stored_as == "int8" else 0)

    def _facts(self, candidate: Candidate) -> dict[str, Any]:
        options = self.options
        timesteps, dimension = self.choices(candidate)
        facts: dict[str, Any] = {
            "method": candidate.method,
            "damping": None,
            "timesteps": list(timesteps),
            "probes": list(candidate.probes),
            "normalised": candidate.normalised,
            "kernel": candidate.form,
            "preset": candidate.preset,
            "dimension": dimension,
        }
        if candidate.method in SIMILARITIES:
            width = int(np.prod(self.truth.works.shape[1:]))
            if candidate.method.startswith("clip"):
                width = 0 if options.clip is None else self.embeddings[0].shape[1]
            return facts | {
                "timesteps": [],
                "kernel": "none",
                "dimension": width,
                "forward_passes": 0,
                "backward_passes": 0,
                "bytes_per_work": width * FEATURE_BYTES[options.feature_dtype],
            }
        models = len(options.checkpoints) + 1 if candidate.method in OF_CHECKPOINTS else 1
        sets = len(candidate.probes) * models
        passes = len(timesteps) * options.draws
        return facts | {
            # Of the diffusion model for one picture; all probes share them.
            "forward_passes": passes * models,
            "backward_passes": passes * models * sum(probe != ACTIVATION for probe in candidate.probes),
            "bytes_per_work": self._bytes_per_set(candidate, dimension) * sets,
        }


def clip_embeddings(spec: ClipSpec, pictures: Sequence[np.ndarray], device: str = "cpu") -> list[np.ndarray]:
    """Embeddings with their own norms, (n, e) each, of sets of pictures (n, C, H, W) in [-1, 1]."""
    from das.screening import Embedder

    embedder = Embedder.load(spec, device)
    found = []
    for images in pictures:
        vectors, norms = embedder.embed_with_norms(as_pixels(images))
        found.append(vectors * norms[:, None])
    return found


def as_pixels(images: np.ndarray) -> list[np.ndarray]:
    """Pictures (n, C, H, W) in [-1, 1] as (H, W, 3) uint8 each."""
    bytes_ = np.rint((np.clip(images, -1, 1) + 1) * 127.5).astype(np.uint8).transpose(0, 2, 3, 1)
    return [np.repeat(picture, 3 // picture.shape[2], axis=2) for picture in bytes_]
