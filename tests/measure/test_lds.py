"""The linear datamodeling score against SciPy and plain loops."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from measure.lds import (
    assess,
    ceiling,
    difference_interval,
    halvings,
    interval,
    lds,
    predictions,
    resampled,
    spearman,
)


@pytest.fixture
def generator():
    return np.random.default_rng(7)


def ranks_by_counting(values):
    """1, the values below, and half of the others that are equal; the last axis by a loop."""
    return [1 + sum(y < x for y in values) + (sum(y == x for y in values) - 1) / 2 for x in values]


def test_equal_values_share_the_mean_of_their_ranks(generator):
    a, b = generator.integers(0, 5, size=(2, 4, 3, 17))
    for place in np.ndindex(4, 3):
        expected = np.corrcoef(ranks_by_counting(a[place]), ranks_by_counting(b[place]))[0, 1]
        assert spearman(a, b)[place] == pytest.approx(expected)


@pytest.mark.parametrize("levels", [3, 10**9])
def test_spearman_is_scipys(generator, levels):
    a, b = generator.integers(0, levels, size=(2, 6, 30))
    expected = [spearmanr(x, y).statistic for x, y in zip(a, b, strict=True)]
    assert np.allclose(spearman(a, b), expected)


def test_a_constant_correlates_with_nothing():
    assert spearman(np.ones(5), np.arange(5)) == 0.0


def test_lds_is_a_loop_over_queries_and_subsets(generator):
    scores = generator.normal(size=(3, 12))
    members = generator.random((9, 12)) < 0.5
    losses = generator.normal(size=(9, 3))
    expected = []
    for query in range(3):
        predicted = [-sum(scores[query, i] for i in range(12) if subset[i]) for subset in members]
        expected.append(spearmanr(predicted, losses[:, query]).statistic)
    assert np.allclose(lds(scores, losses, members), expected)


def test_scores_that_cause_the_losses_get_the_highest_lds(generator):
    scores = generator.normal(size=(5, 40))
    members = generator.random((30, 40)) < 0.5
    losses = predictions(scores, members).T
    assert np.allclose(lds(scores, losses, members), 1.0)
    assert np.allclose(lds(-scores, losses, members), -1.0)


def test_the_interval_surrounds_the_score_and_narrows_with_more_subsets(generator):
    widths = []
    for subsets in (20, 200):
        truth = generator.normal(size=(10, subsets))
        predicted = truth + generator.normal(size=truth.shape)
        low, high = interval(predicted, truth.T, resamples=300, seed=1)
        assert low < spearman(predicted, truth).mean() < high
        assert (low, high) == interval(predicted, truth.T, resamples=300, seed=1)
        widths.append(high - low)
    assert widths[1] < widths[0]


def test_differences_are_a_loop_over_the_same_draws_of_subsets(generator):
    truth = generator.normal(size=(4, 15))
    one, other = (truth + generator.normal(size=truth.shape) * noise for noise in (0.5, 1.5))
    drawn = np.random.default_rng(3).integers(15, size=(40, 15))
    expected = [
        np.mean(
            [
                spearmanr(one[q, rows], truth[q, rows]).statistic
                - spearmanr(other[q, rows], truth[q, rows]).statistic
                for q in range(4)
            ]
        )
        for rows in drawn
    ]
    pairs = [resampled(predicted, truth.T, resamples=40, seed=3) for predicted in (one, other)]
    assert difference_interval(*pairs) == pytest.approx(tuple(np.quantile(expected, [0.025, 0.975])))


def test_a_difference_to_itself_is_nothing_and_the_other_way_round_is_the_opposite(generator):
    truth = generator.normal(size=(6, 20))
    one, other = (
        resampled(truth + generator.normal(size=truth.shape), truth.T, resamples=200, seed=seed)
        for seed in (5, 5)
    )
    assert difference_interval(one, one) == (0.0, 0.0)
    low, high = difference_interval(one, other)
    assert low < high
    assert difference_interval(other, one) == pytest.approx((-high, -low))


def test_differences_on_the_same_subsets_are_narrower_than_the_intervals(generator):
    truth = generator.normal(size=(10, 30))
    shared = truth + generator.normal(size=truth.shape)
    one, other = (shared + 0.2 * generator.normal(size=truth.shape) for _ in range(2))
    low, high = difference_interval(resampled(one, truth.T), resampled(other, truth.T))
    alone = interval(one, truth.T)
    assert high - low < 0.5 * (alone[1] - alone[0])


def test_the_ceiling_uses_subsets_that_have_both_seeds(generator):
    losses = generator.normal(size=(8, 2, 4))
    losses[5:, 1] = np.nan
    expected = np.mean([spearmanr(losses[:5, 0, q], losses[:5, 1, q]).statistic for q in range(4)])
    assert ceiling(losses) == pytest.approx(expected)
    losses[2:, 1] = np.nan
    assert ceiling(losses) is None


def test_halvings_are_seeded_and_share_no_subset():
    for choose, report in halvings(9, splits=5, seed=3):
        assert sorted([*choose, *report]) == list(range(9))
    assert all(
        np.array_equal(a, b)
        for one, two in zip(halvings(9, seed=3), halvings(9, seed=3), strict=True)
        for a, b in zip(one, two, strict=True)
    )


def test_options_are_chosen_on_the_other_half(generator):
    truth = generator.normal(size=(20, 40))
    noise = generator.normal(size=(3, 20, 40))
    predicted = truth + noise * np.array([4.0, 0.5, 2.0])[:, None, None]
    found = assess(predicted, predicted[2], truth.T)
    assert found.oracle_option == 1
    assert found.chosen == pytest.approx(found.oracle)
    assert found.lds == pytest.approx(found.curve[2])
    assert found.lds < found.oracle


def test_choosing_among_noise_gains_nothing(generator):
    truth, noise = generator.normal(size=(2, 1, 12))
    predicted = generator.normal(size=(50, 1, 12))
    found = assess(predicted, noise, truth.T, splits=50)
    assert found.chosen < found.oracle
