"""Intervals of shares: replicates, their variance, and what an interval and a clear lead are."""

import numpy as np
import pytest

from das.intervals import Noise, ShareNoise, jackknife_variance, replicates_of


def test_replicates_of_timesteps() -> None:
    assert replicates_of(1) == replicates_of(2) == ()
    assert replicates_of(3) == ((1, 2), (0, 2), (0, 1))
    assert replicates_of(5) == ((0, 2, 4), (1, 3))
    for count in range(3, 12):
        used = [place for group in replicates_of(count) for place in group]
        assert set(used) == set(range(count))
        assert len({used.count(place) for place in range(count)}) == 1, "each as often as any other"


@pytest.mark.parametrize("count", [3, 10])
def test_the_variance_is_that_of_a_mean(count: int) -> None:
    """Of estimates that are plain means over timesteps, drawn again and again."""
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(4000, count))
    replicated = np.stack([draws[:, list(group)].mean(1) for group in replicates_of(count)])
    assert jackknife_variance(replicated).mean() == pytest.approx(1 / count, rel=0.08)


def test_the_line_through_variances() -> None:
    shares = np.linspace(0.01, 0.8, 50)
    found = Noise.of(shares, 0.001 + 0.002 * shares)
    assert (found.base, found.slope) == (pytest.approx(0.001), pytest.approx(0.002))
    falling = Noise.of(shares, 0.001 - 0.001 * shares)
    assert falling.slope == 0
    assert falling.base == pytest.approx((0.001 - 0.001 * shares).mean())
    steep = Noise.of(shares, 0.01 * np.maximum(shares - 0.3, 0))
    assert steep.base == 0
    assert steep.slope > 0
    same = Noise.of(np.full(5, 0.2), np.full(5, 0.01))
    assert same.deviation(0.2) == pytest.approx(0.1)
    nothing = Noise.of(np.zeros(5), np.zeros(5))
    assert nothing.deviation(0.5) == 0


def test_an_interval_contains_its_share_and_stays_a_share() -> None:
    noise = ShareNoise(works=Noise(0.0016, 0.001), creators=Noise(0.0001, 0.0), reach=2.5)
    for share in (0.0, 1e-9, 0.01, 0.3, 0.999, 1.0):
        low, high = noise.interval(share, "works")
        assert 0 <= low <= share <= high <= 1
        narrower = noise.interval(share, "creators")
        assert low <= narrower[0] <= narrower[1] <= high
    flat = ShareNoise(works=Noise(0.0016, 0.0), creators=Noise(0.0, 0.0), reach=2.5)
    assert flat.interval(0.25, "works") == pytest.approx((0.16, 0.36))
    assert flat.interval(0.25, "creators") == pytest.approx((0.25, 0.25))


def test_fewer_timesteps_reach_farther() -> None:
    noise = Noise(0.0004, 0.0)
    assert ShareNoise.of(noise, noise, 3).reach == 4.3
    assert ShareNoise.of(noise, noise, 10).reach == 2.5


def test_a_clear_lead() -> None:
    noise = ShareNoise(Noise(0.0016, 0.0), Noise(0.0016, 0.0), 2.5)
    assert noise.clear(0.36, 0.16 * 0.5)
    assert not noise.clear(0.36, 0.25)
    assert not noise.clear(0.2, 0.2)
