"""What is said of works that came or went: when, in which words, and that every language has them."""

from pathlib import Path

import pytest

from das.changes import (
    COARSE,
    REMOVED,
    REMOVED_NAME,
    STALE,
    ChangeRecord,
    caveats_of,
    digest_of_id,
    is_coarse,
    keeps_shares,
    read_removed,
    removed_bytes,
)
from das.errors import IndexFormatError
from das.works import assign_ids

AT = "2026-01-31T12:00:00+00:00"


def change(works: int, before: int) -> ChangeRecord:
    return ChangeRecord(kind="removed", parent="tiny@000000", at=AT, works=works, before=before)


def test_an_index_that_was_built_says_nothing() -> None:
    assert caveats_of((), 0, measured=True, dtype="float16", growth=1.0) == []
    assert keeps_shares(())


def test_what_is_left_out_and_what_is_stale_is_said() -> None:
    changes = (change(3, 100), change(7, 97))
    assert caveats_of(changes, 10, measured=True, dtype="float16", growth=1.4) == [
        REMOVED.format(count=10),
        STALE.format(count=10, before=100),
    ]
    assert caveats_of(changes, 0, measured=False, dtype="float16", growth=1.4) == []


def test_beyond_a_tenth_shares_arent_kept() -> None:
    assert keeps_shares((change(10, 100),))
    changes = (change(10, 100), change(1, 90))
    assert not keeps_shares(changes)
    assert caveats_of(changes, 0, measured=True, dtype="float16", growth=1.0) == []


@pytest.mark.parametrize(
    ("dtype", "growth", "coarse"),
    [
        ("int8", 2.0, False),
        ("int8", 3.0, True),
        ("float16", 30.0, False),
        ("float16", 50.0, True),
        ("float32", 1e4, False),
    ],
)
def test_rounding_that_grew_is_said(dtype: str, growth: float, coarse: bool) -> None:
    assert is_coarse(dtype, growth) is coarse
    said = caveats_of((), 0, measured=False, dtype=dtype, growth=growth)
    assert said == ([COARSE.format(growth=f"{growth:.2g}")] if coarse else [])


def test_ids_that_are_gone_are_kept_as_digests(tmp_path: Path) -> None:
    assert read_removed(tmp_path) == frozenset()
    digests = {digest_of_id("w_1"), digest_of_id("w_2")}
    (tmp_path / REMOVED_NAME).write_bytes(removed_bytes(digests))
    assert read_removed(tmp_path) == digests
    (tmp_path / REMOVED_NAME).write_bytes(b"\xff")
    with pytest.raises(IndexFormatError, match=r"removed\.txt can't be read"):
        read_removed(tmp_path)


def test_ids_that_others_have_are_passed_over() -> None:
    stem = "w_" + "a" * 16
    digests = ["a" * 64] * 3
    assert assign_ids(digests) == [stem, f"{stem}-2", f"{stem}-3"]
    assert assign_ids(digests, {stem, f"{stem}-3"}) == [f"{stem}-2", f"{stem}-4", f"{stem}-5"]
