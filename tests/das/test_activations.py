"""The probe `activation`: hidden states against what the blocks put out, one example at a time."""

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_gradients import images, tiny_model
from torch import Tensor, nn

from das.activations import MOST_STATES, Activations
from das.errors import ModelError, SettingsError
from das.gradients import FeatureConfig, FeatureExtractor
from das.methods import ACTIVATION
from das.models.ddpm import DDPMModel
from das.prng import standard_normal
from das.sketch import CountSketch

STATES = ("down_blocks.1", "mid_block", "up_blocks.0", "up_blocks.1", "conv_norm_out")


def config(**changes) -> FeatureConfig:
    options = {"dimension": 64, "probes": (ACTIVATION,), "timesteps": (0, 300, 900), "seed": 2} | changes
    return FeatureConfig(**options)


def block_outputs(model: DDPMModel, x_t: Tensor, t: int) -> dict[str, np.ndarray]:
    """What each block of the network puts out for one example, by the name of what takes it."""
    network, found = model.network, {}

    def keep(name: str):
        def hook(module: nn.Module, inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
            # A down block also hands on what its up block will want.
            found[name] = (output[0] if isinstance(output, tuple) else output).detach()[0].numpy()

        return hook

    blocks = [*network.down_blocks, network.mid_block, *network.up_blocks]
    handles = [block.register_forward_hook(keep(name)) for block, name in zip(blocks, STATES, strict=True)]
    with torch.no_grad():
        model.predict(x_t[None], torch.tensor([t]), {})
    for handle in handles:
        handle.remove()
    return found


def dense_features(model: DDPMModel, options: FeatureConfig, x0: Tensor) -> Tensor:
    """`Σ_l P_lᵀ a_l/‖a_l‖` by hand, with each P_l as a matrix: a forward pass for each example, timestep and draw."""
    matrices: dict[str, np.ndarray] = {}
    found = np.zeros((len(x0), len(options.timesteps), options.dimension))
    for i, image in enumerate(x0):
        for s, t in enumerate(options.timesteps):
            for draw in range(options.noise_draws):
                noise = torch.from_numpy(
                    standard_normal(options.seed, f"noise\n{t}\n{draw}", model.sample_shape)
                ).to(model.dtype)
                x_t = model.schedule.add_noise(image[None], noise[None], torch.tensor([t]))[0]
                for name, state in block_outputs(model, x_t, t).items():
                    if name not in matrices:
                        sketch = CountSketch(
                            options.dimension,
                            options.seed,
                            {f"activation {name}": state.shape},
                            dtype=torch.float64,
                        )
                        each = torch.eye(state.size, dtype=torch.float64).view(-1, *state.shape)
                        matrices[name] = sketch.sketch({f"activation {name}": each}).numpy()
                    flat = state.ravel().astype(np.float64)
                    found[i, s] += flat @ matrices[name] / np.linalg.norm(flat) / options.noise_draws
    return torch.from_numpy(found)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_activations_of_a_unet_equal_the_dense_reference(dtype, tolerance):
    model, options = tiny_model(dtype), config(noise_draws=2)
    got = FeatureExtractor(model, options, batch_size=5).features(images(3, dtype)).by_probe[ACTIVATION]
    expected = dense_features(model, options, images(3, dtype))
    assert float((got.double() - expected).norm()) <= tolerance * float(expected.norm())


def test_beside_gradients_both_are_what_they_are_alone():
    model, x0 = tiny_model(), images(2)
    both = FeatureExtractor(model, config(probes=("loss", ACTIVATION)), batch_size=4).features(x0)
    for name in ("loss", ACTIVATION):
        alone = FeatureExtractor(model, config(probes=(name,)), batch_size=4).features(x0)
        torch.testing.assert_close(both.by_probe[name], alone.by_probe[name], rtol=0, atol=0)
        torch.testing.assert_close(both.residual_rms, alone.residual_rms, rtol=0, atol=0)


def test_they_do_not_depend_on_batch_size_order_or_company():
    model, x0 = tiny_model(), images(4)
    whole = FeatureExtractor(model, config(), batch_size=12).features(x0).by_probe[ACTIVATION]
    for batch_size in (1, 7):
        turned = FeatureExtractor(model, config(), batch_size=batch_size).features(x0.flip(0))
        torch.testing.assert_close(turned.by_probe[ACTIVATION].flip(0), whole, rtol=1e-9, atol=1e-12)


def test_alone_they_take_no_backward_pass_and_no_parameters(monkeypatch):
    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("a backward pass")

    monkeypatch.setattr(torch.autograd, "grad", refuse)
    monkeypatch.setattr(Tensor, "backward", refuse)
    extractor = FeatureExtractor(tiny_model(), config())
    assert extractor.parameters == {}
    assert float(extractor.features(images(1)).by_probe[ACTIVATION].norm()) > 0


def test_hooks_are_gone_after_a_pass_and_the_network_is_as_it_was():
    model = tiny_model()
    model.network.train()
    FeatureExtractor(model, config()).features(images(1))
    assert model.network.training
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.network.modules())


class Blocks(nn.Module):
    """Blocks one after another on vectors (B, 6), as a deep transformer has them."""

    def __init__(self, count: int, *, mixing: bool = False) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(6, 6) for _ in range(count))
        self.norm_out = nn.LayerNorm(6)
        self.mixing = mixing

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = F.leaky_relu(block(x), 0.3)
            if self.mixing:
                x = x - x.mean(0, keepdim=True) / 2
        return self.norm_out(x)


def activations(network: nn.Module) -> Activations:
    x = torch.arange(12.0).view(2, 6) / 10
    return Activations(network, lambda count: network(x[:count]), dimension=32, seed=0)


@pytest.mark.parametrize("count", [1, 3, MOST_STATES, MOST_STATES + 1, 57])
def test_of_many_blocks_evenly_spaced_states_are_read_and_always_the_last(count):
    states = activations(Blocks(count)).states
    assert len(states) == min(count, MOST_STATES) or MOST_STATES / 2 < len(states) <= MOST_STATES
    assert states[-1] == "norm_out"
    places = [int(name.partition(".")[2]) for name in states[:-1]] + [count]
    assert len({b - a for a, b in pairwise(places)}) <= 1
    assert 0 not in places


@torch.no_grad()
def test_a_large_state_drowns_no_other():
    """Of two states one is ten thousand times as large, and an inner product is still the sum of their cosines."""
    torch.manual_seed(0)
    network, x = Blocks(2), torch.randn(2, 6)
    network.blocks[1].weight.mul_(1e4)
    reader = Activations(network, lambda count: network(x[:count]), dimension=4096, seed=0)
    with reader.recording() as feature:
        network(x)
        found = feature()
    small = F.leaky_relu(network.blocks[0](x), 0.3)
    large = F.leaky_relu(network.blocks[1](small), 0.3)
    cosines = [float(F.cosine_similarity(state[0], state[1], dim=0)) for state in (small, large)]
    assert abs(cosines[0]) > 0.1
    assert float(found[0] @ found[1]) == pytest.approx(sum(cosines), abs=1e-3)


@torch.no_grad()
def test_a_norm_beyond_half_precision_is_none_the_worse():
    network, x = Blocks(2), torch.ones(2, 6)
    network.blocks[0].weight.copy_(torch.eye(6))
    network.blocks[1].weight.copy_(4e4 * torch.eye(6))
    features = []
    for dtype in (torch.float32, torch.float16):
        network.to(dtype)
        given = x.to(dtype)
        reader = Activations(network, lambda n, given=given: network(given[:n]), 64, seed=0, dtype=dtype)
        with reader.recording() as feature:
            network(given)
            features.append(feature().float())
    large = network.blocks[1](network.blocks[0](given))
    assert torch.linalg.vector_norm(large[0]).isinf()
    assert torch.allclose(features[1], features[0], atol=0.01)


def test_a_network_without_blocks_is_refused():
    with pytest.raises(SettingsError, match="no blocks whose activations"):
        activations(nn.Sequential(nn.Linear(6, 6)))


def test_a_network_that_mixes_examples_is_refused():
    with pytest.raises(ModelError, match="mixes the examples"):
        activations(Blocks(3, mixing=True))
