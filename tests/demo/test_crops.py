"""The works: how many, whose, the same bytes again, readable by the builder, with three planted ones."""

import hashlib
import io
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from das.works import read_works
from demo.crops import (
    CROP,
    MIN_CONTRAST,
    PLANTED,
    PLANTED_REPEATS,
    all_crops,
    encode_png_stored,
    planted_rows,
    stream,
    write_works,
)
from demo.samples import REPRODUCTION_RMS, distances

# Over all files in order. It changes only if the crops do, and then the model has to be trained again.
WORKS_DIGEST = "caacbcc8d0f2c572ab6000a0109c35ca53e6f3940c5004f09a1a46a46ba5fa6e"


def test_there_are_about_1200_crops_and_nobody_made_most_of_them() -> None:
    crops = all_crops()
    assert 1150 <= len(crops) <= 1250
    assert all(crop.pixels.shape == (CROP, CROP, 3) and crop.pixels.dtype == np.uint8 for crop in crops)
    assert len({crop.file_name for crop in crops}) == len(crops)
    assert min(float(np.std(crop.pixels.mean(axis=2))) for crop in crops) >= MIN_CONTRAST
    creators = Counter(crop.photograph.creator for crop in crops)
    assert len(creators) == 9
    assert max(creators.values()) / len(crops) < 0.35


def test_the_files_are_the_same_bytes_on_every_machine() -> None:
    digest = hashlib.sha256()
    for crop in all_crops():
        digest.update(encode_png_stored(crop.pixels))
    assert digest.hexdigest() == WORKS_DIGEST


def test_the_box_says_where_in_the_photograph_a_crop_lies() -> None:
    for crop in all_crops()[:: len(all_crops()) // 30]:
        image = crop.photograph.read()
        left, top, right, bottom = crop.box
        assert 0 <= left < right <= image.width
        assert 0 <= top < bottom <= image.height
        again = image.crop(crop.box).resize((CROP, CROP), Image.Resampling.LANCZOS)
        error = np.asarray(again, np.float64) - crop.pixels
        assert np.sqrt(np.square(error).mean()) < 0.1 * 255, crop.file_name


def test_a_stored_png_is_read_back_exactly() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (CROP, CROP, 3), np.uint8)
    with Image.open(io.BytesIO(encode_png_stored(pixels))) as image:
        assert image.format == "PNG"
        assert np.array_equal(np.asarray(image), pixels)


def test_the_planted_works_stand_apart_and_are_repeated() -> None:
    crops, rows = all_crops(), planted_rows()
    assert {crops[row].file_name for row in rows} == {f"{name}.png" for name in PLANTED}
    assert len({crops[row].photograph.creator for row in rows}) == 3
    for row in rows:
        others = np.delete(distances(crops[row].pixels), row)
        # The triangle inequality then makes the planted work the nearest one to each of its reproductions.
        assert others.min() >= 2 * REPRODUCTION_RMS
    counts = np.bincount(stream(), minlength=len(crops))
    assert set(counts[rows]) == {PLANTED_REPEATS}
    assert set(np.delete(counts, rows)) == {1}


def test_the_builder_reads_the_folder_with_every_credit(tmp_path: Path) -> None:
    count = write_works(tmp_path)
    table = read_works(tmp_path).table
    assert table.num_rows == count == len(all_crops())
    for name in ("title", "creator", "licence", "licence_url", "source_url", "prompt", "group"):
        assert all(table[name].to_pylist()), name
    repeats = dict(zip(table["file"].to_pylist(), table["repeats"].to_pylist(), strict=True))
    assert {name for name, number in repeats.items() if number != 1} == {f"{name}.png" for name in PLANTED}
    assert set(repeats.values()) == {1, PLANTED_REPEATS}
