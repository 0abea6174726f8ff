"""The sample generations are what the committed model draws, and samples.json says of them what is so."""

import numpy as np
import pytest
from PIL import Image

from demo.crops import all_crops, planted_rows
from demo.home import PIPELINE, SAMPLES
from demo.samples import (
    DRAWN,
    KEPT,
    KEPT_PER_PLANTED,
    REPRODUCTION_RMS,
    Sample,
    choose,
    describe,
    distances,
    draw,
    read_samples,
)

REDRAWN = 3


def pixels_of(sample: Sample) -> np.ndarray:
    with Image.open(SAMPLES / sample.file) as image:
        assert (image.size, image.mode) == ((32, 32), "RGB")
        return np.asarray(image)


def test_samples_json_agrees_with_the_pictures() -> None:
    samples = read_samples(SAMPLES)
    assert {sample.file for sample in samples} == {file.name for file in SAMPLES.glob("*.png")}
    for sample in samples:
        assert describe(pixels_of(sample), sample.seed) == sample


def test_about_sixty_are_kept_and_every_planted_work_is_reproduced() -> None:
    samples = read_samples(SAMPLES)
    assert len(samples) == KEPT
    assert all(sample.seed < DRAWN for sample in samples)
    copies = [sample for sample in samples if sample.reproduction]
    assert len(copies) >= 20
    assert {sample.nearest_planted for sample in copies} == {
        all_crops()[row].file_name for row in planted_rows()
    }
    assert all(sample.nearest_work == sample.nearest_planted for sample in copies)


def test_a_sample_is_drawn_again_from_its_seed() -> None:
    samples = read_samples(SAMPLES)
    chosen = samples[:: len(samples) // REDRAWN][:REDRAWN]
    again = draw(PIPELINE, [sample.seed for sample in chosen])
    for sample, pixels in zip(chosen, again, strict=True):
        # Another batch size or processor rounds differently: the last of 50 steps may end one level away.
        difference = np.abs(pixels.astype(int) - pixels_of(sample).astype(int))
        assert difference.max() <= 6, sample.file
        assert difference.mean() < 0.25, sample.file


def test_a_work_is_at_no_distance_from_itself_and_the_distance_is_rms() -> None:
    pixels = all_crops()[5].pixels
    assert distances(pixels)[5] == 0
    darker = pixels.astype(float) * 0.9
    expected = np.sqrt(np.mean((pixels / 255 - darker.round() / 255) ** 2))
    assert distances(darker.round().astype(np.uint8))[5] == pytest.approx(expected)


def test_the_rule_keeps_the_first_copies_and_evenly_spaced_others() -> None:
    def sample(seed: int, work: str | None) -> Sample:
        distance = REPRODUCTION_RMS / 2 if work else 1.0
        return Sample(f"{seed}.png", "", seed, 50, "x", 1.0, work or "a", distance, work is not None)

    drawn = [sample(seed, ("a", None, None, "b")[seed % 4]) for seed in range(200)]
    kept = choose(reversed(drawn))
    assert [one.seed for one in kept] == sorted(one.seed for one in kept)
    assert len(kept) == KEPT
    copies = [one.seed for one in kept if one.reproduction]
    assert copies == sorted([*range(0, 4 * KEPT_PER_PLANTED, 4), *range(3, 4 * KEPT_PER_PLANTED, 4)])
    others = [one.seed for one in kept if not one.reproduction]
    seeds = [one.seed for one in drawn if not one.reproduction]
    assert others == [seeds[i * len(seeds) // len(others)] for i in range(KEPT - len(copies))]
