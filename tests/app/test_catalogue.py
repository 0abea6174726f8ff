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


def test_a_name_is_the_newest_index_of_that_name(served):
    def made(moment):
        index = AttributionIndex.open(served.directory)
        build = index.manifest.build.model_copy(update={"created_at": moment})
        index.manifest = index.manifest.model_copy(update={"build": build})
        return ServedIndex(served.directory, index)

    older, newer = made("2026-01-01T00:00:00Z"), made("2026-02-01T00:00:00Z")
    for order in ([older, newer], [newer, older]):
        both = catalogue.Catalogue([], None)
        # Two builds of one name; what they hold is the same here, and so would be their ids.
        both._by_id = {str(place): one for place, one in enumerate(order)}
        assert both.choose(served.name) is newer
