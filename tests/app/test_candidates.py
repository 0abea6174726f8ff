"""Which works are scored: all of them where that costs little, else those that CLIP chooses."""

import pytest

from app.candidates import ALL_UP_TO_FEATURE_BYTES, SCREENED, wanted_count

MANY = ALL_UP_TO_FEATURE_BYTES + 1


@pytest.mark.parametrize(
    ("asked", "works", "feature_bytes", "count"),
    [
        ("auto", 65_536, ALL_UP_TO_FEATURE_BYTES, None),
        ("auto", 65_537, MANY, SCREENED),
        ("auto", SCREENED, MANY, None),
        ("auto", SCREENED + 1, MANY, SCREENED),
        ("all", 10**6, MANY, None),
        ("7", 40, 1, 7),
        ("39", 40, 1, 39),
        ("40", 40, 1, None),
        ("41", 40, 1, None),
        ("5000", 10**6, MANY, 5000),
    ],
)
def test_how_many_are_screened(asked, works, feature_bytes, count):
    assert wanted_count(asked, works, feature_bytes) == count
