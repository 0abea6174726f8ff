"""Sample generations of the demo's model: drawn from numbered seeds, kept by a rule that is written down.

Each picture depends on its own seed only, so any one of them can be drawn again. A *reproduction* is a sample
closer than `REPRODUCTION_RMS` to a planted work. Every planted work is at least twice that far from all other
works (a test checks it), so by the triangle inequality no other work is as near to such a sample.

Of `DRAWN` samples are kept the first `KEPT_PER_PLANTED` reproductions of each planted work, and of the others as
many, evenly spaced in the order of their seeds, as make `KEPT` in all: nothing is chosen by its looks.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from demo.crops import CROP, all_crops, encode_png_stored, planted_rows

Pixels = npt.NDArray[np.uint8]  # (B, 32, 32, 3) or (32, 32, 3) sRGB

SAMPLING_STEPS = 50  # DDIM steps, eta 0: the picture is a function of the first noise
DRAWN = 800
KEPT = 60
KEPT_PER_PLANTED = 12
REFERENCES = 200
FIRST_REFERENCE = 10_000  # seeds far from the samples'
BATCH = 50
# RMS distance over all pixels and channels, of values in [0, 1]. Of the 800 drawn, 36 are nearer to a planted work
# than 0.071 and all others farther than 0.175, so any threshold between tells the same.
REPRODUCTION_RMS = 0.10
TITLES = "samples.json"


@dataclass(frozen=True)
class Sample:
    """What samples.json says of one picture; the service reads `file` and `title` (and what `demo.tiles` adds)."""

    file: str
    title: str
    seed: int
    steps: int
    nearest_work: str  # file name of the pixel-nearest work
    nearest_distance: float  # RMS in [0, 1]
    nearest_planted: str  # file name of the pixel-nearest planted work
    planted_distance: float
    reproduction: bool  # planted_distance < REPRODUCTION_RMS


def draw(pipeline: Path, seeds: Sequence[int], steps: int = SAMPLING_STEPS) -> Pixels:
    """One picture per seed from a `DDPMPipeline` directory, by DDIM without added noise: (B, 32, 32, 3) uint8."""
    import torch
    from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    loaded = DDPMPipeline.from_pretrained(pipeline)
    scheduler = DDIMScheduler.from_config(loaded.scheduler.config)
    scheduler.set_timesteps(steps)
    noises = [torch.randn(3, CROP, CROP, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    x = torch.stack(noises)
    with torch.inference_mode():
        for t in scheduler.timesteps:
            x = scheduler.step(loaded.unet(x, t).sample, t, x, eta=0.0).prev_sample
    pixels: Pixels = x.add(1).mul(127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()
    return pixels


@cache
def _flat_works() -> npt.NDArray[np.float64]:
    """All works as (N, 3072) float64 in [0, 1]."""
    return np.stack([crop.pixels for crop in all_crops()]).reshape(len(all_crops()), -1) / 255.0


def distances(pixels: Pixels) -> npt.NDArray[np.float64]:
    """RMS distance in [0, 1] of one picture (32, 32, 3) to each work: (N,)."""
    difference = _flat_works() - pixels.reshape(1, -1) / 255.0
    rms: npt.NDArray[np.float64] = np.sqrt(np.square(difference).mean(axis=1))
    return rms


def describe(pixels: Pixels, seed: int) -> Sample:
    """Find the nearest work and the nearest planted work of a sample."""
    crops, planted = all_crops(), planted_rows()
    distance = distances(pixels)
    nearest = int(distance.argmin())
    copied = planted[int(distance[planted].argmin())]
    return Sample(
        file=f"generation-{seed:04d}.png",
        title=f"Generation {seed}",
        seed=seed,
        steps=SAMPLING_STEPS,
        nearest_work=crops[nearest].file_name,
        nearest_distance=round(float(distance[nearest]), 5),
        nearest_planted=crops[copied].file_name,
        planted_distance=round(float(distance[copied]), 5),
        reproduction=bool(distance[copied] < REPRODUCTION_RMS),
    )


def choose(samples: Iterable[Sample]) -> list[Sample]:
    """The samples to keep, by the rule at the head of this module."""
    in_order = sorted(samples, key=lambda sample: sample.seed)
    counts: Counter[str] = Counter()
    copies = []
    for sample in in_order:
        if sample.reproduction and counts[sample.nearest_planted] < KEPT_PER_PLANTED:
            counts[sample.nearest_planted] += 1
            copies.append(sample)
    others = [sample for sample in in_order if not sample.reproduction]
    spaced = np.linspace(0, len(others), min(KEPT - len(copies), len(others)), endpoint=False).astype(int)
    return sorted(copies + [others[i] for i in spaced], key=lambda sample: sample.seed)


def write_samples(
    pipeline: Path, out: Path, count: int = DRAWN, report: Callable[[int, int], None] = lambda *_: None
) -> list[Sample]:
    """Draw `count` samples (seeds 0, 1, …), keep some, write them and samples.json to the directory `out`.

    `report` is called with the number drawn and `count` after every batch.
    """
    drawn: dict[int, Pixels] = {}
    for start in range(0, count, BATCH):
        seeds = range(start, min(start + BATCH, count))
        drawn.update(zip(seeds, draw(pipeline, seeds), strict=True))
        report(len(drawn), count)
    kept = choose(describe(pixels, seed) for seed, pixels in drawn.items())
    out.mkdir(parents=True, exist_ok=True)
    for stale in out.glob("generation-*.png"):
        stale.unlink()
    for sample in kept:
        (out / sample.file).write_bytes(encode_png_stored(drawn[sample.seed]))
    entries = [asdict(sample) for sample in kept]
    (out / TITLES).write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    return kept


def write_references(
    pipeline: Path,
    out: Path,
    count: int = REFERENCES,
    first_seed: int = FIRST_REFERENCE,
    report: Callable[[int, int], None] = lambda *_: None,
) -> None:
    """Draw pictures of `count` seeds from `first_seed`, and keep them all: what others are held against.

    `report` is called with the number drawn and `count` after every batch.
    """
    out.mkdir(parents=True, exist_ok=True)
    for start in range(0, count, BATCH):
        seeds = range(first_seed + start, first_seed + min(start + BATCH, count))
        for seed, pixels in zip(seeds, draw(pipeline, seeds), strict=True):
            (out / f"reference-{seed}.png").write_bytes(encode_png_stored(pixels))
        report(start + len(seeds), count)


def read_samples(directory: Path) -> list[Sample]:
    """The samples that a directory's samples.json lists, in the order of their seeds."""
    kept = json.loads((directory / TITLES).read_text(encoding="utf-8"))
    entries: list[dict[str, Any]] = kept if isinstance(kept, list) else kept["samples"]
    names = [field.name for field in fields(Sample)]
    samples = [Sample(**{name: entry[name] for name in names}) for entry in entries]
    return sorted(samples, key=lambda sample: sample.seed)
