"""Features of a study: folded, narrowed and cached, they are what extracting again would give."""

import numpy as np
import pytest

from das.errors import SettingsError
from das.gradients import FeatureConfig
from das.models import load_model
from measure.features import FeatureTable, extract

K = 64


def test_folding_a_sketch_equals_extracting_with_a_smaller_one(truth):
    model = load_model(str(truth.pipeline))
    large, small = (
        extract(model, truth.queries, FeatureConfig(dimension, ("loss",), (100, 500)))
        for dimension in (K, K // 4)
    )
    assert np.allclose(large.folded(K // 4).by_probe["loss"], small.by_probe["loss"], rtol=1e-3, atol=1e-5)
    with pytest.raises(SettingsError, match="folded"):
        large.folded(48)


def test_some_of_the_timesteps_equal_extracting_at_those(truth):
    model = load_model(str(truth.pipeline))
    several = extract(model, truth.queries, FeatureConfig(K, ("loss",), (100, 300, 500)))
    two = extract(model, truth.queries, FeatureConfig(K, ("loss",), (500, 100)))
    assert np.allclose(several.at((500, 100)).by_probe["loss"], two.by_probe["loss"], rtol=1e-3, atol=1e-5)
    assert np.allclose(several.at((500, 100)).residual_rms, two.residual_rms, rtol=1e-4)
    with pytest.raises(SettingsError, match="700"):
        several.at((100, 700))


def test_features_come_from_the_cache_the_second_time(truth, tmp_path):
    model = load_model(str(truth.pipeline))
    calls = []

    def report(stage, done, total):
        calls.append((stage, done, total))

    config = FeatureConfig(16, ("mean",), (100,))
    first = extract(model, truth.queries, config, cache=tmp_path, progress=report)
    assert calls == [("features", 7, 7)]
    again = extract(model, truth.queries, config, cache=tmp_path, progress=report)
    assert len(calls) == 1
    assert np.array_equal(first.by_probe["mean"], again.by_probe["mean"])
    extract(
        model, truth.queries, FeatureConfig(16, ("mean",), (100,), seed=1), cache=tmp_path, progress=report
    )
    extract(model, truth.queries, config, cache=tmp_path, journey=True, progress=report)
    assert [stage for stage, _, _ in calls] == ["features", "features", "journeys"]


def test_tables_know_their_dimension():
    assert FeatureTable({"loss": np.zeros((2, 3, 5), np.float32)}, np.zeros((2, 3)), (1, 2, 3)).dimension == 5
