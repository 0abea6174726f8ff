"""What an index and its model are expected to take, held against what they do take."""

from pathlib import Path

import pytest

from das.attribution import Attributor
from das.config import BuildConfig
from das.footprint import index_bytes, model_bytes
from das.index import AttributionIndex
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
        table.numel() * table.element_size()
        for extractor in attributor._extractors.values()
        for table in extractor.sketch._tables.values()
    )
    scorers = attributor._scorers.values()
    assert all(scorer._resident is not None for scorer in scorers)
    kept = sum(
        tensor.numel() * tensor.element_size()
        for scorer in scorers
        for tensor in (scorer._whitening, scorer._other, scorer._resident)
        if tensor is not None
    )
    assert tables > 8 * both.manifest.model.attributed_parameters
    assert index_bytes(both) == tables + kept
    assert index_bytes(both, "cuda") == index_bytes(both)

    monkeypatch.setattr("das.scoring.IN_MEMORY_BYTES", 0)
    features = sum(scorer._resident.numel() for scorer in scorers if scorer._resident is not None)
    assert index_bytes(both) == tables + kept - 4 * features
    assert index_bytes(both, "cuda:1") == tables + kept - 2 * features
