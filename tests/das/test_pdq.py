"""PDQ: the reference's own hashes and quality; and distances against a loop over bits."""

import io

import numpy as np
import pytest
from PIL import Image

import das.pdq
from das.pdq import BYTES, distances, pdq
from measure.uploads import synthetic
from tests.das.boxes import boxes

# height, width, seed, and the hash and quality that the reference (ThreatExchange's C++) prints of `boxes` of them.
GOLDEN = [
    (5, 7, 1, "687d6f819782907e387c3cd8687d8327c7836f81687d6f819782907e387c3cd8", 100),
    (9, 31, 2, "3f83dd3e000b1f0af1f8000f7fc0fff0003ffbf00e01e0d5ebf43ec1c03d3fc0", 100),
    (20, 33, 3, "ca1aca1af81af8101b900bd31fc13fc13fc171c7f007f805f03f03ff07febc24", 100),
    (32, 32, 4, "93c3985789c3181c1f037271e3112878ffd1f773e33389e03cdcff8e3c2e0461", 100),
    (48, 48, 5, "24d92da9a49bdf504b6d0a5916da46dbb6d82c2dcdadde562d25486dda52503a", 100),
    (64, 64, 6, "dfc9894df969583c410dc3e107878fe80c32ffdae78787a21f8800b6f0697c17", 100),
    (65, 64, 7, "3fa16de140013ffc2065c02d0f3d2c05600569bd0c253fe77ffc2fa17fe17f80", 100),
    (100, 90, 8, "cf8cc7c744c770d7d491969850b050b1f0b113938783878f830ff9ef616c8f7c", 100),
    (129, 255, 9, "4865526640466a06604f6a4e6256765a6a567f525fdaead9cd8bd95649da997a", 100),
    (333, 200, 10, "bda3395b3a443d057954355f815b8272a56cdfdc7a849a9c427a056b96bb6621", 100),
    (512, 512, 11, "1806180e38061d0e1f061fb60ffefb33c037c033f002813193b1ffee07f0ffff", 100),
]
# Within so many bits: sums come in another order here, and values near the median can change sides.
ROUNDING = 2


def as_bits(text: str) -> np.ndarray:
    return np.frombuffer(bytes.fromhex(text), np.uint8)


def apart(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.bitwise_count(one ^ other).sum())


@pytest.mark.parametrize(
    ("height", "width", "seed", "reference", "quality"), GOLDEN, ids=lambda value: str(value)[:6]
)
def test_the_hashes_are_the_reference_s(
    height: int, width: int, seed: int, reference: str, quality: int
) -> None:
    found, told = pdq(boxes(height, width, seed))
    assert apart(found, as_bits(reference)) <= ROUNDING
    assert abs(told - quality) <= 1


def test_the_quality_is_the_reference_s_where_contrast_is_low() -> None:
    pixels = boxes(200, 150, 12)
    assert [pdq(pixels // divisor)[1] for divisor in (2, 4, 8, 16, 64)] == [66, 30, 12, 4, 0]


def test_a_picture_is_made_smaller_first_beyond_512_pixels() -> None:
    pixels = boxes(300, 400, 8)
    large = np.asarray(Image.fromarray(pixels).resize((1200, 900), Image.Resampling.NEAREST))
    assert apart(pdq(large)[0], pdq(pixels)[0]) <= 16


def test_a_copy_as_a_jpeg_is_near_and_others_are_far() -> None:
    for seed in range(5):
        pixels = boxes(256, 256, seed)
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG", quality=50)
        jpeg = np.asarray(Image.open(stream).convert("RGB"))
        smaller = np.asarray(Image.fromarray(pixels).resize((150, 150), Image.Resampling.BICUBIC))
        ours = pdq(pixels)[0]
        assert apart(ours, pdq(jpeg)[0]) <= 16
        assert apart(ours, pdq(smaller)[0]) <= 24
        assert apart(ours, pdq(boxes(256, 256, seed + 50))[0]) > 80


def test_flat_colours_and_gradients_have_little_quality_and_noise_has_all() -> None:
    found = {uploads.name: [pdq(pixels)[1] for pixels in uploads.pixels[:20]] for uploads in synthetic(96, 1)}
    assert max(found["flat colours"]) == 0
    assert max(found["gradients"]) < 50
    assert min(found["noise"]) == 100


@pytest.mark.parametrize("shape", [(1, 1), (4, 300), (300, 4), (1, 5000)])
def test_what_is_too_small_has_no_hash(shape: tuple[int, int]) -> None:
    found, quality = pdq(np.full((*shape, 3), 77, np.uint8))
    assert not found.any()
    assert quality == 0


def test_distances_count_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(das.pdq, "_CHUNK", 20)
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 256, (50, BYTES + 1), dtype=np.uint8)
    asked = np.stack([*rng.integers(0, 256, (2, BYTES), dtype=np.uint8), ~hashes[7, :BYTES]])
    by_bit = [
        [
            sum(bin(int(a) ^ int(b)).count("1") for a, b in zip(row[:BYTES], one, strict=True))
            for row in hashes
        ]
        for one in asked
    ]
    assert by_bit[2][7] == 256
    pieces = [(start, found.copy()) for start, found in distances(hashes[:, :BYTES], asked)]
    assert [start for start, _ in pieces] == [0, 20, 40]
    assert np.concatenate([found for _, found in pieces], 1).tolist() == by_bit
