"""Pictures that the model was not trained on, held against its works: how much better it knows what it was shown.

Both are asked for at ten timesteps with the same noise, so that their mean square errors can be compared. Under a
LoRA each picture's error is taken relative to that of the base alone, which cancels what makes a picture hard.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from das.config import BuildConfig
from das.errors import BuildError, WorksError
from das.gradients import FeatureConfig, FeatureExtractor
from das.kernel import USUAL_GAP
from das.manifest import HeldOutRecord
from das.models import DiffusionModel
from das.models.lora import as_base
from index_build.dataset_inference import PictureLosses, generalisation_gap, known_creators
from index_build.inputs import WorksOnDisk, read_digested_works
from index_build.pictures import PictureReader
from index_build.progress import Reporter, Stage, duration

FEWEST = 30
"""Of fewer the gap is a matter of chance: the errors of two pictures differ more than what training changes."""

FEWEST_OF_CREATOR = 10
"""Held-out pictures, and works, that a creator needs to be tested."""

MEASURED_WORKS = 1000
MEASURED_OF_CREATOR = 100
TIMESTEPS = 10
_AT_ONCE = 16
_LEAST = 1e-30


@dataclass(frozen=True)
class HeldOut:
    """What was measured of the held-out pictures, and the pictures themselves, each (H, W, 3) uint8."""

    record: HeldOutRecord
    pixels: list[np.ndarray]


class HeldOutPictures:
    """The pictures of `--held-out`, and the works that they are held against."""

    def __init__(self, config: BuildConfig, given: WorksOnDisk, works: WorksOnDisk) -> None:
        """Raises BuildError where there are too few, or one of them is a work."""
        if len(given) < FEWEST:
            raise BuildError(
                f"{given.source.root} has {len(given):,} pictures; {FEWEST} held-out ones are the fewest that tell"
                " how well the model knows its works."
            )
        _check_apart(given, works)
        self._config = config
        self._given = given
        self._works = works
        self._relative = bool(config.lora)

    def estimate(self, model: DiffusionModel, reporter: Reporter) -> None:
        """Say how long they take, from measuring one."""
        count = len(self._given) + len(self._chosen_works())
        x0 = model.encode([np.zeros((64, 64, 3), np.uint8)])
        began = time.perf_counter()
        _errors(self._extractor(model), x0, [None], relative=self._relative)
        seconds = count * (time.perf_counter() - began)
        reporter.say(
            f"{len(self._given):,} held-out pictures, and {count - len(self._given):,} works to compare them with:"
            f" about {duration(seconds)} more."
        )

    def measure(self, model: DiffusionModel, reporter: Reporter) -> HeldOut:
        """Compare works and held-out pictures.

        Raises:
            BuildError: too few can be read, or an error isn't finite.
        """
        extractor = self._extractor(model)
        chosen = self._chosen_works()
        with reporter.stage("held-out pictures", len(self._given) + len(chosen)) as stage:
            pixels, outside = self._read(extractor, self._given, range(len(self._given)), stage)
            _, inside = self._read(extractor, self._works, chosen, stage)
        if len(pixels) < FEWEST:
            raise BuildError(
                f"only {len(pixels):,} of the held-out pictures in {self._given.source.root} can be read;"
                f" {FEWEST} are the fewest."
            )
        if not inside.creators:
            raise BuildError(
                "none of the works that were to be compared with the held-out pictures can be read."
            )
        everywhere = generalisation_gap(inside.sample(MEASURED_WORKS), outside, seed=self._config.seed)
        creators = known_creators(inside, outside, fewest=FEWEST_OF_CREATOR, seed=self._config.seed)
        record = HeldOutRecord(
            count=len(pixels),
            source=str(self._given.source.root.resolve()),
            digest=self._given.digest,
            works=min(len(inside.creators), MEASURED_WORKS),
            gap=everywhere.gap,
            gap_low=everywhere.low,
            gap_high=everywhere.high,
            decides_damping=not everywhere.low <= USUAL_GAP <= everywhere.high,
            creators=creators,
        )
        reporter.say(record.describe())
        return HeldOut(record, pixels)

    def _chosen_works(self) -> list[int]:
        """Rows of `MEASURED_WORKS` works, evenly spaced, and more of the creators who have held-out pictures."""
        count = len(self._works)
        rows = set(_evenly(range(count), MEASURED_WORKS))
        held_out = self._given.source.table["creator"].to_pylist()
        of_creator: dict[str, list[int]] = {name: [] for name in held_out if name}
        for row, name in enumerate(self._works.source.table["creator"].to_pylist()):
            if name in of_creator:
                of_creator[name].append(row)
        for theirs in of_creator.values():
            rows.update(_evenly(theirs, MEASURED_OF_CREATOR))
        return sorted(rows)

    def _extractor(self, model: DiffusionModel) -> FeatureExtractor:
        """Without probes: only the errors are wanted."""
        last = model.schedule.num_train_timesteps
        steps = tuple(i * last // TIMESTEPS for i in range(min(TIMESTEPS, last)))
        config = FeatureConfig(dimension=1, probes=(), timesteps=steps, seed=self._config.seed)
        return FeatureExtractor(model, config, batch_size=self._config.batch_size)

    def _read(
        self, extractor: FeatureExtractor, source: WorksOnDisk, rows: Sequence[int], stage: Stage
    ) -> tuple[list[np.ndarray], PictureLosses]:
        model = extractor.model
        prompts = source.source.table["prompt"].to_pylist()
        creators = source.source.table["creator"].to_pylist()
        pixels: list[np.ndarray] = []
        errors: list[np.ndarray] = []
        taken: list[int] = []
        reader = PictureReader(source)
        try:
            for pictures, unreadable in reader.batches(rows, _AT_ONCE):
                if pictures:
                    theirs = [picture.pixels for picture in pictures]
                    of_rows = [prompts[picture.row] for picture in pictures]
                    found = _errors(extractor, model.encode(theirs), of_rows, relative=self._relative)
                    if not np.isfinite(found).all():
                        raise BuildError(
                            f"the model's error on a picture in {source.source.root} isn't finite; check its weights."
                        )
                    pixels += theirs
                    errors.append(found)
                    taken += [picture.row for picture in pictures]
                stage.advance(len(pictures) + len(unreadable))
        finally:
            reader.close()
        whole = np.concatenate(errors) if errors else np.empty((0, TIMESTEPS))
        return pixels, PictureLosses(whole, [creators[row] or None for row in taken])


def check_not_held_out(
    record: HeldOutRecord, works: WorksOnDisk, reporter: Reporter, *, follow_links: bool
) -> None:
    """Raise BuildError where works that come to an index are among the pictures that it was built to hold out.

    Where these aren't there any more, or are others, a warning says so.
    """
    folder = Path(record.source)
    try:
        given = read_digested_works(folder, reporter, follow_links=follow_links)
    except WorksError:
        given = None
    if given is not None:
        _check_apart(given, works)
    if given is None or given.digest != record.digest:
        reporter.warn(
            f"the {record.count:,} pictures that the index was built to hold out aren't in {folder} as they were, so"
            " it isn't known whether some of these works are among them: those are pictures that the model was not"
            " trained on."
        )


def _check_apart(given: WorksOnDisk, works: WorksOnDisk) -> None:
    both = (set(given.digests) & set(works.digests)) - {""}
    if both:
        file = given.source.paths[given.digests.index(min(both))]
        raise BuildError(
            f"{len(both):,} of the held-out pictures are works too, such as {file}. Held out are pictures that"
            " the model was not trained on."
        )


def _evenly(rows: Sequence[int], count: int) -> list[int]:
    """Up to `count` of the rows, evenly spaced."""
    return [rows[place * len(rows) // count] for place in range(count)] if len(rows) > count else list(rows)


@torch.no_grad()
def _errors(
    extractor: FeatureExtractor, x0: torch.Tensor, prompts: Sequence[str | None], *, relative: bool
) -> np.ndarray:
    """Mean square errors (B, T) float64; `relative` to those of the model without its LoRAs."""
    model = extractor.model

    def squared() -> np.ndarray:
        # Asked for each time: LoRAs can also change what the text encoders make of a prompt.
        rms = extractor.features(x0, model.condition(list(prompts))).residual_rms
        found: np.ndarray = rms.double().square().cpu().numpy()
        return found

    errors = squared()
    if relative:
        with as_base(model):
            errors = errors / np.maximum(squared(), _LEAST)
    return errors
