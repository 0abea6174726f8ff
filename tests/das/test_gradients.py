"""Hooked, batched per-example gradients against a plain loop of autograd over examples."""

import pytest
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from das.errors import ModelError, SettingsError
from das.gradients import FeatureConfig, FeatureExtractor, PerExampleGradients, attributed_parameters
from das.layers import GRADIENT_BYTES, examples_at_once
from das.methods import ACTIVATION, PROBES
from das.models.ddpm import DDPMModel
from das.probes import Point, direction_of
from das.sketch import CountSketch

BATCH = 3
GRADIENT_PROBES = tuple(probe for probe in PROBES if probe != ACTIVATION)


class Tokens(nn.Module):
    """Pictures as token indices, so that an embedding can be the first layer."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner((x[:, 0, 0] * 10).long() % 5)


class Sequence(nn.Module):
    """Pictures as sequences (B, positions, channels) for layers that want them."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.flatten(2).transpose(1, 2))


class Shared(nn.Module):
    """One layer called twice, and one weight that two layers share."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Conv2d(4, 4, 3, padding=1)
        self.first, self.second = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(self.twice(torch.tanh(self.twice(x))))))


class Odd(nn.Module):
    """What has no rule: a raw parameter, a transposed convolution, a layer fed with one row for the whole batch, a
    subclass with a forward of its own, a weight used by hand, a layer never called."""

    class Doubled(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return F.linear(input, 2 * self.weight, self.bias)

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.full((4, 1, 1), 0.7))
        self.transposed = nn.ConvTranspose2d(4, 4, 3, padding=1)
        self.common = nn.Linear(4, 4)
        self.doubled = self.Doubled(6, 6)
        self.by_hand = nn.Linear(6, 6)
        self.unused = nn.Linear(2, 2)
        self.plain = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        offset = self.common(torch.ones(1, 4, dtype=x.dtype))[..., None, None]
        hidden = self.transposed(torch.tanh(self.plain(x * self.gain) + offset))
        return F.linear(self.doubled(hidden), self.by_hand.weight, self.by_hand.bias)


def norm_with_statistics() -> nn.Module:
    norm = nn.BatchNorm2d(4)
    with torch.no_grad():
        norm.running_mean.copy_(torch.arange(4.0))
        norm.running_var.copy_(torch.arange(4.0) + 0.5)
    return norm


NETWORKS = {
    "linear": lambda: Sequence(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3, bias=False))),
    "conv": lambda: nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.Tanh(), nn.Conv2d(6, 4, 3, padding=1)),
    "conv-strided": lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1),
    "conv-few-positions": lambda: nn.Conv2d(4, 6, (2, 3), stride=(2, 3), padding=(0, 1)),
    "conv-grouped": lambda: nn.Conv2d(4, 8, 3, groups=2, padding=1),
    "conv-dilated": lambda: nn.Conv2d(4, 6, 3, dilation=2, padding=2, bias=False),
    "conv-pointwise": lambda: nn.Sequential(nn.Conv2d(4, 6, 1), nn.Tanh(), nn.Conv2d(6, 2, 1)),
    "conv-circular": lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"),
    "conv1d": lambda: Sequence(nn.Conv1d(36, 5, 3, padding=1)),
    "conv3d": lambda: nn.Sequential(nn.Unflatten(1, (2, 2)), nn.Conv3d(2, 3, (2, 3, 3), padding=(0, 1, 1))),
    "group-norm": lambda: nn.Sequential(nn.Conv2d(4, 4, 1), nn.GroupNorm(2, 4)),
    "batch-norm": lambda: nn.Sequential(nn.Conv2d(4, 4, 1), norm_with_statistics()),
    "layer-norm": lambda: Sequence(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2))),
    "rms-norm": lambda: Sequence(nn.Sequential(nn.Linear(4, 4), nn.RMSNorm(4, eps=1e-5), nn.Linear(4, 2))),
    "embedding": lambda: Tokens(nn.Sequential(nn.Embedding(5, 3, padding_idx=1), nn.Linear(3, 2))),
    "attention": lambda: Sequence(Attention(4, heads=2, dim_head=3, bias=True, norm_num_groups=2)),
    "shared": Shared,
    "odd": Odd,
}
SLOW_PATH = {"odd": ["gain", "transposed.weight", "transposed.bias", "common.weight", "common.bias"]}


def network_and_input(kind: str, dtype: torch.dtype) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    network = NETWORKS[kind]().to(dtype).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network, torch.randn(BATCH, 4, 6, 6, dtype=dtype)


def batched(network: nn.Module, x: Tensor, directions: list[Tensor]) -> list[dict[str, Tensor]]:
    parameters = dict(network.named_parameters())
    gradients = PerExampleGradients(network, parameters)
    gradients.settle(lambda: network(x[:2]))
    found: list[dict[str, Tensor]] = []

    def sink(name: str, gradient: Tensor, rows: slice) -> None:
        whole = found[-1].setdefault(name, gradient.new_zeros(len(x), *gradient.shape[1:]))
        whole[rows] += gradient

    with gradients.recording(sink) as backward:
        output = network(x)
        for place, direction in enumerate(directions):
            found.append({})
            backward(output, direction, last=place + 1 == len(directions))
    return found


def one_by_one(network: nn.Module, x: Tensor, direction: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*network.named_parameters(), strict=True)
    rows = []
    for b in range(len(x)):
        scalar = (network(x[b : b + 1]) * direction[b : b + 1]).sum()
        rows.append(torch.autograd.grad(scalar, parameters, materialize_grads=True))
    return {name: torch.stack([row[i] for row in rows]) for i, name in enumerate(names)}


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_every_layer_kind_equals_a_loop_over_examples(kind, dtype, tolerance):
    network, x = network_and_input(kind, dtype)
    directions = [torch.randn_like(network(x)) for _ in range(2)]
    for found, direction in zip(batched(network, x, directions), directions, strict=True):
        for name, expected in one_by_one(network, x, direction).items():
            scale = max(float(expected.norm()), 1e-3)
            assert (
                float((found.get(name, torch.zeros_like(expected)) - expected).norm()) <= tolerance * scale
            ), name


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("size", [1, 2 * 8 * 4 * 9 * 8])
def test_how_many_examples_gradients_are_formed_together_changes_nothing(kind, size, monkeypatch):
    network, x = network_and_input(kind, torch.float64)
    direction = torch.randn_like(network(x))
    (together,) = batched(network, x, [direction])
    monkeypatch.setattr("das.layers.GRADIENT_BYTES", size)
    (apart,) = batched(network, x, [direction])
    assert apart.keys() == together.keys()
    for name, expected in together.items():
        torch.testing.assert_close(apart[name], expected, rtol=1e-10, atol=1e-12)


def test_a_small_layers_gradients_are_formed_for_all_examples_and_a_large_ones_for_some():
    g = torch.zeros(64, 8)
    assert examples_at_once(nn.Linear(8, 8), g) == 64
    assert examples_at_once(nn.Linear(1024, 1024), g) == GRADIENT_BYTES // (4 * 1024**2)
    assert examples_at_once(nn.Linear(4096, 4096), g) == 1


def test_parameters_without_a_rule_are_named_and_the_others_keep_the_fast_path(caplog):
    network, x = network_and_input("odd", torch.float64)
    gradients = PerExampleGradients(network, dict(network.named_parameters()))
    gradients.settle(lambda: network(x[:2]))
    assert not {"plain.weight", "plain.bias"} & gradients.fallback.keys()
    for name in [*SLOW_PATH["odd"], "doubled.weight", "by_hand.weight", "unused.weight"]:
        assert name in gradients.fallback
        assert name in caplog.text


def test_a_network_that_mixes_examples_is_refused_with_the_parameters_names():
    class Mixing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            hidden = torch.tanh(self.layer(x))
            return hidden - hidden.mean(0, keepdim=True)

    network, x = Mixing(), torch.randn(2, 4, 6, 6)
    gradients = PerExampleGradients(network, dict(network.named_parameters()))
    with pytest.raises(ModelError, match=r"layer\.weight"):
        gradients.settle(lambda: network(x))


def test_hooks_and_flags_are_gone_after_a_pass():
    network, x = network_and_input("odd", torch.float32)
    network.gain.requires_grad_(False)
    network.train()
    batched(network, x, [torch.ones(BATCH, 4, 6, 6)])
    assert network.training
    assert not network.gain.requires_grad
    assert network.plain.weight.requires_grad
    assert all(p.grad is None for p in network.parameters())
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in network.modules())


def tiny_model(
    dtype: torch.dtype = torch.float64, prediction: str = "epsilon", scheduler=DDPMScheduler
) -> DDPMModel:
    torch.manual_seed(1)
    unet = UNet2DModel(
        sample_size=8,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        attention_head_dim=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )
    return DDPMModel(unet.to(dtype), scheduler(prediction_type=prediction))


def config(**changes) -> FeatureConfig:
    options = {"dimension": 64, "probes": GRADIENT_PROBES, "timesteps": (0, 300, 900), "seed": 2} | changes
    return FeatureConfig(**options)


def images(count: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(3), dtype=dtype) * 2 - 1


def dense_features(model: DDPMModel, options: FeatureConfig, x0: Tensor) -> dict[str, Tensor]:
    """Eq. 11 by hand: for each image, timestep and draw a forward pass of its own, autograd, sketch."""
    from das.prng import standard_normal

    parameters, schedule = attributed_parameters(model.network, options.attributed), model.schedule
    sketch = CountSketch(
        options.dimension, options.seed, {n: tuple(p.shape) for n, p in parameters.items()}, dtype=model.dtype
    )
    found = {
        name: torch.zeros(len(x0), len(options.timesteps), options.dimension, dtype=model.dtype)
        for name in GRADIENT_PROBES
    }
    for i, image in enumerate(x0):
        for s, t in enumerate(options.timesteps):
            for draw in range(options.noise_draws):
                noise = standard_normal(options.seed, f"noise\n{t}\n{draw}", model.sample_shape)
                noise = torch.from_numpy(noise).to(model.dtype)[None]
                time = torch.tensor([t])
                output = model.predict(schedule.add_noise(image[None], noise, time), time, {})
                point = Point(output.detach(), schedule.target(image[None], noise, time), options.seed)
                for name in options.probes:
                    scalar = (output * direction_of(name)(point)).sum()
                    plain = torch.autograd.grad(scalar, list(parameters.values()), retain_graph=True)
                    row = {n: g[None] for n, g in zip(parameters, plain, strict=True)}
                    found[name][i, s] += sketch.sketch(row)[0] / options.noise_draws
    return {name: found[name] for name in options.probes}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_features_of_a_unet_equal_the_dense_reference_for_every_probe(dtype, tolerance):
    model, options = tiny_model(dtype), config(noise_draws=2)
    got = FeatureExtractor(model, options, batch_size=5).features(images(2, dtype))
    for name, expected in dense_features(model, options, images(2, dtype)).items():
        assert float((got.by_probe[name] - expected).norm()) <= tolerance * float(expected.norm()), name


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_residuals_and_loss_probe_follow_the_prediction_type(prediction):
    model, options = tiny_model(prediction=prediction, scheduler=DDIMScheduler), config(probes=("loss",))
    got = FeatureExtractor(model, options).features(images(1))
    noise = FeatureExtractor(model, options).noise[:, 0]
    alpha = DDIMScheduler().alphas_cumprod.double()[torch.tensor(options.timesteps)].view(-1, 1, 1, 1)
    x0 = images(1).expand(3, -1, -1, -1)
    x_t = alpha.sqrt() * x0 + (1 - alpha).sqrt() * noise
    target = {
        "epsilon": noise,
        "sample": x0,
        "v_prediction": alpha.sqrt() * noise - (1 - alpha).sqrt() * x0,
    }[prediction]
    residual = model.network(x_t, torch.tensor(options.timesteps)).sample - target
    torch.testing.assert_close(
        got.residual_rms[0], residual.square().mean((1, 2, 3)).sqrt(), rtol=1e-6, atol=0
    )


def test_features_do_not_depend_on_batch_size_order_or_company():
    model, x0 = tiny_model(), images(4)
    whole = FeatureExtractor(model, config(), batch_size=12).features(x0)
    single = FeatureExtractor(model, config(), batch_size=1).features(x0)
    turned = FeatureExtractor(model, config(), batch_size=7).features(x0.flip(0))
    alone = FeatureExtractor(model, config(), batch_size=7).features(x0[2:3])
    for name in GRADIENT_PROBES:
        torch.testing.assert_close(single.by_probe[name], whole.by_probe[name], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(turned.by_probe[name].flip(0), whole.by_probe[name], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(alone.by_probe[name][0], whole.by_probe[name][2], rtol=1e-9, atol=1e-12)


def test_progress_counts_every_pair():
    seen: list[tuple[int, int]] = []
    FeatureExtractor(tiny_model(), config(), batch_size=4).features(
        images(2), progress=lambda *c: seen.append(c)
    )
    assert seen == [(4, 6), (6, 6)]


def test_a_regular_expression_attributes_a_part():
    model = tiny_model()
    options = config(attributed=r"^up_blocks", probes=("loss",))
    extractor = FeatureExtractor(model, options)
    assert extractor.parameters
    assert all(name.startswith("up_blocks") for name in extractor.parameters)
    expected = dense_features(model, options, images(1))["loss"]
    torch.testing.assert_close(
        extractor.features(images(1)).by_probe["loss"], expected, rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attributed": "nothing_like_it"}, "matches no parameter"),
        ({"attributed": "("}, "not a regular expression"),
        ({"probes": ("louds",)}, "no probe 'louds'"),
        ({"timesteps": (1000,)}, "0 to 999"),
        ({"timesteps": ()}, "0 to 999"),
    ],
)
def test_options_that_cannot_be_used_are_refused(change, message):
    with pytest.raises(SettingsError, match=message):
        FeatureExtractor(tiny_model(), config(**change))


def test_another_clean_picture_for_each_timestep():
    model, options = tiny_model(), config(probes=("loss",))
    x0 = images(2)
    extractor = FeatureExtractor(model, options)
    steps = len(options.timesteps)
    shared = extractor.features(x0).by_probe["loss"]
    torch.testing.assert_close(
        extractor.features(x0[:, None].expand(-1, steps, -1, -1, -1)).by_probe["loss"], shared
    )
    mixed = torch.stack([x0[0]] + [x0[1]] * (steps - 1))[None]
    got = extractor.features(mixed).by_probe["loss"][0]
    torch.testing.assert_close(got[0], shared[0, 0])
    torch.testing.assert_close(got[1:], shared[1, 1:])


def test_named_parts_of_a_network():
    network = tiny_model().network
    assert set(attributed_parameters(network, "auto")) == set(attributed_parameters(network, "all"))
    assert all(name.startswith("up_blocks") for name in attributed_parameters(network, "up-blocks"))
    with pytest.raises(SettingsError, match="matches no parameter"):
        attributed_parameters(network, "lora")


def test_a_bias_whose_gradient_a_norm_takes_away_is_no_mistake() -> None:
    """Its true gradient is zero; what comes out is the rounding error of much larger terms."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(8, 8), nn.Conv2d(8, 3, 3))
    with torch.no_grad():
        network[2].weight.mul_(1e4)
    x = torch.randn(2, 3, 16, 16)
    gradients = PerExampleGradients(network, dict(network.named_parameters()))
    gradients.settle(lambda: network(x))
    assert not gradients.fallback


class FirstChannel(DDPMModel):
    def predict(self, x_t, t, conditioning):
        return super().predict(x_t, t, conditioning)[:, :1]


def test_shapes_that_would_be_stretched_over_one_another_are_refused():
    extractor = FeatureExtractor(tiny_model(), config(probes=("loss",)))
    with pytest.raises(ModelError, match=r"Pictures are \(1, 8, 8\) and the model's are \(3, 8, 8\)"):
        extractor.features(images(2)[:, :1])
    whole = tiny_model()
    extractor.model = FirstChannel(whole.network, DDPMScheduler())
    with pytest.raises(ModelError, match=r"predicts \(6, 1, 8, 8\) at pictures of \(6, 3, 8, 8\)"):
        extractor.features(images(2))
