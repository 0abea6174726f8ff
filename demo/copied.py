"""Pictures that are copies of the demo's works and pictures that are merely alike, for `das evaluate copies`.

- `reproductions`: the samples that are planted works by `demo.samples`' rule; `further-reproductions`: the references
  that are.
- `generations`: the other samples and references whose pixels correlate with no work's, mirrored or not, by `ALIKE`
  or more; `generations-like-works`: those that do, of which pixels alone can't tell whether they are copies.
- `crops`: of the works' photographs, from between their places, so that they overlap works by half.
- `tiles`: the photographs in pieces of 256 × 256, to be the works of an index of larger pictures.
"""

import csv
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image

from demo.crops import all_crops, crops_between
from demo.home import REFERENCES, SAMPLES
from demo.photographs import PHOTOGRAPHS
from demo.samples import describe, read_samples
from measure.copies import COPY_OF

CROPS_OF_EACH = 17
TILE = 256
ALIKE = 0.9
"""A correlation of pixels. Of memorised works that PDQ finds, all reach it; so do smooth pictures of two tones."""

Asked = list[tuple[str, np.ndarray, str]]
"""File, pixels, and the file of the work that it is a copy of; empty: of none."""


def write_asked(out: Path) -> dict[str, int]:
    """Write the folders; returns how many pictures each holds."""
    names = ("reproductions", "further-reproductions", "generations", "generations-like-works", "crops")
    sets: dict[str, Asked] = {name: [] for name in names}
    samples = [SAMPLES / sample.file for sample in read_samples(SAMPLES)]
    for path in [*samples, *sorted(REFERENCES.glob("*.png"))]:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        found = describe(pixels, 0)
        if found.reproduction:
            name = "reproductions" if path in samples else "further-reproductions"
            sets[name].append((path.name, pixels, found.nearest_planted))
        else:
            name = "generations-like-works" if correlation(pixels) >= ALIKE else "generations"
            sets[name].append((path.name, pixels, ""))
    for number, crop in enumerate(crops_between(CROPS_OF_EACH)):
        sets["crops"].append((f"crop-{number:03d}.png", crop.pixels, ""))
    sets["tiles"] = [(f"tile-{number:03d}.png", pixels, "") for number, pixels in enumerate(_tiles())]
    for name, pictures in sets.items():
        (out / name).mkdir(parents=True, exist_ok=True)
        with (out / name / "metadata.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(("file_name", COPY_OF))
            writer.writerows((file, work) for file, _, work in pictures)
        for file, pixels, _ in pictures:
            Image.fromarray(pixels).save(out / name / file)
    return {name: len(pictures) for name, pictures in sets.items()}


def _tiles() -> list[np.ndarray]:
    found = []
    for photograph in PHOTOGRAPHS:
        pixels = np.asarray(photograph.read().convert("RGB"))
        height, width = pixels.shape[:2]
        corners = product(range(0, height - TILE + 1, TILE), range(0, width - TILE + 1, TILE))
        found += [pixels[top : top + TILE, left : left + TILE] for top, left in corners]
    return found


def correlation(pixels: np.ndarray) -> float:
    """The highest correlation of a picture's pixels (32, 32, 3) with a work's, mirrored or not."""
    return max(
        float((_standardised_works() @ _standardised(one[None])[0]).max())
        for one in (pixels, pixels[:, ::-1])
    )


@cache
def _standardised_works() -> np.ndarray:
    return _standardised(np.stack([crop.pixels for crop in all_crops()]))


def _standardised(pictures: np.ndarray) -> np.ndarray:
    """Pictures (B, H, W, 3) as rows of mean 0 and norm 1; a flat one as zeros."""
    rows = pictures.reshape(len(pictures), -1).astype(np.float64)
    rows -= rows.mean(1, keepdims=True)
    found: np.ndarray = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
    return found
