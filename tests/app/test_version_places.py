"""Where versions lie while the service runs: moved, unfinished, torn, and in which order they are served."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from app.catalogue import Catalogue
from app.service import Service
from das.durable import BUILDING_SUFFIX
from das.index import AttributionIndex
from das.manifest import MANIFEST_NAME, manifest_bytes, read_manifest
from index_build.changing import remove
from jobs.audit import AuditFilters
from jobs.settings import Settings
from tests.app.receivers import until
from tests.app.versions import loads, readiness


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_index: Path) -> Path:
    """A folder with an index of its own, and one whose manifest is torn."""
    folder = tmp_path_factory.mktemp("places") / "indexes"
    shutil.copytree(tiny_index, folder / "first")
    (folder / "torn").mkdir()
    (folder / "torn" / MANIFEST_NAME).write_text("{")
    return folder


@pytest.fixture(scope="module")
def settings(settings: Settings, folder: Path) -> Settings:
    return settings.model_copy(update={"index_dir": folder})


@pytest.fixture
def service(client: TestClient) -> Iterator[Service]:
    service: Service = client.app.state.service  # type: ignore[attr-defined]
    yield service
    assert not service.versions.all_coming


def test_what_is_served_is_read_where_it_was_moved_to(
    client: TestClient, service: Service, folder: Path
) -> None:
    (served,) = service.catalogue
    thumbnail = f"/v1/works/{served.work(0)['id']}/thumbnail"
    was = client.get(thumbnail)
    assert was.status_code == 200
    (folder / "first").rename(folder / "moved")
    try:
        until(lambda: next(iter(service.catalogue)).directory == folder / "moved")
        (now,) = service.catalogue
        assert now.id == served.id
        assert client.get(thumbnail).content == was.content
        assert service.screener.status(now.id) == "ready"
        assert not service.store.audit.list(AuditFilters(action="index.served")).events, (
            "nothing else is served"
        )
    finally:
        (folder / "moved").rename(folder / "first")
    until(lambda: next(iter(service.catalogue)).directory == folder / "first")


def test_what_is_being_built_isnt_a_version_until_it_has_its_name(service: Service, folder: Path) -> None:
    (first,) = service.catalogue
    out = folder / "second"
    building = out.with_name(out.name + BUILDING_SUFFIX)
    remove(first.index, np.arange(3), out)
    out.rename(building)
    service.versions.look()
    try:
        assert service.settings.index_directories() == [folder / "first", folder / "torn"]
        service.versions.look()
        assert service.versions.coming("tiny") is None
        building.rename(out)
        service.versions.look()
        coming = service.versions.coming("tiny")
        assert coming is not None
        assert coming.version.directory == out
    finally:
        shutil.rmtree(out if out.exists() else building)
        service.versions.look()


def test_all_processes_serve_in_one_order_and_what_is_mended_is_no_longer_told(
    client: TestClient, service: Service, settings: Settings, folder: Path
) -> None:
    assert "without torn: " in readiness(client)
    (first,) = service.catalogue
    other = folder / "earlier"
    shutil.copytree(folder / "first", folder / ".other")
    manifest = read_manifest(folder / ".other").model_copy(update={"name": "other"})
    (folder / ".other" / MANIFEST_NAME).write_bytes(manifest_bytes(manifest))
    (folder / ".other").rename(other)
    added = AttributionIndex.open(other).id
    loads(service, first.id, added)
    until(lambda: service.catalogue.find(added))
    order = [served.id for served in Catalogue.open(settings)]
    assert order == [added, first.id], "it is before the other in the folder"
    until(lambda: [served.id for served in service.catalogue] == order)
    assert service.catalogue.choose(None).id == added

    shutil.rmtree(folder / "torn")
    until(lambda: "torn" not in readiness(client))
    assert service.catalogue.broken == {}
