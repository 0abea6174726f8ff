"""From a generated image to the training works that it owes most to: index, engine and estimators in one place.

index = AttributionIndex.open("index/")
result = Attributor(index).attribute("picture.png", top_k=20)
"""

import time
from collections.abc import Callable, Sequence
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image

from das.answer import SUMMARISED, Attribution, CandidateSet, RankedWork, share_by_creator, summarise
from das.errors import ModelError, SettingsError
from das.estimators import das_block_scores, das_scores
from das.gradients import FeatureConfig, FeatureExtractor
from das.images import normalise
from das.index import AttributionIndex
from das.kernel import averaged
from das.manifest import KernelRecord
from das.models import DiffusionModel, load_model
from das.scoring import KernelScorer

Candidates = Literal["all"] | Sequence[int] | np.ndarray | None
Progress = Callable[[str, int, int], None]
ImageLike = np.ndarray | Image.Image | bytes | Path | str

_MILLISECONDS = 1000.0


class Attributor:
    """Answers queries against one index. Keeps the model, the kernels and, if small, the features in memory."""

    def __init__(
        self,
        index: AttributionIndex,
        model: DiffusionModel | Path | str | None = None,
        device: str = "cpu",
        threads: int | None = None,
    ) -> None:
        """Load the model of `index` and check that it is the one the index was built with.

        Args:
            model: another place to load it from, or the loaded model; None: the place in the manifest.
            threads: threads of torch in this process; None: as they are.

        Raises:
            ModelError: the model can't be loaded, or its weights aren't those of the index.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        self.index = index
        self.device = device
        if model is None or isinstance(model, str | Path):
            self.model = load_model(str(model or index.model_source), device=device)
        else:
            self.model = model
        found, recorded = self.model.identity["digest"], index.manifest.model.digest
        if found != recorded:
            raise ModelError(
                f"{model or index.model_source} isn't the model that {index.id} was built with: the digest of its"
                f" weights is {found[:12]}, the index has {recorded[:12]}. Name the right one, or build an index"
                " for this one."
            )
        self._extractors: dict[tuple[str, ...], FeatureExtractor] = {}
        self._scorers: dict[tuple[str, str], KernelScorer] = {}

    def attribute(
        self,
        image: ImageLike,
        top_k: int = 20,
        candidates: Candidates = None,
        method: str | None = None,
        progress: Progress | None = None,
    ) -> Attribution:
        """Attribute one image: pixels (H, W, 3) uint8 sRGB, a PIL image, an encoded file or its path.

        Args:
            top_k: how many works to name, best first.
            candidates: rows of the works to score; None or "all" for every work.
            method: an estimator the index holds; None for its first.
            progress: told `("gradients", done, total)` and `("scored", 1, 1)`.

        Raises:
            SettingsError: the index doesn't answer `method`, or the candidates are no rows of it.
            ImageRefused: the file isn't a picture we accept.
        """
        rows = None if candidates is None or isinstance(candidates, str) else np.asarray(candidates)
        if isinstance(candidates, str) and candidates != "all":
            raise SettingsError(f"candidates is {candidates!r}; give 'all' or rows of the index.")
        return self.attribute_batch(
            [_pixels(image)], candidates=[rows], method=method, top_k=top_k, progress=progress
        )[0]

    def attribute_batch(
        self,
        images: Sequence[np.ndarray],
        *,
        candidates: Sequence[np.ndarray | None] | None = None,
        method: str | None = None,
        top_k: int | Sequence[int] = 20,
        progress: Progress | None = None,
    ) -> list[Attribution]:
        """Attribute several images, each (H, W, 3) uint8 sRGB, in shared backward passes.

        `candidates` has rows for each image, None in it for every work; `top_k` is one number or one for each.
        Otherwise like `attribute`.
        """
        method = self._checked_method(method)
        wanted = [top_k] * len(images) if isinstance(top_k, int) else list(top_k)
        chosen = [self._checked_rows(rows) for rows in candidates or [None] * len(images)]
        if min(wanted, default=1) < 1:
            raise SettingsError(f"top_k is {min(wanted)}; ask for at least one work.")
        if not len(images) == len(wanted) == len(chosen):
            raise SettingsError("give one top_k and one set of candidates for each image.")
        if not images:
            return []

        began = time.perf_counter()
        averages = self.averaged_features(images, method, progress)
        gradients_ms = (time.perf_counter() - began) * _MILLISECONDS
        began = time.perf_counter()
        scores = self._scores(averages, method, chosen)
        scoring_ms = (time.perf_counter() - began) * _MILLISECONDS
        if progress is not None:
            progress("scored", 1, 1)
        timings = {"gradients": round(gradients_ms, 3), "scoring": round(scoring_ms, 3)}
        return [
            self._ranked(method, values, rows, count, timings)
            for values, rows, count in zip(scores, chosen, wanted, strict=True)
        ]

    def scores(
        self, images: Sequence[np.ndarray], method: str | None = None, progress: Progress | None = None
    ) -> np.ndarray:
        """The scores themselves of every work for every image: (B, N) float64."""
        method = self._checked_method(method)
        averages = self.averaged_features(images, method, progress)
        return np.stack(self._scores(averages, method, [None] * len(images)))

    def averaged_features(
        self, images: Sequence[np.ndarray], method: str, progress: Progress | None = None
    ) -> dict[str, torch.Tensor]:
        """`f̄` (B, k) of the images for each probe that `method` reads (Eq. 17)."""
        probes = tuple(dict.fromkeys(kernel.probe for kernel in self.index.manifest.kernels_of(method)))
        report = None if progress is None else lambda done, total: progress("gradients", done, total)
        features = self._extractor(probes).features(self.model.encode(images), progress=report)
        return {probe: averaged(raw) for probe, raw in features.by_probe.items()}

    def _scores(
        self, averages: dict[str, torch.Tensor], method: str, chosen: Sequence[np.ndarray | None]
    ) -> list[np.ndarray]:
        """Scores of each query's candidates, (n,) float64."""
        totals: list[np.ndarray] = [np.zeros(1)] * len(chosen)
        kernels = self.index.manifest.kernels_of(method)
        for kernel in kernels:
            products = self._scorer(kernel).products(averages[kernel.probe], chosen)
            # Several probes' scores are added, each in units of its own mean, so that none drowns the others.
            unit = kernel.mean_square if len(kernels) > 1 else 1.0
            for query, (values, rows) in enumerate(zip(products, chosen, strict=True)):
                totals[query] = totals[query] + self._estimate(kernel, values, rows) / unit
        return totals

    def _estimate(self, kernel: KernelRecord, products: np.ndarray, rows: np.ndarray | None) -> np.ndarray:
        select = slice(None) if rows is None else rows
        repeats = self.index.repeats[select]
        if kernel.method == "das-block":
            return das_block_scores(products[None], repeats)[0]
        leverage = self._scorer(kernel).leverage[select]
        return das_scores(products[None], leverage, self.index.residual_weights[select], repeats)[0]

    def _ranked(
        self, method: str, scores: np.ndarray, rows: np.ndarray | None, top_k: int, timings: dict[str, float]
    ) -> Attribution:
        everywhere = np.arange(len(self.index)) if rows is None else rows
        total = float(scores.sum())
        shares = scores / total if total > 0 else np.zeros_like(scores)
        order = _best(scores, everywhere, max(top_k, SUMMARISED))
        leading = tuple(
            RankedWork(
                row=int(everywhere[place]),
                score=float(scores[place]),
                share=float(shares[place]),
                percentile=100.0 * int((scores < scores[place]).sum()) / len(scores),
            )
            for place in order
        )
        codes, names = self._creators
        groups = share_by_creator(shares, codes[everywhere], names)
        candidates = CandidateSet("all" if rows is None else "screened", len(scores))
        summary = summarise(self.index.works, leading[:SUMMARISED], candidates)
        return Attribution(
            self.index.id, method, candidates, leading[:top_k], {"creator": groups}, summary, dict(timings)
        )

    @cached_property
    def _creators(self) -> tuple[np.ndarray, list[str | None]]:
        """A code for each work's creator (N,), and the creators by code."""
        codes: dict[str | None, int] = {}
        values = [codes.setdefault(name or None, len(codes)) for name in self.index.works.creators]
        return np.array(values, np.int64), list(codes)

    def _extractor(self, probes: tuple[str, ...]) -> FeatureExtractor:
        if probes not in self._extractors:
            manifest = self.index.manifest
            config = FeatureConfig(
                dimension=manifest.config.dimension,
                probes=probes,
                timesteps=manifest.timesteps,
                noise_draws=manifest.config.noise_draws,
                seed=manifest.config.seed,
                attributed=manifest.config.attributed,
            )
            batch_size = manifest.config.batch_size
            self._extractors[probes] = FeatureExtractor(self.model, config, batch_size=batch_size)
        return self._extractors[probes]

    def _scorer(self, kernel: KernelRecord) -> KernelScorer:
        key = (kernel.probe, kernel.form)
        if key not in self._scorers:
            self._scorers[key] = KernelScorer(self.index, kernel, self.device)
        return self._scorers[key]

    def _checked_method(self, method: str | None) -> str:
        if method is None:
            return self.index.methods[0]
        if method not in self.index.methods:
            raise SettingsError(
                f"{self.index.id} wasn't built for {method!r}; it answers {', '.join(self.index.methods)}."
            )
        return method

    def _checked_rows(self, rows: np.ndarray | None) -> np.ndarray | None:
        if rows is None:
            return None
        rows = np.asarray(rows, np.int64).reshape(-1)
        if not len(rows) or rows.min() < 0 or rows.max() >= len(self.index):
            raise SettingsError(f"candidates must be rows from 0 to {len(self.index) - 1}, at least one.")
        if len(np.unique(rows)) != len(rows):
            raise SettingsError("a candidate is given twice.")
        return rows


def _best(scores: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """Places of the `count` largest scores, best first; equal scores in the order of their rows."""
    if count < len(scores):
        least = np.partition(scores, len(scores) - count)[len(scores) - count]
        places = np.flatnonzero(scores >= least)
    else:
        places = np.arange(len(scores))
    return places[np.lexsort((rows[places], -scores[places]))][:count]


def _pixels(image: ImageLike) -> np.ndarray:
    """Any image a caller may have as (H, W, 3) uint8 sRGB."""
    if isinstance(image, np.ndarray):
        return image
    if isinstance(image, Image.Image):
        if image.mode == "RGB":
            return np.asarray(image)
        buffer = BytesIO()
        image.save(buffer, "TIFF")  # the format that holds every mode
        image = buffer.getvalue()
    if isinstance(image, str | Path):
        image = Path(image).read_bytes()
    return normalise(image).pixels
