"""Shares of groups from samples: without bias, with intervals that hold, honest where little or nothing was drawn."""

import numpy as np
import pytest

from das.rights.holders import Holders
from das.sampled import Sampled

COUNT, DRAWN, FOUND = 20_000, 2_000, 300
SIZES = np.array([8_000, 4_000, 3_000, 2_000, 1_500, 800, 400, 200, 60, 25, 10, 5])


def world(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes and shares (N,) of works whose scores are squares, as das-block's, of other sizes in each group."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(len(SIZES)), SIZES)
    scores = np.square(rng.normal(size=COUNT)) * rng.uniform(0.5, 2, len(SIZES))[codes]
    return codes, scores / scores.sum()


def estimated(codes: np.ndarray, shares: np.ndarray, seed: int) -> Sampled:
    found = np.sort(np.argsort(-shares)[:FOUND])
    drawn = np.random.default_rng([seed, 9]).choice(COUNT, DRAWN, replace=False)
    drawn = drawn[~np.isin(drawn, found)]
    known = np.bincount(codes[found], shares[found], len(SIZES))
    unknown = SIZES - np.bincount(codes[found], minlength=len(SIZES))
    return Sampled.of(known, unknown, codes[drawn], shares[drawn], 1 - known.sum())


def test_estimates_are_unbiased_and_their_intervals_hold() -> None:
    codes, shares = world(0)
    truth = np.bincount(codes, shares)
    found, inside, widths = [], [], []
    for seed in range(400):
        estimate = estimated(codes, shares, seed)
        intervals = np.array([estimate.interval(code) for code in range(len(SIZES))])
        found.append(estimate.shares)
        inside.append((intervals[:, 0] <= truth) & (truth <= intervals[:, 1]))
        widths.append(np.diff(intervals, axis=1)[:, 0])
        assert estimate.shares.sum() == pytest.approx(1, abs=1e-12)
        assert (intervals[:, 0] <= estimate.shares + 1e-12).all()
        assert (estimate.shares <= intervals[:, 1] + 1e-12).all()
    error = np.std(found, axis=0) / np.sqrt(len(found))
    often = SIZES >= 200  # of smaller ones sometimes nothing is drawn, and the mean work stands in
    assert (np.abs(np.mean(found, axis=0) - truth)[often] < 4 * error[often]).all()
    held = np.mean(inside, axis=0)
    assert held.min() >= 0.9
    # Not by being wide: of groups of which a hundred or more are drawn, about the normal interval.
    large = SIZES >= 1_500
    assert (np.mean(widths, axis=0)[large] < 1.4 * 2 * 1.96 * np.std(found, axis=0)[large]).all()


def test_a_group_of_which_nothing_was_drawn_isnt_told_as_nothing() -> None:
    sampled = Sampled.of(
        np.zeros(2), np.array([900, 100]), np.zeros(50, np.int64), np.full(50, 1e-3), rest=1.0
    )
    assert sampled.shares == pytest.approx([0.9, 0.1])
    low, high = sampled.interval(1)
    assert low == 0
    assert high >= 0.1 - 1e-12


def test_works_without_influence_have_the_rule_of_three() -> None:
    """Thirty works of a large group that hold nothing: what the others may hold is bounded as a part of them is."""
    codes = np.concatenate([np.zeros(30, np.int64), np.ones(30, np.int64)])
    shares = np.concatenate([np.zeros(30), np.full(30, 1e-6)])
    sampled = Sampled.of(np.zeros(2), np.array([10**6, 10**6]), codes, shares, rest=1.0)
    _, high = sampled.interval(0)
    part = 1 - 0.025 ** (1 / 30)
    assert high == pytest.approx(part / (1 + part), rel=0.02)
    assert sampled.interval(0)[0] == 0
    # What these may hold, the others may lack.
    assert sampled.interval(1) == (pytest.approx(1 - high), 1)


@pytest.mark.parametrize("little", [0.0, 1e-9])
def test_a_group_isnt_sure_of_all_because_none_of_the_others_was_seen_with_anything(little: float) -> None:
    codes = np.concatenate([np.zeros(500, np.int64), np.ones(3, np.int64)])
    shares = np.concatenate([np.full(500, 1e-3), np.full(3, little)])
    low, high = Sampled.of(np.zeros(2), np.array([700, 300]), codes, shares, rest=1.0).interval(0)
    assert low < 0.85
    assert high > 0.999


def test_what_was_drawn_whole_is_known() -> None:
    codes, shares = np.array([0, 0, 1]), np.array([0.2, 0.3, 0.5])
    sampled = Sampled.of(np.zeros(2), np.array([2, 1]), codes, shares, rest=1.0)
    assert sampled.shares == pytest.approx([0.5, 0.5])
    assert sampled.interval(0) == pytest.approx((0.5, 0.5))


def test_rights_holders_are_told_from_the_texts_that_name_them() -> None:
    codes, shares = world(1)
    texts = [f"Text {code}" for code in range(len(SIZES))]
    texts[0], texts[1] = "Ada 60%; Eve 40%", "Eve"
    holders = Holders.of(texts)
    truth = holders.totals(np.bincount(codes, shares))
    inside = []
    for seed in range(100):
        estimate = estimated(codes, shares, seed).by_holder(holders)
        assert estimate.shares.sum() == pytest.approx(1, abs=1e-12)
        intervals = [estimate.interval(code) for code in range(len(holders.names))]
        inside.append([low <= true <= high for (low, high), true in zip(intervals, truth, strict=True)])
    assert np.mean(inside, axis=0).min() >= 0.88
