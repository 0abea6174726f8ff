"""Versions of random indexes against fresh builds of the same works at the same λ, for every kernel and type."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from das import registry
from das.changes import ChangeRecord, digest_of_id
from das.config import BuildConfig, FeatureType
from das.estimators import das_block_scores
from das.index import AttributionIndex
from das.intervals import Noise, ShareNoise
from das.manifest import Manifest
from das.references import AS_MADE, References
from das.scoring import KernelScorer
from das.works import Works
from index_build.kept import parts_of
from index_build.version import Came, VersionWriter, Written
from index_build.workspace import Workspace
from tests.index_build.synthetic import QUIET, World, dampings_of, finished_index
from tests.lengths import examples

FAMILIES: dict[str, dict[str, Any]] = {
    "default": {"methods": ("das-block",), "probes": ("loss", "activation")},
    "paper": {"methods": ("das-block", "das"), "probes": ("mean",)},
    "paper's alone": {"methods": ("das",)},
    "signed": {"methods": ("trak", "d-trak", "relative-influence", "renormalised-influence", "journey-trak")},
    "plain block and signed": {"methods": ("das-block", "trak"), "probes": ("loss",), "normalise": False},
    "products": {"methods": ("gradient-dot", "gradient-cosine")},
    "checkpoints": {"methods": ("tracincp", "gas", "das-block"), "checkpoints": ("one",)},
}
# What a stored number's rounding may do to a product, in units of the largest: a few times the type's own.
ROUNDING: dict[FeatureType, float] = {"float32": 2e-5, "float16": 1e-2, "int8": 0.1}
CHANGE = ChangeRecord(kind="removed", parent="tiny@000000", at="2026-01-31T12:00:00+00:00", works=1, before=9)


@pytest.fixture(scope="module")
def like(tiny_index: Path) -> Manifest:
    return AttributionIndex.open(tiny_index).manifest


def config(family: str, dtype: FeatureType, shard_size: int = 4, dimension: int = 12) -> BuildConfig:
    return BuildConfig(
        name="random",
        model="nowhere",
        works=Path("nowhere"),
        dimension=dimension,
        feature_dtype=dtype,
        shard_size=shard_size,
        clip=None,
        timesteps=(100, 500, 900),
        **FAMILIES[family],
    )


def changed(
    world: World,
    index: AttributionIndex,
    gone: list[int],
    come: list[int],
    out: Path,
    change: ChangeRecord = CHANGE,
) -> tuple[AttributionIndex, Written]:
    """The version of `index` without the works `gone`, or with those that `come`, all by their numbers."""
    workspace = Workspace.open(out, {"synthetic": "version"})
    files = index.works.column("file")
    kept = np.array([name not in {f"{row}.png" for row in gone} for name in files])
    came = None
    if come:
        shards = world.shards(workspace, come)
        came = Came(world.works(come), shards)
    writer = VersionWriter(index, kept, came, world.sums(gone or come), workspace.path, QUIET)
    written = writer.write((change,))
    features = index.manifest.features.model_copy(
        update={
            "shard_rows": written.shard_rows,
            "growth": written.growth,
            "whitening": "former" if written.whitening_is_former else "block",
        }
    )
    count = len(written.table)
    works = index.manifest.works.model_copy(
        update={"count": count, "trained": sum(written.table["repeats"].to_pylist())}
    )
    manifest = index.manifest.model_copy(
        update={"kernels": written.kernels, "features": features, "works": works, "changes": (change,)}
    )
    report = {"taken": {}, "unreadable": [], "left_out": [], "metadata": [], "loras": []}
    return finished_index(workspace, manifest, Works(written.table), report), written


def compare(version: AttributionIndex, fresh: AttributionIndex, rounding: float) -> None:
    """Every number that an answer is made of, by work."""
    ids = version.works.column("id")
    rows = np.array([fresh.works.row_of(work_id) for work_id in ids])
    assert sorted(rows) == list(range(len(fresh)))
    rng = np.random.default_rng(0)
    asked = torch.from_numpy(rng.normal(size=(5, version.manifest.features.dimension))).float()
    asked /= torch.linalg.vector_norm(asked, dim=1, keepdim=True)
    for ours, theirs in zip(version.manifest.kernels, fresh.manifest.kernels, strict=True):
        name, form = ours.features, ours.form
        found = np.stack(KernelScorer(version, ours).products(asked, [None] * 5))
        expected = np.stack(KernelScorer(fresh, theirs).products(asked, [None] * 5))[:, rows]
        np.testing.assert_allclose(found, expected, atol=rounding * np.abs(expected).max())
        some = np.array([len(version) - 1, 0])
        for query, taken in enumerate(KernelScorer(version, ours).products(asked, [some] * 5)):
            np.testing.assert_allclose(taken, found[query, some], atol=1e-6 * np.abs(found).max())
        np.testing.assert_allclose(version.norms(name), fresh.norms(name)[rows], rtol=1e-6)
        if form == "none":
            continue
        np.testing.assert_allclose(version.factor(name, form), fresh.factor(name, form), atol=1e-8)
        h, expected_h = version.leverage(name, form), fresh.leverage(name, form)[rows]
        np.testing.assert_allclose(h, expected_h, atol=rounding * expected_h.max())
        assert ours.damping == pytest.approx(theirs.damping, rel=1e-9)
        assert ours.trace == pytest.approx(theirs.trace, rel=1e-9)
        assert ours.relative_damping == pytest.approx(theirs.relative_damping, rel=1e-9)
        assert ours.effective_dimension == pytest.approx(theirs.effective_dimension, rel=1e-6)
        assert ours.mean_square == pytest.approx(theirs.mean_square, rel=2 * rounding)
        if "solved_norms" in registry.method(ours.method).needs:
            found_s, expected_s = version.solved_norms(name, form), fresh.solved_norms(name, form)[rows]
            np.testing.assert_allclose(found_s, expected_s, atol=2 * rounding * expected_s.max())
    np.testing.assert_array_equal(version.repeats, fresh.repeats[rows])
    np.testing.assert_array_equal(np.asarray(version.hashes), np.asarray(fresh.hashes)[rows])
    for row in range(len(version)):
        assert version.thumbnail(row) == fresh.thumbnail(int(rows[row]))
    if fresh.residual_rms is not None:
        np.testing.assert_allclose(version.residual_weights, fresh.residual_weights[rows], rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_version_is_a_fresh_build_within_rounding(
    family: str, dtype: FeatureType, like: Manifest, tmp_path: Path
) -> None:
    """Works go, others come, and each time all numbers are those of a build of what is there at the same λ."""
    world = World.of(config(family, dtype), 20, 3, seed=1)
    dampings = None
    index = world.index(tmp_path / "index", range(16), like)
    dampings = dampings_of(index.manifest.kernels)
    gone, come = [0, 5, 6, 7, 15], [16, 17, 18, 19, 5]
    without, written = changed(world, index, gone, [], tmp_path / "without")
    rows = [row for row in range(16) if row not in gone]
    compare(without, world.index(tmp_path / "fresh", rows, like, dampings), ROUNDING[dtype])
    assert written.removed == {digest_of_id(index.works.id_of(row)) for row in gone}
    assert without.verify().ok
    more, _ = changed(world, without, [], come, tmp_path / "more")
    compare(more, world.index(tmp_path / "fresh more", rows + come, like, dampings), ROUNDING[dtype])
    assert more.verify().ok


@examples(25)
@given(data=st.data())
def test_any_works_may_go_and_come_back(
    data: st.DataObject, like: Manifest, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Adding what was removed gives the index that there was: kernels, scores, ids."""
    folder = tmp_path_factory.mktemp("any")
    count = data.draw(st.integers(4, 24))
    size, dimension = data.draw(st.integers(1, 9)), data.draw(st.integers(2, 16))
    family = data.draw(st.sampled_from([*FAMILIES]))
    world = World.of(config(family, "float32", size, dimension), count, 3, data.draw(st.integers(0, 99)))
    index = world.index(folder / "index", range(count), like)
    gone = sorted(data.draw(st.sets(st.integers(0, count - 1), min_size=1, max_size=count - 2)))
    without, written = changed(world, index, gone, [], folder / "without")
    rows = [row for row in range(count) if row not in gone]
    fresh = world.index(folder / "fresh", rows, like, dampings_of(index.manifest.kernels))
    compare(without, fresh, 1e-3)
    assert written.growth >= 1
    back, _ = changed(world, without, [], gone, folder / "back")
    compare(back, index, 1e-3)
    assert sorted(back.works.column("id")) == sorted(index.works.column("id"))


def test_what_rounding_counts_is_not_forgotten_at_the_next_change(like: Manifest, tmp_path: Path) -> None:
    """A work that came is longer in the stored features than any of the build, and stays so when another goes."""
    world = World.of(config("default", "float32"), 30, 3, seed=5)
    for features in world.features.values():
        features[29] *= 100
    index = world.index(tmp_path / "index", range(29), like)
    more, came = changed(world, index, [], [29], tmp_path / "more")
    assert came.growth > 3
    _, later = changed(world, more, [0], [], tmp_path / "later")
    assert later.growth > 0.9 * came.growth


def test_scores_keep_their_order(like: Manifest, tmp_path: Path) -> None:
    """The ranking of das-block is that of a fresh build, but for scores that differ by less than rounding."""
    world = World.of(config("default", "float16"), 60, 3, seed=3)
    index = world.index(tmp_path / "index", range(60), like)
    without, _ = changed(world, index, [3, 30, 59], [], tmp_path / "without")
    rows = [row for row in range(60) if row not in (3, 30, 59)]
    fresh = world.index(tmp_path / "fresh", rows, like, dampings_of(index.manifest.kernels))
    asked = torch.from_numpy(world.features["loss"][[3, 10, 20]].mean(1))

    def scores(one: AttributionIndex) -> np.ndarray:
        total = np.zeros((3, len(one)))
        for kernel in one.manifest.kernels:
            products = np.stack(KernelScorer(one, kernel).products(asked, [None] * 3))
            h = 3 * one.leverage(kernel.features, kernel.form)
            assert kernel.mean_square is not None
            total += das_block_scores(products, h, one.repeats, one.content_repeats()) / kernel.mean_square
        return total

    found, expected = scores(without), scores(fresh)
    np.testing.assert_allclose(found, expected, atol=5e-3 * expected.max())
    assert (found.argsort(1)[:, ::-1][:, :5] == expected.argsort(1)[:, ::-1][:, :5]).all()


def test_shards_that_stay_whole_are_the_same_files(like: Manifest, tmp_path: Path) -> None:
    world = World.of(config("default", "int8"), 14, 3, seed=2)
    index = world.index(tmp_path / "index", range(12), like)
    without, written = changed(world, index, [5, 8, 9, 10, 11], [], tmp_path / "without")
    assert without.manifest.features.shard_rows == (4, 3)
    linked = [name for name in without.manifest.files if (without.path / name).stat().st_nlink > 1]
    assert linked == [
        "features/activation/shard-00000.npy",
        "features/loss/shard-00000.npy",
        "thumbnails/shard-00000.bin",
    ]
    assert set(written.shared.records) == set(linked)
    for name in linked:
        assert (without.path / name).samefile(index.path / name)


def test_where_links_dont_work_shards_are_copied(
    like: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World.of(config("default", "float16"), 14, 3, seed=2)
    index = world.index(tmp_path / "index", range(12), like)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    without, _ = changed(world, index, [5], [], tmp_path / "without")
    first = "features/loss/shard-00000.npy"
    assert (without.path / first).stat().st_nlink == 1
    assert (without.path / first).read_bytes() == (index.path / first).read_bytes()
    assert without.verify().ok


def test_parts_are_what_stays_of_each_shard() -> None:
    kept = np.array([True, True, False, False, True, False, True])
    found = [(part.number, part.rows.tolist(), part.whole) for part in parts_of((2, 2, 3), kept)]
    assert found == [(0, [0, 1], True), (2, [4, 6], False)]


@pytest.mark.parametrize(("gone", "kept"), [(1, True), (2, False)])
def test_what_was_measured_of_shares_goes_beyond_a_tenth(
    gone: int, kept: bool, like: Manifest, tmp_path: Path
) -> None:
    """What the model's own pictures say of a picture's origin stays, also where shares aren't told any more."""
    world = World.of(config("default", "float16"), 12, 3, seed=2)
    statistics = np.random.default_rng(0).normal(size=(100, 5))
    noise = ShareNoise(Noise(0.1, 0.2), Noise(0.3, 0.4), 2.5)
    references = References(
        {AS_MADE: statistics}, {"das-block": np.linspace(0, 1, 100)}, None, {"das-block": noise}
    )
    index = world.index(tmp_path / "index", range(12), like, references=references)
    change = CHANGE.model_copy(update={"works": gone, "before": 12})
    version, _ = changed(world, index, list(range(gone)), [], tmp_path / "version", change)
    found = version.references
    assert found is not None
    np.testing.assert_array_equal(found.statistics[AS_MADE], statistics)
    assert found.percentile("das-block", 0.5) == (50.0 if kept else None)
    assert found.noise == ({"das-block": noise} if kept else {})
    assert any("were measured before works" in said for said in version.caveats) is kept
    assert ("they are stale" in version.card, "aren't told any more" in version.card) == (kept, not kept)
