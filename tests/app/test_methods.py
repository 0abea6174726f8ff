"""Every estimator asked through a running service and from the command line: the numbers are the library's."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest
from typer.testing import CliRunner

from das.attribution import Attributor
from das.cli import build_app
from das.config import BuildConfig, ClipSpec
from das.index import AttributionIndex
from das.methods import METHODS
from index_build.build import build
from tests.browser.conftest import Site
from tests.conftest import make_works

WORKS, SEED = 8, 11
NAMES = tuple(method.name for method in METHODS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_clip: Path) -> Path:
    folder = tmp_path_factory.mktemp("methods")
    make_works(folder / "works", WORKS)
    config = BuildConfig(
        name="methods",
        model=str(tiny_model),
        works=folder / "works",
        timesteps=(100, 500),
        dimension=32,
        methods=NAMES,
        checkpoints=(str(tiny_model),),
        clip=ClipSpec(directory=tiny_clip),
    )
    build(config, folder / "index")
    return folder


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[Site]:
    site = Site(folder, folder / "index", folder / "works")
    yield site
    site.stop()


@pytest.fixture(scope="module")
def attributor(folder: Path) -> Attributor:
    return Attributor(AttributionIndex.open(folder / "index"), threads=1)


@pytest.mark.parametrize("method", NAMES)
def test_service_command_line_and_library_agree(
    method: str, site: Site, folder: Path, attributor: Attributor
) -> None:
    picture = folder / "works" / "work-002.png"
    seed = SEED if method == "journey-trak" else None
    expected = attributor.attribute(picture, top_k=WORKS, method=method, seed=seed)
    scores = {work.work_id: work.score for work in expected.works}

    form = {"method": method, "top_k": str(WORKS)} | ({"seed": str(seed)} if seed else {})
    response = httpx.post(
        f"{site.url}/v1/attributions",
        data=form,
        files={"image": picture.open("rb")},
        headers={"Prefer": "wait=60"},
        timeout=90,
    )
    told = response.json()
    assert (response.status_code, told["state"], told["method"]) == (200, "succeeded", method), told
    assert told["seed"] == seed
    assert {work["work_id"]: pytest.approx(work["score"], rel=1e-4) for work in told["works"]} == scores

    command = ["query", str(picture), "--index", str(folder / "index"), "--method", method, "--json"]
    command += ["--seed", str(seed)] if seed else []
    result = CliRunner().invoke(build_app(), command, catch_exceptions=False)
    answered = json.loads(result.stdout)
    assert {work["work_id"]: pytest.approx(work["score"], rel=1e-4) for work in answered["works"]} == scores
