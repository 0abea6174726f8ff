"""`das bench approximate`: its exact pass is das's own, and what it says of approximate search is so."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from das.approximate import quantised
from das.approximation import TOP_WORKS
from das.attribution import Attributor
from das.cli import build_app
from das.config import BuildConfig
from das.errors import SettingsError
from das.index import AttributionIndex
from index_build.build import build
from measure.approximate import exact, measure_approximate, probes_of
from measure.mixing import mixture

WORKS = 3000


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_works: Path) -> AttributionIndex:
    """An index of two probes, whose scores are added each in its own unit, and of a work that was repeated."""
    config = BuildConfig(
        name="two",
        model=str(tiny_model),
        works=tiny_works,
        timesteps=2,
        dimension=32,
        probes=("loss", "activation"),
        clip=None,
    )
    out = tmp_path_factory.mktemp("two-probes") / "index"
    build(config, out)
    return AttributionIndex.open(out)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)


def test_the_works_of_the_index_have_their_das_block_scores(
    index: AttributionIndex, images: np.ndarray, tmp_path: Path
) -> None:
    probes = probes_of(index, images, WORKS, tmp_path, 0)
    assert [probe.features.shape for probe in probes] == [(WORKS, 32)] * 2
    own = slice(0, len(index))
    found = np.array([sum(probe.scores(query, own) for probe in probes) for query in range(len(images))])
    expected = Attributor(index).scores(list(images))
    assert np.abs(found - expected).max() < 0.02 * expected.max()


def test_a_mixed_work_is_of_the_same_two_in_every_probe(
    index: AttributionIndex, images: np.ndarray, tmp_path: Path
) -> None:
    probes = probes_of(index, images, WORKS, tmp_path, 0)
    mixed = mixture(len(index), WORKS - len(index), 0)
    assert 0.2 <= mixed.part.min() < mixed.part.max() <= 0.7
    part = mixed.part[:, None]
    for probe in probes:
        works = probe.features * probe.scales[:, None]
        expected = np.sqrt(1 - part**2) * works[mixed.main] + part * works[mixed.other]
        assert np.abs(works[len(index) :] - expected).max() < 3 * probe.scales.max()


def test_the_exact_pass_finds_the_highest_scores_and_all_sums(
    index: AttributionIndex, images: np.ndarray, tmp_path: Path
) -> None:
    probes = probes_of(index, images, WORKS, tmp_path, 0)
    labels = np.arange(WORKS) % 7
    found = exact(probes, labels, 2)
    for query in range(len(images)):
        scores = sum(probe.scores(query, slice(None)) for probe in probes)
        # By their scores: the last of them and the next may be as good as equal.
        assert len({*found.best[query]}) == TOP_WORKS
        highest = np.sort(scores)[::-1][:TOP_WORKS]
        assert np.sort(scores[found.best[query]])[::-1] == pytest.approx(highest, rel=1e-5)
        assert found.totals[query] == pytest.approx(scores.sum(), rel=1e-4)
        assert found.groups[query] == pytest.approx(
            [scores[labels == one].sum() for one in range(7)], rel=1e-4
        )
    assert len(found.ms) == len(found.cpu_ms) == 2


def test_a_search_that_misses_nothing_finds_all_and_a_rough_one_fewer(
    index: AttributionIndex, images: np.ndarray, tmp_path: Path
) -> None:
    told = measure_approximate(
        index,
        images,
        WORKS,
        tmp_path,
        factories=["Flat", "PQ4x4fs"],
        depths=[TOP_WORKS, WORKS],
        samples=[1500, WORKS],
        timed=1,
        seed=0,
    )
    recall = {(row["factory"], row["depth"]): row["recall_at_20"] for row in told["approximate"]}
    assert recall["Flat", WORKS] == recall["PQ4x4fs", WORKS] == 1.0
    assert recall["Flat", TOP_WORKS] > recall["PQ4x4fs", TOP_WORKS]
    size = {row["factory"]: row["bytes_per_work"] for row in told["approximate"]}
    assert size["PQ4x4fs"] < 0.1 * size["Flat"]
    half, whole = told["groups"]
    assert whole["median_relative_error"] < 1e-3
    assert 0.85 < half["inside_95"] <= 1
    assert half["median_relative_error"] > whole["median_relative_error"]
    assert (told["works"], told["base_works"], told["probes"]) == (WORKS, 40, 2)


def test_what_an_index_is_searched_with_decides_what_it_finds(
    index: AttributionIndex, images: np.ndarray, tmp_path: Path
) -> None:
    told = measure_approximate(
        index,
        images,
        WORKS,
        tmp_path,
        factories=["IVF16,Flat@nprobe=1", "IVF16,Flat@nprobe=16"],
        depths=[WORKS],
        samples=[WORKS],
        timed=1,
        seed=0,
    )
    some, every = (row["recall_at_20"] for row in told["approximate"])
    assert some < every == 1.0


@pytest.mark.parametrize("factory", ["Nothing7", "IVF16,Flat@nothing=1"])
def test_an_index_that_faiss_doesnt_make_is_refused(
    index: AttributionIndex, images: np.ndarray, tmp_path: Path, factory: str
) -> None:
    probes = probes_of(index, images, 40, tmp_path, 0)
    with pytest.raises(SettingsError, match="FAISS makes no index"):
        quantised(probes[0].stored, None, factory, 0)


def test_it_needs_as_many_works_as_the_index_has(
    index: AttributionIndex, images: np.ndarray, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match="ask for as many at least"):
        probes_of(index, images, 39, tmp_path, 0)


def test_the_command_writes_its_figures(index: AttributionIndex, images: np.ndarray, tmp_path: Path) -> None:
    queries, out = tmp_path / "queries.npz", tmp_path / "figures.json"
    np.savez(queries, images=images)
    words = [
        *("--index", index.path, "--queries", queries, "--folder", tmp_path / "features", "--works", WORKS),
        *("--factory", "PQ8x4fs", "--depth", 100, "--sample", 200, "--timed", 1, "--out", out),
    ]
    done = CliRunner().invoke(build_app(), ["bench", "approximate", *map(str, words)])
    assert done.exit_code == 0, done.output
    assert "PQ8x4fs, 100 candidates: recall" in done.stdout
    figures = json.loads(out.read_text())
    assert figures["approximate"][0]["depth"] == 100
    assert figures["groups"][0]["sample"] == 200


def test_a_file_that_holds_no_pictures_is_refused(index: AttributionIndex, tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", pictures=np.zeros(3))
    words = ["--index", index.path, "--queries", tmp_path / "other.npz", "--folder", tmp_path / "features"]
    with pytest.raises(SettingsError, match=r"isn't a \.npz with the array images"):
        CliRunner().invoke(build_app(), ["bench", "approximate", *map(str, words)], catch_exceptions=False)


def test_an_engine_that_isnt_installed_is_told(
    index: AttributionIndex, images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "qdrant_edge", None)
    with pytest.raises(SettingsError, match=r"pip install das-attribution\[engines\]"):
        measure_approximate(
            index, images, 100, tmp_path, factories=["qdrant"], depths=[10], samples=[50], timed=1, seed=0
        )
