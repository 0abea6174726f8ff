"""What is kept of an index's works in memory: no more than is said."""

import pytest

from app import catalogue
from app.catalogue import ServedIndex
from das.index import AttributionIndex


@pytest.fixture
def served(tiny_index, monkeypatch):
    monkeypatch.setattr(catalogue, "WORKS_KEPT", 3)
    monkeypatch.setattr(catalogue, "PICTURES_KEPT", 4)
    return ServedIndex(tiny_index, AttributionIndex.open(tiny_index))


def test_caches_are_bounded_and_keep_what_was_asked_last(served):
    for row in range(10):
        assert served.work(row) == served.index.works.row(row)
        assert served.picture(row).width == 16
    assert len(served._works) == 3
    assert len(served._pictures) == 4
    kept = served.work(9)
    assert served.work(9) is kept
    assert served.work(0) == served.index.works.row(0)
    assert served.work(9) is kept


def test_a_name_is_the_newest_index_of_that_name(served, monkeypatch):
    class Other(ServedIndex):
        id = "tiny@another"

    other = Other(served.directory, AttributionIndex.open(served.directory))
    for first, second in (
        ("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"),
        ("2026-02-02T00:00:00Z", "2026-02-01T00:00:00Z"),
    ):
        monkeypatch.setattr(served.index.manifest.build, "created_at", first)
        monkeypatch.setattr(other.index.manifest.build, "created_at", second)
        both = catalogue.Catalogue([served, other], None)
        assert both.choose(served.name) is (other if second > first else served)
        assert both.choose("tiny@another") is other
