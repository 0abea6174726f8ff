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
