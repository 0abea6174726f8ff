"""A tiny ground truth and a study of it, for every test that takes one."""

import numpy as np
import pytest

from measure.plan import Plan
from measure.scores import Options, Study
from measure.source import Source
from measure.subsets import make_truth
from measure.training import LossConfig, Recipe

TIMESTEPS = (0, 100, 300, 500)
K = 64


@pytest.fixture(scope="session")
def truth(tmp_path_factory):
    pictures = np.random.default_rng(0).integers(0, 256, size=(30, 8, 8, 1), dtype=np.uint8)
    plan = Plan(
        count=20,
        validation=3,
        generated=4,
        subsets=8,
        repeated=4,
        checkpoints=1,
        sampling_steps=3,
        recipe=Recipe(widths=(8, 16), steps=3, full_steps=6, batch_size=4),
        losses=LossConfig(timesteps=2, draws=1),
    )
    return make_truth(
        Source(pictures, np.zeros(30), None, None), tmp_path_factory.mktemp("truth") / "truth", plan
    )


@pytest.fixture(scope="session")
def study(truth, tmp_path_factory):
    return Study(
        truth, Options(TIMESTEPS, K, cache=tmp_path_factory.mktemp("cache"), feature_dtype="float32")
    )
