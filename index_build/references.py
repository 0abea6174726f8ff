"""Reference generations: the model's own pictures, made or read, and measured as others will be (das.references)."""

import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from das import durable
from das.arrivals import ARRIVALS
from das.attribution import Attributor
from das.config import BuildConfig
from das.errors import BuildError, ModelError
from das.manifest import ReferencesRecord
from das.models import DiffusionModel
from das.origin import origin_statistics
from das.prng import random_words
from das.references import AS_MADE, FEWEST, References
from index_build.inputs import WorksOnDisk
from index_build.pictures import PictureReader
from index_build.progress import Reporter, duration
from index_build.share_noise import ASKED, has_intervals, measure_share_noise
from index_build.workspace import Workspace

_AT_ONCE = 20
_OF_EACH = 50
GENERATED = "generated"


@dataclass(frozen=True)
class ReferencePictures:
    """Pictures, each (H, W, 3) uint8, with their prompts, and where they come from."""

    pixels: list[np.ndarray]
    prompts: list[str | None]
    source: str
    digest: str | None


REFERENCE_ARRIVALS = ("jpeg-90", "jpeg-75", "half-size")
"""Of das.arrivals; some `_OF_EACH` references are measured so."""


class ReferenceMaker:
    """The pictures that a build's references are: read from the folder given, or made by the model."""

    def __init__(
        self, config: BuildConfig, given: WorksOnDisk | None, works: WorksOnDisk, workspace: Workspace
    ) -> None:
        self._config = config
        self._given = given
        self._works = works
        self._directory = workspace.references
        asked = config.references
        self._count = asked if isinstance(asked, int) else len(given or ())

    def estimate(self, model: DiffusionModel, reporter: Reporter) -> None:
        """Say how many there will be and how long they take, from making and measuring one.

        Raises:
            ModelError: the model's family can't make any.
        """
        if self._given is None and not hasattr(model, "generate"):
            raise ModelError(
                f"Models of the family {model.family} can't be let make pictures here: give a folder of the model's"
                " own with --references, or none with --references 0."
            )
        began = time.perf_counter()
        # The time of measuring a picture doesn't depend on what it shows.
        one = np.zeros((64, 64, 3), np.uint8) if self._given is not None else self._made(model, 0, 1)[0]
        made = time.perf_counter() - began
        began = time.perf_counter()
        origin_statistics(model, model.encode([one]), model.condition([None]))
        measured = time.perf_counter() - began
        altered = len(REFERENCE_ARRIVALS) * _OF_EACH
        seconds = self._count * made + (self._count + altered) * measured
        reporter.say(
            f"{self._count:,} reference generations, to tell the model's own pictures from others: about"
            f" {duration(seconds)} more, and the features of as many works; --references 0 leaves them out."
        )

    def pictures(self, model: DiffusionModel, reporter: Reporter) -> ReferencePictures:
        """All of them; what was made before an interruption is found.

        Raises:
            BuildError: the folder has too few that can be read.
        """
        if self._given is not None:
            return self._read(self._given, reporter)
        count = self._count
        pixels: list[np.ndarray] = []
        with reporter.stage("references", count) as stage:
            for first in range(0, count, _AT_ONCE):
                made = self._made(model, first, min(first + _AT_ONCE, count))
                pixels += made
                stage.advance(len(made))
        prompts = [self._prompt(number) for number in range(count)]
        return ReferencePictures(pixels, prompts, GENERATED, None)

    def _made(self, model: Any, first: int, end: int) -> list[np.ndarray]:
        """The references from `first` to before `end`; each is fixed by the build's seed and its number."""
        missing = [number for number in range(first, end) if not self._path(number).is_file()]
        if missing:
            made = model.generate(
                [self._prompt(number) for number in missing], [self._seed(number) for number in missing]
            )
            self._directory.mkdir(parents=True, exist_ok=True)
            for number, pixels in zip(missing, made, strict=True):
                stream = io.BytesIO()
                Image.fromarray(pixels).save(stream, "PNG")
                durable.write_bytes(self._path(number), stream.getvalue())
        found = []
        for number in range(first, end):
            with Image.open(self._path(number)) as image:
                found.append(np.asarray(image.convert("RGB")))
        return found

    def _path(self, number: int) -> Path:
        return self._directory / f"{number:05d}.png"

    def _seed(self, number: int) -> int:
        return int(random_words(self._config.seed, f"reference\n{number}", 1)[0] >> 1)

    def _prompt(self, number: int) -> str | None:
        """The prompts of works, evenly spaced, so that what the model is asked for is what it was trained on."""
        prompts = self._works.source.table["prompt"]
        chosen: str | None = prompts[number * len(prompts) // self._count % len(prompts)].as_py()
        return chosen

    def _read(self, given: WorksOnDisk, reporter: Reporter) -> ReferencePictures:
        reader = PictureReader(given)
        pixels: list[np.ndarray] = []
        rows: list[int] = []
        refused = 0
        try:
            with reporter.stage("references", len(given)) as stage:
                for pictures, unreadable in reader.batches(range(len(given)), _AT_ONCE):
                    pixels += [picture.pixels for picture in pictures]
                    rows += [picture.row for picture in pictures]
                    refused += len(unreadable)
                    stage.advance(len(pictures) + len(unreadable))
        finally:
            reader.close()
        if refused:
            reporter.warn(f"{refused:,} of the references can't be read as pictures and are left out.")
        if len(pixels) < FEWEST:
            raise BuildError(
                f"{given.source.root} has {len(pixels):,} pictures that can be read; {FEWEST} are the fewest that can"
                " tell the model's own pictures from others."
            )
        prompts = given.source.table["prompt"].to_pylist()
        return ReferencePictures(
            pixels, [prompts[row] for row in rows], str(given.source.root.resolve()), given.digest
        )


def measure_references(
    attributor: Attributor,
    workspace: Workspace,
    pictures: ReferencePictures,
    held_out: Sequence[np.ndarray],
    reporter: Reporter,
) -> tuple[References, ReferencesRecord]:
    """Ask about every reference as about an upload, and take its statistics in each way that it may arrive.

    Args:
        held_out: pictures that the model was not trained on, (H, W, 3) uint8; may be none.

    Raises:
        BuildError: a statistic isn't finite.
    """
    count = len(pictures.pixels)
    every = max(1, count // _OF_EACH)
    methods = attributor.index.methods
    shares: dict[str, list[float]] = {method: [] for method in methods}
    statistics: dict[str, list[np.ndarray]] = {}
    with reporter.stage("measuring references", count) as stage:
        for first in range(0, count, _AT_ONCE):
            batch = slice(first, min(first + _AT_ONCE, count))
            pixels, prompts = pictures.pixels[batch], pictures.prompts[batch]
            statistics.setdefault(AS_MADE, []).append(attributor.origin_statistics(pixels))
            for place, arrival in enumerate(REFERENCE_ARRIVALS):
                chosen = [row for row in range(len(pixels)) if (first + row) % every == place % every]
                if chosen:
                    altered = [ARRIVALS[arrival](pixels[row]) for row in chosen]
                    statistics.setdefault(arrival, []).append(attributor.origin_statistics(altered))
            for method in methods:
                answers = attributor.attribute_batch(pixels, method=method, top_k=1, prompts=prompts)
                shares[method] += [answer.works[0].share for answer in answers]
            stage.advance(len(pixels))
    others = [
        attributor.origin_statistics(held_out[first : first + _AT_ONCE])
        for first in range(0, len(held_out), _AT_ONCE)
    ]
    stacked = {arrival: np.concatenate(parts) for arrival, parts in statistics.items()}
    for arrival, values in stacked.items():
        if not np.isfinite(values).all():
            raise BuildError(
                f"what the model makes of its own pictures ({arrival}) isn't a number; check the model, or leave the"
                " references out with --references 0."
            )
    some = range(0, count, max(1, count // ASKED))
    asked, told = [pictures.pixels[row] for row in some], [pictures.prompts[row] for row in some]
    noise = {
        method: measure_share_noise(attributor, method, workspace, asked, told)
        for method in methods
        if has_intervals(attributor, method)
    }
    record = ReferencesRecord(
        count=count,
        source=pictures.source,
        digest=pictures.digest,
        arrivals={arrival: len(values) for arrival, values in stacked.items()},
    )
    by_method = {method: np.array(values) for method, values in shares.items()}
    unseen = np.concatenate(others) if others else None
    if unseen is not None and not np.isfinite(unseen).all():
        raise BuildError("what the model makes of a held-out picture isn't a number; check the model.")
    return References(stacked, by_method, unseen, noise), record
