"""From a generated image to the training works that it owes most to: index, engine and estimators in one place.

index = AttributionIndex.open("index/")
result = Attributor(index).attribute("picture.png", top_k=20)
"""

import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from das import registry
from das.answer import Attribution
from das.approximate import ApproximateSearch
from das.config import FeatureSet
from das.errors import SettingsError
from das.gradients import FeatureConfig, FeatureExtractor
from das.images.given import ImageLike, pixels_of
from das.index import AttributionIndex
from das.index_model import check_model, load_model_of
from das.kernel import prepared
from das.manifest import KernelRecord
from das.models import Conditioning, DiffusionModel, load_model
from das.origin import origin_statistics
from das.prompts import notes_of_length
from das.ranking import Ranking
from das.scoring import KernelScorer
from das.sections import Section, SectionTally
from das.similarity import Similarity
from das.sources import ModelSource
from das.sscd import copy_finder
from das.tally import Tally, tally_of
from das.trajectories import trajectories
from das.work_numbers import work_number

Candidates = Literal["all"] | Sequence[int] | np.ndarray | None
Progress = Callable[[str, int, int], None]
Alive = Callable[[], object]
"""Called after each piece of works that is scored; raises where nobody waits for the rest."""
Averages = dict[str, torch.Tensor]
Spread = Callable[[Averages, str, Sequence[int]], list[Tally] | None]
"""What the scores of queries `averages` (B, k) by a method come to among all works, with so many of the highest kept
of each: computed by several, with `Attributor.section_tallies`. None where there is nobody to share with."""

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
            threads: threads of torch and FAISS in this process; None: as they are.

        Raises:
            ModelError: the model can't be loaded, or its weights aren't those of the index.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        self.index = index
        self.device = device
        self._threads = threads
        if model is None or isinstance(model, str | Path):
            source = index.model_source if model is None else ModelSource(str(model))
            self.model = load_model_of(index, source, device)
        else:
            self.model = model
            check_model(index, self.model, index.manifest.model, "the model given")
        self._extractors: dict[tuple[int, tuple[str, ...]], FeatureExtractor] = {}
        self._scorers: dict[tuple[str, str], KernelScorer] = {}
        self._copies, copy_caveats = copy_finder(index, device)
        self._caveats = (*copy_caveats, *index.caveats)
        self.ranking = Ranking(index)

    def attribute(
        self,
        image: ImageLike,
        top_k: int = 20,
        candidates: Candidates = None,
        method: str | None = None,
        progress: Progress | None = None,
        prompt: str | None = None,
        seed: int | None = None,
        exact: bool = False,
    ) -> Attribution:
        """Attribute one image: pixels (H, W, 3) uint8 sRGB, a PIL image, an encoded file or its path.

        Args:
            top_k: how many works to name, best first.
            candidates: rows of the works to score; None or "all" for every work.
            method: an estimator the index holds; None for its first.
            progress: told `("gradients", done, total)` and `("scored", 1, 1)`.
            prompt: what the picture was generated from, for models that are conditioned on text.
            seed: what it was generated with, for journey-trak; without it the picture is inverted.
            exact: score every work also where the index has an approximate search (das.approximate).

        Raises:
            SettingsError: the index doesn't answer `method`, or the candidates are no rows of it.
            ImageRefused: the file isn't a picture we accept.
        """
        rows = None if candidates is None or isinstance(candidates, str) else np.asarray(candidates)
        if isinstance(candidates, str) and candidates != "all":
            raise SettingsError(f"candidates is {candidates!r}; give 'all' or rows of the index.")
        return self.attribute_batch(
            [pixels_of(image)],
            candidates=[rows],
            method=method,
            top_k=top_k,
            progress=progress,
            prompts=[prompt],
            seeds=[seed],
            exact=exact,
        )[0]

    def attribute_batch(
        self,
        images: Sequence[np.ndarray],
        *,
        candidates: Sequence[np.ndarray | None] | None = None,
        method: str | None = None,
        top_k: int | Sequence[int] = 20,
        progress: Progress | None = None,
        prompts: Sequence[str | None] | None = None,
        seeds: Sequence[int | None] | None = None,
        exact: bool = False,
        spread: Spread | None = None,
    ) -> list[Attribution]:
        """Attribute several images, each (H, W, 3) uint8 sRGB, in shared backward passes.

        `candidates` has rows for each image, None in it for every work; `top_k` is one number or one for each;
        `prompts` and `seeds` have one for each. Where every work is scored by features that are read for each
        question, `spread` may have others take part. Otherwise like `attribute`.
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
        x0, conditioning = self._encoded(images, prompts)
        averages = _averaged(self._features(x0, conditioning, method, progress, seeds))
        gradients_ms = (time.perf_counter() - began) * _MILLISECONDS
        began = time.perf_counter()
        tallies = self._tallies(images, averages, method, chosen, wanted, exact, spread)
        scoring_ms = (time.perf_counter() - began) * _MILLISECONDS
        if progress is not None:
            progress("scored", 1, 1)
        timings = {"gradients": round(gradients_ms, 3), "scoring": round(scoring_ms, 3)}
        began = time.perf_counter()
        origins = self._origins(x0)
        if self.index.references is not None:
            timings["origin"] = round((time.perf_counter() - began) * _MILLISECONDS, 3)
        began = time.perf_counter()
        copies = [self._copies.find(pixels) for pixels in images]
        if self.index.hashes is not None:
            timings["copies"] = round((time.perf_counter() - began) * _MILLISECONDS, 3)
        return [
            self.ranking.rank(method, tally, count, timings, origin, copy, self._caveats_of(tally, prompt))
            for tally, count, origin, copy, prompt in zip(
                tallies, wanted, origins, copies, prompts or [None] * len(images), strict=True
            )
        ]

    def _tallies(
        self,
        images: Sequence[np.ndarray],
        averages: Averages,
        method: str,
        chosen: Sequence[np.ndarray | None],
        wanted: Sequence[int],
        exact: bool,
        spread: Spread | None,
    ) -> list[Tally]:
        """What the scores of each query come to."""
        record = self.index.manifest.approximate
        searched = []
        if not exact and record is not None and record.method == method:
            searched = [query for query, rows in enumerate(chosen) if rows is None]
        found = dict(zip(searched, self._searched(averages, method, searched, wanted), strict=True))
        shared = [query for query, rows in enumerate(chosen) if rows is None and query not in found]
        if shared and spread is not None and self._reads_features(method):
            asked = {name: values[shared] for name, values in averages.items()}
            tallies = spread(asked, method, [wanted[query] for query in shared])
            found.update(zip(shared, tallies or (), strict=tallies is not None))
        others = [query for query in range(len(chosen)) if query not in found]
        if others:
            some = [chosen[query] for query in others]
            asked = {name: values[others] for name, values in averages.items()}
            scores = self._scores([images[query] for query in others], asked, method, some)
            for query, values, rows in zip(others, scores, some, strict=True):
                found[query] = tally_of(self.index.works, values, rows, wanted[query])
        return [found[query] for query in range(len(chosen))]

    def section_tallies(
        self, averages: Averages, method: str, section: Section, best: Sequence[int], alive: Alive
    ) -> list[SectionTally]:
        """What the scores of queries `averages` (B, k) come to in a section, `best` of the highest kept of each."""
        scores = self._scores([], averages, method, [section] * len(best), alive)
        pairs = zip(scores, best, strict=True)
        return [SectionTally.of(self.index.works, section, values, count) for values, count in pairs]

    def _reads_features(self, method: str) -> bool:
        """Whether a question among all works reads features that aren't in memory as they are multiplied."""
        kernels = self.index.manifest.kernels_of(method)
        return any(not self._scorer(kernel).in_memory for kernel in kernels)

    def _searched(
        self, averages: Averages, method: str, queries: Sequence[int], wanted: Sequence[int]
    ) -> list[Tally]:
        """The same of some queries by the index's approximate search."""
        if not queries:
            return []
        search = self._search
        asked = {name: values[list(queries)] for name, values in averages.items()}
        mapped = self.mapped(asked, method)
        candidates = search.candidates(mapped)
        scores = self.scores_of(asked, method, candidates)
        sampled = self.scores_of(asked, method, [search.sample] * len(queries))
        kernels = self.index.manifest.kernels_of(method)
        totals = search.totals(mapped, [self._unit(kernel, len(kernels)) for kernel in kernels])
        return [
            search.tally(
                candidates[place], scores[place], sampled[place], float(totals[place]), wanted[query]
            )
            for place, query in enumerate(queries)
        ]

    def _caveats_of(self, tally: Tally, prompt: str | None) -> tuple[str, ...]:
        record = self.index.manifest.approximate if tally.candidates.mode == "approximate" else None
        caveats = [] if record is None else [record.caveat]
        return (*caveats, *notes_of_length(self.model, prompt), *self._caveats)

    @cached_property
    def _search(self) -> ApproximateSearch:
        record = self.index.manifest.approximate
        assert record is not None
        search = ApproximateSearch.open(self.index, record, threads=self._threads)
        for kernel in self.index.manifest.kernels_of(record.method):
            self._scorer(kernel).pin(search.sample)
        return search

    def mapped(self, averages: Averages, method: str) -> list[np.ndarray]:
        """Queries `averages` (B, k) in the stored features' space of each of the method's kernels, (B, k) float32."""
        kernels = self.index.manifest.kernels_of(method)
        return [self._scorer(kernel).mapped(averages[kernel.features]).cpu().numpy() for kernel in kernels]

    def scores_of(
        self, averages: Averages, method: str, chosen: Sequence[np.ndarray | Section | None]
    ) -> list[np.ndarray]:
        """Scores of the candidates of queries `averages` (B, k), (n,) float64 each: rows, a section of the works, or
        None for every one."""
        return self._scores([], averages, method, chosen)

    def scores(
        self, images: Sequence[np.ndarray], method: str | None = None, progress: Progress | None = None
    ) -> np.ndarray:
        """The scores themselves of every work for every image: (B, N) float64."""
        method = self._checked_method(method)
        averages = self.averaged_features(images, method, progress)
        return np.stack(self._scores(images, averages, method, [None] * len(images)))

    def averaged_features(
        self,
        images: Sequence[np.ndarray],
        method: str,
        progress: Progress | None = None,
        prompts: Sequence[str | None] | None = None,
        seeds: Sequence[int | None] | None = None,
    ) -> Averages:
        """`f̄` (B, k) of the images for each feature set that `method` reads (Eq. 17)."""
        return _averaged(self._features(*self._encoded(images, prompts), method, progress, seeds))

    def timestep_features(
        self, images: Sequence[np.ndarray], method: str, prompts: Sequence[str | None] | None = None
    ) -> dict[str, torch.Tensor]:
        """`f_t` (B, T, k) of the images at every timestep, for each feature set that `method` reads."""
        return self._features(*self._encoded(images, prompts), method, None, None)

    def solved(self, kernel: KernelRecord, averages: torch.Tensor) -> np.ndarray:
        """`H⁻¹f̄` of features (B, k) for a block kernel, (B, k) float64: its products with works' features score."""
        factor = torch.from_numpy(self.index.factor(kernel.features, kernel.form))
        found: np.ndarray = torch.cholesky_solve(averages.cpu().double().T, factor).T.numpy()
        return found

    def combined(
        self, method: str, products: Sequence[np.ndarray], norms: Sequence[np.ndarray]
    ) -> np.ndarray:
        """Scores (B, N) float64 from the products (B, N) of each of the method's kernels and norms (B,) of `f̄`."""
        kernels = self.index.manifest.kernels_of(method)
        total = np.zeros_like(products[0])
        for kernel, values, lengths in zip(kernels, products, norms, strict=True):
            unit = self._unit(kernel, len(kernels))
            for query in range(len(values)):
                total[query] += (
                    self._estimate(kernel, values[query][None], lengths[query : query + 1], slice(None))[0]
                    / unit
                )
        return total

    def origin_statistics(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """What tells whether the model made the images (das.origin): (B, STATISTICS) float64."""
        return self._origin_statistics(self.model.encode(images))

    def _origin_statistics(self, x0: torch.Tensor) -> np.ndarray:
        # Without prompts, for references and questions alike: few uploads say theirs, and one that is told would
        # otherwise be held against pictures that were measured in another way.
        return origin_statistics(self.model, x0, self.model.condition([None] * len(x0)))

    def _origins(self, x0: torch.Tensor) -> Sequence[dict[str, object] | None]:
        """Whether the model made each of the pictures; None where the index can't tell."""
        references = self.index.references
        if references is None:
            return [None] * len(x0)
        return references.in_model(self._origin_statistics(x0))

    def _encoded(
        self, images: Sequence[np.ndarray], prompts: Sequence[str | None] | None
    ) -> tuple[torch.Tensor, Conditioning]:
        """The images in the model's own space, and what it is given besides."""
        return self.model.encode(images), self.model.condition(prompts or [None] * len(images))

    def _features(
        self,
        x0: torch.Tensor,
        conditioning: Conditioning,
        method: str,
        progress: Progress | None,
        seeds: Sequence[int | None] | None,
    ) -> dict[str, torch.Tensor]:
        """The features (B, T, k) at every timestep, for each feature set that `method` reads."""
        names = dict.fromkeys(kernel.features for kernel in self.index.manifest.kernels_of(method))
        sets = [FeatureSet.parse(name) for name in names]
        if not sets:
            return {}
        if registry.method(method).along_trajectory:
            timesteps = self.index.manifest.timesteps
            x0 = trajectories(self.model, x0, conditioning, seeds or [None] * len(x0), timesteps)
        checkpoints = sorted({one.checkpoint for one in sets})
        found = {}
        for place, checkpoint in enumerate(checkpoints):
            ours = [one for one in sets if one.checkpoint == checkpoint]
            extractor = self._extractor(checkpoint, tuple(dict.fromkeys(one.probe for one in ours)))
            report = None
            if progress is not None:
                report = _part_of(progress, place, len(checkpoints))
            raw = extractor.features(x0, conditioning, report).by_probe
            for one in ours:
                found[one.name] = prepared(raw[one.probe], normalise=one.normalised)
        return found

    def _scores(
        self,
        images: Sequence[np.ndarray],
        averages: Averages,
        method: str,
        chosen: Sequence[np.ndarray | Section | None],
        alive: Alive = lambda: None,
    ) -> list[np.ndarray]:
        """Scores of each query's candidates, (n,) float64."""
        if (record := registry.method(method)).compares:
            return self._similarity.scores(
                record, images, [one for one in chosen if not isinstance(one, Section)]
            )
        totals = [np.zeros(len(self.index) if one is None else len(one)) for one in chosen]
        kernels = self.index.manifest.kernels_of(method)
        for kernel in kernels:
            found = averages[kernel.features]
            norms = torch.linalg.vector_norm(found.double(), dim=1).cpu().numpy()
            unit = self._unit(kernel, len(kernels))
            for piece in self._scorer(kernel).pieces(found, chosen):
                scores = self._estimate(kernel, piece.products, norms[piece.queries], piece.rows)
                for query, values in zip(piece.queries, scores, strict=True):
                    totals[query][piece.place] += values / unit
                alive()
        return totals

    def _unit(self, kernel: KernelRecord, kernels: int) -> float:
        """What a kernel's scores are divided by before they are added to those of the method's others."""
        if kernels == 1:
            return 1.0
        if registry.method(kernel.method).of_checkpoints:
            return float(kernels)
        # Several probes' scores are added, each in units of its own mean, so that none drowns the others.
        assert kernel.mean_square is not None
        return kernel.mean_square

    def _estimate(
        self,
        kernel: KernelRecord,
        products: np.ndarray,
        query_norms: np.ndarray,
        rows: np.ndarray | slice,
    ) -> np.ndarray:
        """Scores (B, n) of queries from their products (B, n) with the works in `rows`."""
        method = registry.method(kernel.method)
        quantities = {
            need: query_norms if need == "query_norms" else work_number(self.index, need, kernel, rows)
            for need in method.needs
        }
        with registry.blamed("method", method.name):
            return method.scores(products, quantities)

    @cached_property
    def _similarity(self) -> Similarity:
        return Similarity(self.index, self.model, self.device)

    def _extractor(self, checkpoint: int, probes: tuple[str, ...]) -> FeatureExtractor:
        if (checkpoint, probes) not in self._extractors:
            manifest = self.index.manifest
            config = FeatureConfig.of(manifest.config, probes, manifest.timesteps)
            model = self._checkpoint(checkpoint)
            self._extractors[checkpoint, probes] = FeatureExtractor(
                model, config, batch_size=manifest.config.batch_size
            )
        return self._extractors[checkpoint, probes]

    def extractors(self) -> list[FeatureExtractor]:
        """The engine of the model, and of each further checkpoint, for the features that the index keeps."""
        config = self.index.manifest.config
        return [
            self._extractor(number, config.probes_of(number)) for number in range(len(config.checkpoints) + 1)
        ]

    def _checkpoint(self, number: int) -> DiffusionModel:
        """The model itself, or one of the further checkpoints; an extractor keeps it."""
        if number == 0:
            return self.model
        source = self.index.checkpoint_source(number)
        model = load_model(source, lora=self.index.loras, device=self.device)
        check_model(self.index, model, self.index.manifest.checkpoints[number - 1], source.model)
        return model

    def _scorer(self, kernel: KernelRecord) -> KernelScorer:
        key = (kernel.features, kernel.form)
        if key not in self._scorers:
            self._scorers[key] = KernelScorer(self.index, kernel, self.device)
        return self._scorers[key]

    def _checked_method(self, method: str | None) -> str:
        if method is None:
            return self.index.methods[0]
        if method not in self.index.methods:
            raise SettingsError(
                f"{self.index.id} wasn't built for {method!r}; it answers {', '.join(self.index.methods)}."
                f" Build an index with --method {method} to ask for it."
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


def _averaged(features: dict[str, torch.Tensor]) -> Averages:
    """`f̄` (B, k) of features (B, T, k) by feature set."""
    return {name: values.mean(1) for name, values in features.items()}


def _part_of(progress: Progress, place: int, parts: int) -> Callable[[int, int], None]:
    """Progress of one of several equal parts of the gradients."""
    return lambda done, total: progress("gradients", place * total + done, parts * total)
