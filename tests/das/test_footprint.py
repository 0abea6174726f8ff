"""What an index and its model are expected to take, held against what they do take."""

from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

from das.attribution import Attributor
from das.config import BuildConfig
from das.footprint import index_bytes, model_bytes
from das.index import AttributionIndex
from index_build.approximating import approximate
from index_build.build import build
from tests.conftest import make_picture


@pytest.fixture(scope="module")
def both(tiny_model: Path, tiny_works: Path, tmp_path_factory: pytest.TempPathFactory) -> AttributionIndex:
    """An index whose methods read gradients and activations, by kernels of both forms."""
    config = BuildConfig(
        name="both",
        model=str(tiny_model),
        works=tiny_works,
        timesteps=1,
        dimension=32,
        methods=("das-block", "das"),
        probes=("loss", "activation"),
        clip=None,
    )
    out = tmp_path_factory.mktemp("footprint") / "index"
    build(config, out)
    return AttributionIndex.open(out)


def test_a_models_weights_are_those_of_its_files(both: AttributionIndex) -> None:
    model = Attributor(both).model
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.network.parameters())
    assert weights <= model_bytes(both) < 1.2 * weights


def test_features_kernels_and_tables_count(both: AttributionIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    attributor = Attributor(both)
    for method in both.methods:
        attributor.scores([make_picture(3)], method)
    tables = sum(
        _bytes_of(table)
        for extractor in attributor._extractors.values()
        for table in extractor.sketch._tables.values()
    )
    scorers = attributor._scorers.values()
    stored = [scorer._stored._resident for scorer in scorers]
    assert all(features is not None for features in stored)
    kept = sum(
        _bytes_of(tensor)
        for scorer, features in zip(scorers, stored, strict=True)
        for tensor in (scorer._whitening, scorer._other, features)
    )
    assert tables > 8 * both.manifest.model.attributed_parameters
    assert index_bytes(both) == tables + kept
    assert index_bytes(both, "cuda") == index_bytes(both)

    monkeypatch.setattr("das.scoring.IN_MEMORY_BYTES", 0)
    features = sum(one.numel() for one in stored if one is not None)
    assert index_bytes(both) == tables + kept - 4 * features
    assert index_bytes(both, "cuda:1") == tables + kept - 2 * features


@pytest.mark.parametrize("dtype", ["int8", "float16"])
def test_an_approximate_search_counts(
    many_works: Callable[[str], Path], dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = AttributionIndex.open(many_works(dtype))
    approximate(parent, tmp_path / "index", size=8, depth=20, sample=700)
    index = AttributionIndex.open(tmp_path / "index")
    attributor = Attributor(index, threads=1)
    attributor.attribute(make_picture(3))
    search = attributor._search
    # What FAISS rounds up to blocks of its own, and its centroids, are left out.
    kept = sum(len(index) * int(one.pq.code_size) for one in search._searches)
    kept += sum(one.nbytes for one in search._sums)
    for scorer in attributor._scorers.values():
        assert scorer._pinned is not None
        _, stored = scorer._pinned
        kept += sum(shard.nbytes for _, shard in stored._features.shards()) + _bytes_of(stored._resident)
    assert index_bytes(index) == index_bytes(parent) + kept
    monkeypatch.setattr("das.scoring.IN_MEMORY_BYTES", 0)
    assert index_bytes(index) < index_bytes(parent) + kept


def _bytes_of(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.numel() * tensor.element_size()
