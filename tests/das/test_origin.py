"""Pictures taken back to noise, and what is told of it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from das.models import DiffusionModel, load_model
from das.origin import STATISTICS, STEPS, origin_statistics
from das.trajectories import backwards, invert
from tests.conftest import make_picture


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> DiffusionModel:
    return load_model(str(tiny_model))


@pytest.fixture(scope="module")
def pictures(model: DiffusionModel) -> Tensor:
    return model.encode([make_picture(number) for number in range(4)])


def test_the_way_back_is_the_inversion(model: DiffusionModel, pictures: Tensor) -> None:
    """With as many steps as `invert` takes, what the model sees on the way is what it sees there."""
    steps = 50
    grid = [step * model.schedule.num_train_timesteps // steps for step in range(steps)]
    x0 = pictures.to(model.dtype)
    seen = invert(model, x0, {}, grid)
    _, errors = backwards(model, x0, {}, steps)
    expected = (seen - x0[:, None]).flatten(2).square().mean(2).sqrt()
    torch.testing.assert_close(errors, expected, rtol=1e-4, atol=1e-6)


def test_the_company_changes_nothing(model: DiffusionModel, pictures: Tensor) -> None:
    together = origin_statistics(model, pictures, {})
    alone = np.concatenate([origin_statistics(model, one[None], {}) for one in pictures])
    assert together.shape == (4, STATISTICS)
    np.testing.assert_allclose(together, alone, rtol=1e-3, atol=1e-3)


def test_each_picture_has_its_own(model: DiffusionModel, pictures: Tensor) -> None:
    told = origin_statistics(model, pictures, {})
    assert len(np.unique(told.round(6), axis=0)) == len(told)


@pytest.mark.parametrize("value", [-1.0, 0.0, 1.0])
def test_flat_pictures_have_numbers_too(model: DiffusionModel, value: float) -> None:
    told = origin_statistics(model, torch.full((1, *model.sample_shape), value), {})
    assert np.isfinite(told).all()


def test_it_takes_one_forward_pass_for_each_step(model: DiffusionModel, pictures: Tensor) -> None:
    passes = []
    handle = model.network.register_forward_hook(lambda *_: passes.append(1))
    try:
        origin_statistics(model, pictures, {})
    finally:
        handle.remove()
    assert len(passes) == STEPS
