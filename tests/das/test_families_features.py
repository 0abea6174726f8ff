"""Every text-conditioned family: features against a loop of autograd, losses against the training scripts."""

from pathlib import Path

import families
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import (
    DDPMScheduler,
    FluxPipeline,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)

from das.gradients import FeatureConfig, FeatureExtractor, attributed_parameters
from das.methods import ACTIVATION, PROBES
from das.models import DiffusionModel, load_model
from das.prng import standard_normal
from das.probes import Point, direction_of
from das.sketch import CountSketch

GRADIENT_PROBES = tuple(probe for probe in PROBES if probe != ACTIVATION)
PROMPTS = ["a ginger tabby cat with green eyes", None, "a wall clock"]

# diffusers computes FLUX's rotary embedding and SD 3.5's norms in single precision, whatever the network's type: two
# orders of the same sums then differ in the last of its bits, not in the last of double precision's.
TOLERANCE = {
    "stable-diffusion": 1e-10,
    "stable-diffusion-xl": 1e-10,
    "stable-diffusion-3": 1e-6,
    "flux": 1e-6,
}


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A pipeline of each family."""
    base = tmp_path_factory.mktemp("families")
    for name, make in families.FAMILIES.items():
        make(base / name)
    return {name: base / name for name in families.FAMILIES}


def double(directory: Path) -> DiffusionModel:
    """The model in double precision; what it is given follows the network's type."""
    model = load_model(str(directory))
    model.network.double()
    return model


def config(**changes) -> FeatureConfig:
    options = {"dimension": 64, "probes": GRADIENT_PROBES, "timesteps": (0, 400, 999), "seed": 2} | changes
    return FeatureConfig(**options)


def dense_features(
    model: DiffusionModel, options: FeatureConfig, x0: torch.Tensor, prompts
) -> dict[str, torch.Tensor]:
    """Eq. 11 by hand: for each picture and timestep a forward pass of its own with its prompt, autograd, sketch."""
    parameters, schedule = attributed_parameters(model.network, options.attributed), model.schedule
    shapes = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    sketch = CountSketch(options.dimension, options.seed, shapes, dtype=model.dtype)
    found = {
        name: torch.zeros(len(x0), len(options.timesteps), options.dimension, dtype=model.dtype)
        for name in options.probes
    }
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    for i, (picture, prompt) in enumerate(zip(x0, prompts, strict=True)):
        given = model.condition([prompt])
        for s, t in enumerate(options.timesteps):
            noise = standard_normal(options.seed, f"noise\n{t}\n0", model.sample_shape)
            noise, time = torch.from_numpy(noise).to(model.dtype)[None], torch.tensor([t])
            output = model.predict(schedule.add_noise(picture[None], noise, time), time, given)
            point = Point(output.detach(), schedule.target(picture[None], noise, time), options.seed)
            for name in options.probes:
                scalar = (output * direction_of(name)(point)).sum()
                plain = torch.autograd.grad(
                    scalar, list(parameters.values()), retain_graph=True, materialize_grads=True
                )
                row = {n: g[None] for n, g in zip(parameters, plain, strict=True)}
                found[name][i, s] = sketch.sketch(row)[0]
    return found


@pytest.mark.parametrize("family", families.FAMILIES)
def test_features_equal_a_loop_of_autograd_over_all_parameters(directories, family):
    model = double(directories[family])
    x0 = model.encode(families.photographs(3)[0])
    extractor = FeatureExtractor(model, config(), batch_size=4)
    assert not extractor._gradients.fallback
    assert set(extractor.parameters) == set(dict(model.network.named_parameters()))
    got = extractor.features(x0, model.condition(PROMPTS)).by_probe
    for name, expected in dense_features(model, config(), x0, PROMPTS).items():
        difference = float((got[name] - expected).norm())
        assert difference <= TOLERANCE[family] * float(expected.norm()), name


def hidden_states(model: DiffusionModel, x_t: torch.Tensor, t: int, prompt: str | None) -> list[torch.Tensor]:
    """What every block of the network hands on, for one picture: of a U-Net's blocks the first thing that they put
    out, of a transformer's the last (the first is the text)."""
    found: list[torch.Tensor] = []
    network = model.network
    unet = hasattr(network, "up_blocks")
    blocks = (
        [*network.down_blocks, network.mid_block, *network.up_blocks]
        if unet
        else [*network.transformer_blocks, *getattr(network, "single_transformer_blocks", [])]
    )

    def keep(module, inputs, output):
        if isinstance(output, tuple):
            output = output[0 if unet else -1]
        found.append(output.detach())

    handles = [block.register_forward_hook(keep) for block in blocks]
    with torch.no_grad():
        model.predict(x_t, torch.tensor([t]), model.condition([prompt]))
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("family", families.FAMILIES)
def test_activations_are_what_the_blocks_hand_on_with_each_pictures_prompt(directories, family):
    model = double(directories[family])
    x0 = model.encode(families.photographs(3)[0])
    options = config(probes=(ACTIVATION,), dimension=2**16)
    got = FeatureExtractor(model, options, batch_size=4).features(x0, model.condition(PROMPTS))
    for s, t in enumerate(options.timesteps):
        noise = standard_normal(options.seed, f"noise\n{t}\n0", model.sample_shape)
        noise = torch.from_numpy(noise).to(model.dtype)[None]
        states = [
            hidden_states(model, model.schedule.add_noise(x0[i : i + 1], noise, torch.tensor([t])), t, prompt)
            for i, prompt in enumerate(PROMPTS)
        ]
        assert len(states[0]) >= 2
        expected = sum(
            F.cosine_similarity(a.flatten(1), b.flatten(1)).item()
            for a, b in zip(states[0], states[1], strict=True)
        )
        found = got.by_probe[ACTIVATION][:, s]
        # Equal but for the sketch, whose error falls with the root of its dimension.
        assert float(found[0] @ found[1]) == pytest.approx(expected, abs=0.05 * len(states[0]))
        assert float(found[0] @ found[0]) == pytest.approx(len(states[0]), abs=0.05 * len(states[0]))


@pytest.mark.parametrize("family", families.FAMILIES)
def test_prompts_change_features_and_no_prompt_is_the_empty_one(directories, family):
    model = load_model(str(directories[family]))
    x0 = model.encode(families.photographs(1)[0])
    extractor = FeatureExtractor(model, config(probes=("loss",)))

    def features(prompt):
        return extractor.features(x0, model.condition([prompt])).by_probe["loss"]

    cat, clock = features("a tabby cat"), features("a wall clock")
    assert float((cat - clock).norm()) > 1e-2 * float(cat.norm())
    torch.testing.assert_close(features(None), features(""), rtol=0, atol=0)
    torch.testing.assert_close(extractor.features(x0).by_probe["loss"], features(""), rtol=0, atol=0)
    assert float((features("") - cat).norm()) > 1e-2 * float(cat.norm())


@pytest.mark.parametrize("family", families.FAMILIES)
def test_features_do_not_depend_on_batch_size_order_or_company(directories, family):
    model = double(directories[family])
    x0, given = model.encode(families.photographs(3)[0]), model.condition(PROMPTS)
    turned = {name: values.flip(0) for name, values in given.items()}
    extract = {size: FeatureExtractor(model, config(probes=("loss",)), batch_size=size) for size in (1, 7, 9)}
    whole = extract[9].features(x0, given).by_probe["loss"]
    others = {
        "single": extract[1].features(x0, given).by_probe["loss"],
        "turned": extract[7].features(x0.flip(0), turned).by_probe["loss"].flip(0),
        "alone": torch.cat(
            [
                extract[7].features(x0[i : i + 1], model.condition([PROMPTS[i]])).by_probe["loss"]
                for i in range(3)
            ]
        ),
    }
    for name, other in others.items():
        assert float((other - whole).norm()) <= TOLERANCE[family] * float(whole.norm()), name


# The losses below follow examples/text_to_image/train_text_to_image_lora.py, …_sdxl.py and
# examples/dreambooth/train_dreambooth_lora_sd3.py, …_flux.py of diffusers, on pipelines as diffusers loads them.


def tokens(tokenizer, prompts):
    return tokenizer(
        prompts, padding="max_length", max_length=families.TOKENS, truncation=True, return_tensors="pt"
    ).input_ids


def pixel_values(pictures):
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def sd_loss(directory, pictures, prompts, noise, t):
    pipeline = StableDiffusionPipeline.from_pretrained(directory)
    latents = pipeline.vae.encode(pixel_values(pictures)).latent_dist.mode()
    latents = latents * pipeline.vae.config.scaling_factor
    noisy = pipeline.scheduler.add_noise(latents, noise, t)
    hidden = pipeline.text_encoder(tokens(pipeline.tokenizer, prompts), return_dict=False)[0]
    prediction = pipeline.unet(noisy, t, hidden, return_dict=False)[0]
    return F.mse_loss(prediction, noise, reduction="none")


def sdxl_loss(directory, pictures, prompts, noise, t):
    pipeline = StableDiffusionXLPipeline.from_pretrained(directory)
    # Training replaces the pipeline's sampling scheduler by DDPM's with the same configuration.
    scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
    latents = pipeline.vae.encode(pixel_values(pictures)).latent_dist.mode()
    latents = latents * pipeline.vae.config.scaling_factor
    hidden = []
    for tokenizer, encoder in (
        (pipeline.tokenizer, pipeline.text_encoder),
        (pipeline.tokenizer_2, pipeline.text_encoder_2),
    ):
        output = encoder(tokens(tokenizer, prompts), output_hidden_states=True, return_dict=False)
        pooled = output[0]
        hidden.append(output[-1][-2])
    side = families.SIDE
    added = {
        "text_embeds": pooled,
        "time_ids": torch.tensor([[side, side, 0, 0, side, side]] * len(pictures), dtype=torch.float),
    }
    prediction = pipeline.unet(
        scheduler.add_noise(latents, noise, t), t, torch.cat(hidden, -1), added_cond_kwargs=added
    ).sample
    return F.mse_loss(prediction, noise, reduction="none")


def flow_noise(scheduler, latents, noise, index):
    """The scripts' `indices` count from the noisiest level."""
    timesteps = scheduler.timesteps[index]
    sigmas = scheduler.sigmas[index].view(-1, 1, 1, 1)
    return timesteps, sigmas, (1.0 - sigmas) * latents + sigmas * noise


def flow_latents(vae, pictures):
    latents = vae.encode(pixel_values(pictures)).latent_dist.mode()
    return (latents - vae.config.shift_factor) * vae.config.scaling_factor


def sd3_loss(directory, pictures, prompts, noise, t):
    pipeline = StableDiffusion3Pipeline.from_pretrained(directory)
    latents = flow_latents(pipeline.vae, pictures)
    timesteps, sigmas, noisy = flow_noise(pipeline.scheduler, latents, noise, 999 - t)
    hidden, pooled = [], []
    for tokenizer, encoder in (
        (pipeline.tokenizer, pipeline.text_encoder),
        (pipeline.tokenizer_2, pipeline.text_encoder_2),
    ):
        output = encoder(tokens(tokenizer, prompts), output_hidden_states=True)
        pooled.append(output[0])
        hidden.append(output.hidden_states[-2])
    t5 = pipeline.text_encoder_3(tokens(pipeline.tokenizer_3, prompts))[0]
    clip = torch.cat(hidden, -1)
    embeddings = torch.cat([F.pad(clip, (0, t5.shape[-1] - clip.shape[-1])), t5], -2)
    prediction = pipeline.transformer(
        hidden_states=noisy,
        timestep=timesteps,
        encoder_hidden_states=embeddings,
        pooled_projections=torch.cat(pooled, -1),
        return_dict=False,
    )[0]
    # The script's default preconditions the output: the residual of x_0 is -σ times that of the velocity.
    preconditioned = prediction * (-sigmas) + noisy
    return F.mse_loss(preconditioned, latents, reduction="none") / sigmas.square()


def flux_loss(directory, pictures, prompts, noise, t):
    pipeline = FluxPipeline.from_pretrained(directory)
    latents = flow_latents(pipeline.vae, pictures)
    timesteps, _, noisy = flow_noise(pipeline.scheduler, latents, noise, 999 - t)
    batch, channels, height, width = latents.shape
    prediction = pipeline.transformer(
        hidden_states=FluxPipeline._pack_latents(noisy, batch, channels, height, width),
        timestep=timesteps / 1000,
        guidance=torch.tensor([1.0]).expand(batch),  # --guidance_scale=1
        pooled_projections=pipeline.text_encoder(tokens(pipeline.tokenizer, prompts)).pooler_output,
        encoder_hidden_states=pipeline.text_encoder_2(tokens(pipeline.tokenizer_2, prompts))[0],
        txt_ids=torch.zeros(families.TOKENS, 3),
        img_ids=FluxPipeline._prepare_latent_image_ids(batch, height // 2, width // 2, "cpu", torch.float32),
        return_dict=False,
    )[0]
    factor = pipeline.vae_scale_factor
    prediction = FluxPipeline._unpack_latents(prediction, height * factor, width * factor, factor)
    return F.mse_loss(prediction, noise - latents, reduction="none")


LOSSES = {
    "stable-diffusion": sd_loss,
    "stable-diffusion-xl": sdxl_loss,
    "stable-diffusion-3": sd3_loss,
    "flux": flux_loss,
}


@pytest.mark.parametrize("family", families.FAMILIES)
@torch.no_grad()
def test_the_loss_is_that_of_the_training_scripts(directories, family):
    pictures, prompts = families.photographs(3)[0], ["a tabby cat", "", "the red retina of a human eye"]
    model = load_model(str(directories[family]))
    schedule = model.schedule
    t = torch.tensor([37, 500, 999])
    noise = torch.randn(3, *model.sample_shape, generator=torch.Generator().manual_seed(5))
    x0 = model.encode(pictures)
    output = model.predict(schedule.add_noise(x0, noise, t), t, model.condition(prompts))
    ours = (output - schedule.target(x0, noise, t)).square()
    theirs = LOSSES[family](directories[family], pictures, prompts, noise, t)
    torch.testing.assert_close(ours.mean((1, 2, 3)), theirs.mean((1, 2, 3)), rtol=2e-4, atol=1e-6)
    clean, epsilon = schedule.recover(schedule.add_noise(x0, noise, t), t, schedule.target(x0, noise, t))
    # At t = 999 next to nothing of the picture is left to recover it from in single precision.
    torch.testing.assert_close(clean[:2], x0[:2], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(epsilon[1:], noise[1:], rtol=1e-3, atol=1e-3)


def test_flux_without_guidance_is_not_given_any(tmp_path):
    families.make_flux(tmp_path / "schnell", guidance=False)
    model = load_model(str(tmp_path / "schnell"))
    x0 = model.encode(families.photographs(2)[0])
    t = torch.tensor([100, 800])
    assert model.predict(x0, t, model.condition([None, "a cat"])).shape == x0.shape
    # Schnell's scheduler shifts the levels that training draws from; dev's shifts in sampling only.
    levels = torch.arange(1, 1001, dtype=torch.float64) / 1000
    torch.testing.assert_close(
        model.schedule.levels(torch.arange(1000))[1].flatten(), 3 * levels / (1 + 2 * levels)
    )
