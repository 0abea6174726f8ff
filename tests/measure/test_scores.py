"""The study's vectorised scores against the library's kernel and plain loops."""

import numpy as np
import pytest
import torch

from das.estimators import das_scores, residual_weights
from das.gradients import FeatureConfig
from das.kernel import normalised
from das.models import load_model
from measure.curves import dimensions, fewer
from measure.features import extract
from measure.methods import GRADIENT_PROBES, Variant
from measure.rows import Comparison
from measure.scores import Options, Skipped, Study

TIMESTEPS = (0, 100, 300, 500)
K = 64


def test_das_is_the_papers_formula_on_the_studys_features(study):
    works, queries = study.features(GRADIENT_PROBES)
    found = study.scores(Variant("das", ("mean",), normalised=True), 0.1)
    rows = normalised(torch.from_numpy(np.array(works.by_probe["mean"]))).mean(1).double()
    asked = normalised(torch.from_numpy(np.array(queries.by_probe["mean"]))).mean(1).double()
    kernel = rows.T @ rows
    solved = torch.linalg.solve(kernel + 0.1 * kernel.trace() / 20 * torch.eye(K), rows.T)
    residuals = residual_weights(works.residual_rms, np.ones(20))
    leverage = (rows * solved.T).sum(1).numpy()
    expected = das_scores((asked @ solved).numpy(), leverage, residuals, np.ones(20), np.ones(20))
    assert np.allclose(found, expected, rtol=1e-3, atol=1e-9)


def test_the_sum_of_probes_weighs_them_alike(study):
    pair = study.scores(Variant("das-block", ("loss", "random"), normalised=True), 0.1)
    expected = 0
    for probe in ("loss", "random"):
        alone = study.scores(Variant("das-block", (probe,), normalised=True), 0.1)
        spectrum = study.spectrum(probe, "block", True, TIMESTEPS, K)
        expected = expected + alone / spectrum.mean_square(0.1)
    assert np.allclose(pair, expected)


def test_checkpoints_are_averaged(truth, study):
    checkpoint = truth.directory / "checkpoints" / "step-000003"
    several = Study(truth, Options(TIMESTEPS, K, checkpoints=(checkpoint,), feature_dtype="float32"))
    found = several.scores(Variant("tracincp", ("loss",)))
    expected = 0
    for directory in (truth.pipeline, checkpoint):
        model = load_model(str(directory))
        config = FeatureConfig(K, ("loss",), TIMESTEPS)
        works, queries = (
            extract(model, images, config).by_probe["loss"].mean(1) for images in (truth.works, truth.queries)
        )
        expected = expected + queries.astype(float) @ works.T.astype(float) / 2
    assert np.allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    row = Comparison(several).row(Variant("gas", ("loss",)))
    assert row["forward_passes"] == row["backward_passes"] == 2 * len(TIMESTEPS)
    with pytest.raises(Skipped):
        study.scores(Variant("gas", ("loss",)))


def test_a_narrowed_study_shares_the_features(study):
    variant = Variant("das-block", ("loss",), normalised=True)
    narrow = study.narrowed((100, 300), K // 2)
    row = Comparison(narrow).row(variant)
    assert (row["timesteps"], row["dimension"], row["backward_passes"]) == ([100, 300], K // 2, 2)
    assert narrow.features(GRADIENT_PROBES)[0] is study.features(GRADIENT_PROBES)[0]
    assert dimensions(512) == [64, 128, 256, 512]
    assert fewer((0, 100, 200, 300)) == [(0,), (0, 100), (0, 100, 200), (0, 200), (0, 100, 200, 300)]
