"""Networks trained side by side learn what each learns alone; a course says all that a training takes."""

import numpy as np
import pytest
import torch

from measure.courses import Course, course_of, noise_of, stream_of
from measure.fleet import Fleet, train
from measure.training import TRAIN_TIMESTEPS, Recipe, new_scheduler, seed_of, start_of

RECIPE = Recipe(widths=(8, 16), steps=6, batch_size=4, learning_rate=1e-2)
IMAGES = torch.rand((10, 1, 8, 8), generator=torch.Generator().manual_seed(0)) * 2 - 1
NOISE = noise_of((RECIPE.batch_size, 1, 8, 8), seed=3)


def fleet(size: int, **options: float) -> Fleet:
    return Fleet(lambda: start_of((1, 8, 8), RECIPE, None), IMAGES, size=size, weight_decay=1e-2, **options)


def course(rows: list[int], steps: int = 6, repeats: np.ndarray | None = None) -> Course:
    return course_of(RECIPE, stream_of(np.array(rows), repeats), seed=3, steps=steps)


def weights(network: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten().clone() for parameter in network.parameters()])


def test_a_stream_shows_each_work_as_often_as_it_is_repeated():
    repeats = np.array([1, 3, 1, 2])
    assert stream_of(np.array([1, 2, 3]), repeats).tolist() == [1, 1, 1, 2, 3, 3]
    assert stream_of(np.array([2, 0])).tolist() == [2, 0]
    rows = course([0, 1, 2, 3], steps=7, repeats=repeats).rows.flatten().tolist()
    assert [rows.count(row) for row in range(4)] == [4, 12, 4, 8]  # four epochs of seven


def test_epochs_are_shuffled_and_laid_end_to_end():
    rows = course(list(range(10)), steps=5).rows.flatten()
    assert sorted(rows[:10].tolist()) == sorted(rows[10:].tolist()) == list(range(10))
    assert rows[:10].tolist() != rows[10:].tolist()


def test_courses_of_one_seed_share_timesteps_and_noises_whatever_their_works():
    long, short = course(list(range(10)), steps=6), course([3, 4], steps=4)
    assert torch.equal(long.times[:4], short.times)
    assert set(short.rows.flatten().tolist()) == {3, 4}
    assert torch.equal(NOISE(2), noise_of((4, 1, 8, 8), seed=3)(2))
    assert not torch.equal(NOISE(2), NOISE(3))
    assert long.times.max() < TRAIN_TIMESTEPS
    strata = (long.times * 4).div(TRAIN_TIMESTEPS, rounding_mode="floor")
    assert strata.sort(dim=1).values.tolist() == [[0, 1, 2, 3]] * 6


def test_each_of_a_fleet_learns_what_it_learns_alone_also_the_second_time():
    courses = [course([0, 1, 2, 3]), course([4, 5, 6], steps=4)]
    alone = [weights(fleet(1).train(1, [one], NOISE)[0]) for one in courses]
    many = fleet(2)
    many.train(7, courses[::-1], NOISE)
    together = [weights(network) for network in many.train(1, courses, NOISE)]
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))
    assert not torch.equal(*together)


def test_train_is_a_fleet_of_one():
    [network] = fleet(1).train(seed_of(3, "weights"), [course(list(range(10)))], NOISE)
    assert torch.equal(weights(network), weights(train(IMAGES, RECIPE, seed=3)))


def test_a_step_is_adamw_on_the_weighted_error_with_a_clipped_gradient_and_an_average():
    plain = course([0, 1, 2, 3], steps=3)
    factors = torch.tensor([[0.5, 1, 2, 4]] * 3)
    decays = torch.tensor([0.0, 0.5, 0.5], dtype=torch.float64)
    weighted = Course(plain.rows, plain.times, plain.rates, factors, decays)
    [found] = fleet(1, largest_gradient=0.1).train(1, [weighted], NOISE)

    torch.manual_seed(1)
    network, trained = start_of((1, 8, 8), RECIPE, None)
    optimizer = torch.optim.AdamW(trained, weight_decay=1e-2)
    average = None
    for step in range(3):
        x_t = new_scheduler().add_noise(IMAGES[plain.rows[step]], NOISE(step), plain.times[step])
        errors = (network(x_t, plain.times[step]).sample - NOISE(step)).square().mean((1, 2, 3))
        optimizer.zero_grad()
        (errors * factors[step]).mean().backward()
        torch.nn.utils.clip_grad_norm_(trained, 0.1)
        optimizer.param_groups[0]["lr"] = float(plain.rates[step])
        optimizer.step()
        now = weights(network)
        average = now if average is None else torch.lerp(average, now, 0.5)
    # Adam's first steps turn the last bit of a tiny gradient into a full step: most weights agree, not every one.
    assert (weights(found) - average).abs().mean() < 1e-5
    assert (now - average).abs().mean() > 1e-3


@pytest.mark.parametrize("given", [None, "report"])
def test_a_report_hears_of_every_step(given):
    heard: list[int] = []
    report = None if given is None else lambda step, network: heard.append(step)
    fleet(1).train(1, [course([0, 1], steps=3)], NOISE, report)
    assert heard == ([] if given is None else [1, 2, 3])
