"""The count sketch: its definition, its bound, and what it may depend on."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from das.errors import SettingsError
from das.prng import random_words, standard_normal
from das.sketch import CountSketch

SHAPES = {"conv.weight": (8, 4, 3, 3), "conv.bias": (8,), "norm.weight": (8,)}


def gradients(batch: int, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {n: torch.randn(batch, *s, generator=generator, dtype=torch.float64) for n, s in SHAPES.items()}


def test_equals_the_definition_written_as_a_loop():
    dimension, seed = 7, 3
    sketch = CountSketch(dimension, seed, SHAPES, dtype=torch.float64).sketch(gradients(2))
    expected = np.zeros((2, dimension))
    for name, gradient in gradients(2).items():
        words = random_words(seed, f"sketch\n{name}\n{SHAPES[name]}", gradient[0].numel())
        for j, word in enumerate(words.tolist()):
            bucket, sign = ((word >> 32) * dimension) >> 32, -1 if word & 1 else 1
            expected[:, bucket] += sign * gradient.flatten(1)[:, j].numpy()
    np.testing.assert_allclose(sketch.numpy(), expected, rtol=0, atol=1e-12)


def test_inner_products_are_kept_without_bias_and_within_the_bound():
    dimension, rounds = 64, 400
    pair = gradients(2, seed=5)
    flat = torch.cat([g.flatten(1) for g in pair.values()], 1).numpy()
    exact = float(flat[0] @ flat[1])
    bound = (flat[0] @ flat[0]) * (flat[1] @ flat[1]) + exact**2
    got = np.array(
        [
            float(np.dot(*CountSketch(dimension, s, SHAPES, dtype=torch.float64).sketch(pair).numpy()))
            for s in range(rounds)
        ]
    )
    variance = bound / dimension
    # Five standard errors for the mean; the variance's own estimate is good to about 7 % with 400 rounds.
    assert abs(got.mean() - exact) < 5 * np.sqrt(variance / rounds)
    assert np.square(got - exact).mean() < 1.3 * variance
    assert np.square(got - exact).mean() > 0.5 * variance * (1 - 1 / dimension)


def test_is_linear_and_independent_of_the_other_parameters_and_their_order():
    whole = CountSketch(32, 1, SHAPES, dtype=torch.float64)
    parts = gradients(3)
    backwards = dict(reversed(list(SHAPES.items())))
    alone = sum(CountSketch(32, 1, {n: SHAPES[n]}, dtype=torch.float64).sketch({n: parts[n]}) for n in SHAPES)
    torch.testing.assert_close(whole.sketch(parts), alone, rtol=0, atol=1e-12)
    turned = CountSketch(32, 1, backwards, dtype=torch.float64).sketch({n: parts[n] for n in backwards})
    torch.testing.assert_close(whole.sketch(parts), turned, rtol=0, atol=1e-12)


@pytest.mark.parametrize("change", [{"seed": 2}, {"name": "other"}, {"shape": (4, 8, 3, 3)}])
def test_depends_on_seed_name_and_shape(change):
    def first(seed=1, name="a", shape=(8, 4, 3, 3)):
        flat = torch.arange(288, dtype=torch.float64)
        return CountSketch(50, seed, {name: shape}, dtype=torch.float64).sketch({name: flat.view(1, *shape)})

    assert not torch.equal(first(), first(**change))


def test_is_the_same_in_another_process():
    script = (
        "import torch; from das.sketch import CountSketch; from das.prng import standard_normal;"
        "print(CountSketch(5, 9, {'p': (40,)}).sketch({'p': torch.arange(40.)[None]}).tolist(),"
        " standard_normal(4, 'noise', (3,)).tolist())"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    here = CountSketch(5, 9, {"p": (40,)}).sketch({"p": torch.arange(40.0)[None]}).tolist()
    assert told.split() == f"{here} {standard_normal(4, 'noise', (3,)).tolist()}".split()


def test_values_are_pinned_so_that_old_indexes_stay_readable():
    assert CountSketch(5, 9, {"p": (40,)}).sketch({"p": torch.arange(40.0)[None]}).tolist() == PINNED_SKETCH
    np.testing.assert_allclose(standard_normal(4, "noise", (3,)), PINNED_NORMAL, rtol=1e-12)


PINNED_SKETCH = [[9.0, -17.0, -125.0, 8.0, 45.0]]
PINNED_NORMAL = [-0.01167210981762877, -0.06446099039313202, 0.35828416520534834]


def test_normal_values_are_normal():
    values = standard_normal(0, "check", (200_000,))
    assert abs(values.mean()) < 0.01
    assert abs(values.std() - 1) < 0.01
    assert abs(np.mean(values**4) - 3) < 0.1


@pytest.mark.parametrize("dimension", [0, -1, 2**31])
def test_refuses_an_impossible_dimension(dimension):
    with pytest.raises(SettingsError, match="dimension must be between"):
        CountSketch(dimension, 0, SHAPES)
