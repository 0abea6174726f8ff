"""Which versions are served from the start, and what is kept of an index's works in memory: no more than is said."""

from pathlib import Path

import numpy as np
import pytest

from app import catalogue
from app.catalogue import Catalogue, ServedIndex
from das.index import WORKS_NAME, AttributionIndex
from index_build.changing import remove
from jobs.settings import Settings


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


@pytest.fixture
def versions(tiny_index: Path, tmp_path: Path) -> Settings:
    """A folder with the tiny index and a later version of it, a copy that a test may damage."""
    folder = tmp_path / "indexes"
    folder.mkdir()
    (folder / "first").symlink_to(tiny_index)
    remove(AttributionIndex.open(tiny_index), np.arange(3), folder / "second")
    return Settings(_env_file=None, data_dir=tmp_path / "data", index_dir=folder)


def test_a_start_serves_no_version_whose_digests_are_wrong(versions: Settings, tiny_index: Path) -> None:
    first, later = AttributionIndex.open(tiny_index), AttributionIndex.open(versions.index_dir / "second")
    (served,) = Catalogue.open(versions)
    assert served.id == later.id
    works = versions.index_dir / "second" / WORKS_NAME
    whole = works.read_bytes()
    # As long as it was, so that only its digest tells.
    works.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    # As refused before the restart; also where the workers have a copy of it that is whole.
    for loaded in ((), (later.id,), (first.id, later.id)):
        catalogue = Catalogue.open(versions, loaded)
        assert [served.id for served in catalogue] == [first.id]
        assert f"{WORKS_NAME} is damaged" in catalogue.broken["second"]
    works.write_bytes(whole)
    (served,) = Catalogue.open(versions)
    assert served.id == later.id
