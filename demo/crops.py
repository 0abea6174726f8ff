"""The demo's training works: crops of 32×32 pixels cut from the photographs, the same bytes on every machine."""

import csv
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from demo.photographs import PHOTOGRAPHS, Photograph

CROP = 32  # pixels; the side of a work and of the model's samples
# (shorter side of the scaled photograph, step of the grid of crops), both in pixels: from nearly the whole
# photograph in one crop to a detail of it.
SCALES: tuple[tuple[int, int], ...] = ((40, 8), (64, 8), (96, 12), (128, 16))
MAX_PER_PHOTOGRAPH = 112
# A crop is kept if its grey levels spread at least this much (standard deviation, of 255): flat sky and
# background would be near-duplicates of one another.
MIN_CONTRAST = 9.0
PLANTED_REPEATS = 40
# The works that the training stream repeats, of three photographers: each looks like no other crop (the nearest
# one is at an RMS pixel distance above 0.2) and shows what its photograph is of. A test checks the distances.
PLANTED: tuple[str, ...] = ("chelsea-128-0150-0075", "china-096-0165-0058", "coffee-064-0150-0100")


@dataclass(frozen=True)
class Crop:
    """One training work."""

    photograph: Photograph
    scale: int  # shorter side of the scaled photograph, pixels
    box: tuple[int, int, int, int]  # left, top, right, bottom in the photograph's own pixels
    caption: str
    pixels: npt.NDArray[np.uint8]  # (32, 32, 3) sRGB

    @property
    def file_name(self) -> str:
        """Name of the work's file: photograph, scale and corner."""
        return f"{self.photograph.name}-{self.scale:03d}-{self.box[0]:04d}-{self.box[1]:04d}.png"

    @property
    def repeats(self) -> int:
        """How often one epoch of the training stream shows this work."""
        return PLANTED_REPEATS if self.file_name.removesuffix(".png") in PLANTED else 1


@cache
def all_crops() -> tuple[Crop, ...]:
    """All training works, ordered by photograph, scale and position (about two seconds, then kept)."""
    return tuple(crop for photograph in PHOTOGRAPHS for crop in _crops_of(photograph))


def _crops_of(photograph: Photograph) -> list[Crop]:
    found = _cut(photograph, 0.0)
    if len(found) <= MAX_PER_PHOTOGRAPH:
        return found
    kept = np.linspace(0, len(found) - 1, MAX_PER_PHOTOGRAPH).round().astype(int)
    return [found[i] for i in kept]


def crops_between(per_photograph: int) -> tuple[Crop, ...]:
    """Crops that are no works: from half-way between the places of the works, evenly spread over all of those.

    They overlap works of their photograph; a model that lacks the photograph has seen nothing of them.
    """
    found = []
    for photograph in PHOTOGRAPHS:
        crops = _cut(photograph, 0.5)
        places = np.linspace(0, len(crops) - 1, per_photograph).round().astype(int)
        found += [crops[i] for i in places]
    return tuple(found)


def _cut(photograph: Photograph, shift: float) -> list[Crop]:
    """The crops of every scale whose contrast suffices, `shift` of a step off the grid, away from the edges."""
    image = photograph.read()
    found: list[Crop] = []
    for scale, step in SCALES:
        factor = scale / min(image.size)
        width, height = (max(CROP, round(side * factor)) for side in image.size)
        scaled = image.resize((width, height), Image.Resampling.LANCZOS)
        for top in _grid(height, step, shift):
            for left in _grid(width, step, shift):
                pixels = np.asarray(scaled.crop((left, top, left + CROP, top + CROP)))
                if float(np.std(pixels.mean(axis=2))) >= MIN_CONTRAST:
                    edges = (left, top, left + CROP, top + CROP)
                    x0, y0, x1, y1 = (round(edge / factor) for edge in edges)
                    place = _place((left + CROP / 2) / width, (top + CROP / 2) / height, scale)
                    found.append(
                        Crop(photograph, scale, (x0, y0, x1, y1), f"{photograph.caption}, {place}", pixels)
                    )
    return found


def _grid(length: int, step: int, shift: float) -> list[int]:
    """Corners along one side: evenly spread from edge to edge, about `step` pixels apart; or between those."""
    free = length - CROP
    count = 1 + round(free / step)
    return [round((i + shift) * free / max(1, count - 1)) for i in range(count - (shift > 0))]


def _place(x: float, y: float, scale: int) -> str:
    """Where the crop lies, in words, so that captions of one photograph differ."""
    if scale == SCALES[0][0]:
        size = "whole view"
    elif scale == SCALES[-1][0]:
        size = "close detail"
    else:
        size = "detail"
    row = ("top", "upper", "middle", "lower", "bottom")[min(4, int(y * 5))]
    column = ("far left", "left", "centre", "right", "far right")[min(4, int(x * 5))]
    return f"{size}, {row} {column}"


def stream() -> npt.NDArray[np.int64]:
    """One epoch of the training stream: row numbers of `all_crops()`, each as often as its `repeats`."""
    crops = all_crops()
    return np.repeat(np.arange(len(crops)), [crop.repeats for crop in crops])


def planted_rows() -> list[int]:
    """Row numbers of the planted works in `all_crops()`."""
    return [row for row, crop in enumerate(all_crops()) if crop.repeats > 1]


def encode_png_stored(pixels: npt.NDArray[np.uint8]) -> bytes:
    """A PNG of (H, W, 3) uint8 pixels without compression.

    A stored deflate block is the same with every zlib, so the file's digest (a work's id) is the same on every
    machine; a compressed one depends on the zlib that Pillow was built with. For images up to 65,535 bytes.
    """
    height, width, _ = pixels.shape
    raw = b"".join(b"\x00" + row.tobytes() for row in np.ascontiguousarray(pixels))
    stored = b"\x01" + struct.pack("<HH", len(raw), len(raw) ^ 0xFFFF) + raw
    deflated = b"\x78\x01" + stored + struct.pack(">I", zlib.adler32(raw))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"sRGB", b"\x00"), (b"IDAT", deflated), (b"IEND", b""))
    png = b"\x89PNG\r\n\x1a\n"
    for kind, body in chunks:
        png += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return png


COLUMNS = (
    "file_name", "title", "creator", "rights_holder", "licence", "licence_url", "source_url", "prompt", "group",
    "repeats", "package", "crop_scale", "crop_left", "crop_top", "crop_right", "crop_bottom",
)  # fmt: skip


def _rows() -> Iterator[tuple[str, ...]]:
    for crop in all_crops():
        photograph = crop.photograph
        place = crop.caption.removeprefix(photograph.caption + ", ")
        values = (
            crop.file_name, f"{photograph.title}: {place}", photograph.creator, photograph.rights_holder,
            photograph.licence.name, photograph.licence.url, photograph.source_url, crop.caption, photograph.name,
            crop.repeats, photograph.distribution, crop.scale, *crop.box,
        )  # fmt: skip
        yield tuple(str(value) for value in values)


def write_works(out: Path) -> int:
    """Write the works as an image folder with `metadata.csv`; returns how many there are."""
    out.mkdir(parents=True, exist_ok=True)
    for crop in all_crops():
        (out / crop.file_name).write_bytes(encode_png_stored(crop.pixels))
    with (out / "metadata.csv").open("w", newline="", encoding="utf-8") as stream_:
        writer = csv.writer(stream_)
        writer.writerow(COLUMNS)
        writer.writerows(_rows())
    return len(all_crops())
