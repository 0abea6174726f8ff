"""Models trained again, and what is read from them: losses, removals, look-alikes, pictures."""

import numpy as np
import pytest
import torch

from das.errors import SettingsError
from measure.counterfactual import query_sets, ranked_highest
from measure.pictures import as_pixels
from measure.retraining import Retrainer
from measure.screening import recall, screened
from measure.training import LossConfig, losses_on, predictions_on, shared_noises


def test_training_again_without_nothing_gives_the_full_model(truth, tmp_path):
    retrainer = Retrainer.of(truth, tmp_path)
    again = retrainer.without(np.array([], np.int64))
    for a, b in zip(again.parameters(), retrainer.full().parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    assert np.allclose(retrainer.regenerate(again), truth.queries[retrainer.generated()], atol=1e-3)
    other = retrainer.without(np.arange(5))
    assert not np.allclose(retrainer.regenerate(other), truth.queries[retrainer.generated()], atol=1e-3)
    cached = retrainer.without(np.arange(5))
    assert all(torch.equal(a, b) for a, b in zip(other.parameters(), cached.parameters(), strict=True))
    assert len(list(tmp_path.iterdir())) == 2


def test_the_loss_is_the_error_of_the_predictions(truth):
    config = LossConfig(timesteps=3, draws=2, seed=1)
    network, pictures = Retrainer.of(truth).full(), torch.from_numpy(truth.queries)
    predicted = predictions_on(network, pictures, config).numpy()
    noises = shared_noises(pictures.shape[1:], config).numpy()
    expected = np.square(predicted - noises[:, None]).mean((0, 2, 3, 4))
    assert np.allclose(losses_on(network, pictures, config).numpy(), expected, rtol=1e-4)


def test_the_works_removed_have_the_largest_sums():
    scores = np.array([[1.0, 5, 0, 2], [1, 0, 4, 3]])
    assert ranked_highest(scores, 2).tolist() == [1, 3]
    assert [group.tolist() for group in query_sets(5, 2, 2)] == [[0, 1], [2, 3]]
    with pytest.raises(SettingsError, match="3 sets of 2"):
        query_sets(5, 2, 3)


def test_recall_is_the_part_of_the_top_among_the_look_alikes():
    scores = np.array([[9.0, 8, 7, 0, 0], [0, 0, 7, 8, 9]])
    similarity = np.array([[5.0, 4, 0, 1, 2], [5, 4, 0, 1, 2]])
    kept = screened(similarity, 2)
    assert kept.tolist() == [[True, True, False, False, False]] * 2
    assert recall(scores, kept, top=2) == pytest.approx(0.5)


def test_pictures_for_clip_are_grey_or_colour_bytes():
    grey = as_pixels(np.array([[[[-1.0, 1.0]]]]))
    assert grey[0].tolist() == [[[0, 0, 0], [255, 255, 255]]]
