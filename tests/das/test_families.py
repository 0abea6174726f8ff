"""Adapters of the text-conditioned families: loading, encoding, conditioning, identity, and what they refuse."""

import json
import subprocess
import sys
from pathlib import Path

import families
import numpy as np
import pytest
import torch
from diffusers import (
    DDIMPipeline,
    DDIMScheduler,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    UNet2DModel,
)
from safetensors.torch import load_file, save_file
from torch import nn

from das.errors import ModelError
from das.models import load_model
from das.models.latent import PromptCache
from das.schedules import FlowMatching

ROOT = Path(__file__).parent.parent.parent
WEIGHTS = ("diffusion_pytorch_model.safetensors", "model.safetensors")


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A pipeline of each family. Don't change them."""
    base = tmp_path_factory.mktemp("families")
    for name, make in families.FAMILIES.items():
        make(base / name)
    return {name: base / name for name in families.FAMILIES}


def edit(file: Path, **changes) -> None:
    """Change keys of a JSON file; None removes one."""
    values = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))


def weights(folder: Path) -> Path:
    return next(folder / name for name in WEIGHTS if (folder / name).exists())


CONDITIONING = {
    "stable-diffusion": {"prompt_embeds": (77, 16)},
    "stable-diffusion-xl": {"prompt_embeds": (77, 32), "pooled": (16,), "time_ids": (6,)},
    "stable-diffusion-3": {"prompt_embeds": (2 * 77, 32), "pooled": (32,)},
    "flux": {"prompt_embeds": (77, 32), "pooled": (16,)},
}


@pytest.mark.parametrize("family", families.FAMILIES)
def test_a_saved_pipeline_loads_with_its_own_weights(directories, family):
    model = load_model(str(directories[family]))
    saved = DiffusionPipeline.from_pretrained(directories[family])
    network = getattr(saved, model.network_name).state_dict()
    loaded = model.network.state_dict()
    assert loaded.keys() == network.keys()
    assert all(torch.equal(values, network[name]) for name, values in loaded.items())
    assert model.family == family
    assert model.conditional
    assert model.sample_shape == (4, families.LATENT, families.LATENT)
    assert model.dtype == torch.float32
    assert not model.network.training


@pytest.mark.parametrize("family", families.FAMILIES)
def test_pictures_become_the_mean_of_the_vae_s_posterior_in_the_networks_units(directories, family):
    model = load_model(str(directories[family]))
    pictures = families.photographs(5)[0]
    latents = model.encode(pictures)
    assert latents.shape == (5, 4, 8, 8)
    assert 0.7 < float(latents.std()) < 1.4
    vae = DiffusionPipeline.from_pretrained(directories[family]).vae
    values = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        expected = vae.encode(values).latent_dist.mean - (vae.config.shift_factor or 0.0)
    torch.testing.assert_close(latents, expected * vae.config.scaling_factor, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.encode(pictures[3:4])[0], latents[3], rtol=0, atol=0)
    wide = np.concatenate([np.zeros_like(pictures[0]), pictures[0], np.zeros_like(pictures[0])], 1)
    torch.testing.assert_close(model.encode([wide])[0], latents[0], rtol=0, atol=0)


@pytest.mark.parametrize("family", families.FAMILIES)
def test_prompts_are_encoded_once_each_and_none_is_the_empty_prompt(directories, family, monkeypatch):
    model = load_model(str(directories[family]))
    encoded: list[str] = []
    embed = model.embed
    monkeypatch.setattr(model, "embed", lambda prompt: encoded.append(prompt) or embed(prompt))
    given = model.condition(["a clock", None, "a cat", "a clock", ""])
    assert encoded == ["a clock", "", "a cat"]
    assert {name: tuple(values.shape[1:]) for name, values in given.items()} == CONDITIONING[family]
    text = given["prompt_embeds"]
    assert torch.equal(text[0], text[3])
    assert torch.equal(text[1], text[4])
    assert float((text[0] - text[1]).norm()) > 0.1 * float(text[0].norm())
    assert float((text[0] - text[2]).norm()) > 0.1 * float(text[0].norm())
    assert torch.equal(model.condition(["a cat"])["prompt_embeds"][0], text[2])
    assert len(encoded) == 3
    assert not any(values.requires_grad for values in given.values())
    model.network.double()
    assert {values.dtype for values in model.condition([None]).values()} == {torch.float64}


ROOM = {"stable-diffusion": 75, "stable-diffusion-xl": 75, "stable-diffusion-3": 76, "flux": 76}
"""Tokens of a prompt: 77 of the tiny tokenizers, less CLIP's marks of beginning and end or T5's end alone."""


@pytest.mark.parametrize("family", families.FAMILIES)
def test_where_a_prompt_is_cut_is_where_its_end_stops_to_matter(directories, family):
    model, room = load_model(str(directories[family])), ROOM[family]
    words = [word for word in " ".join(families.captions()).split() if word.isalpha()]
    first, second = dict.fromkeys(words[:2])  # a token each
    whole = [" ".join([first] * (room - 1) + [last]) for last in (first, second)]
    cut = [" ".join([first] * room + [last]) for last in (first, second)]
    assert [model.cut_at(prompt) for prompt in ("", first, *whole)] == [None] * 4
    assert [model.cut_at(prompt) for prompt in cut] == [room] * 2
    text = model.condition([*whole, *cut])["prompt_embeds"]
    assert not torch.equal(text[0], text[1])
    assert torch.equal(text[2], text[3])


def test_the_size_that_sdxl_is_given_is_that_of_the_whole_picture(directories):
    model = load_model(str(directories["stable-diffusion-xl"]))
    assert model.condition(["a cat"])["time_ids"].tolist() == [[32.0, 32.0, 0.0, 0.0, 32.0, 32.0]]


def test_the_least_recently_used_embeddings_go_first():
    cache, made = PromptCache(capacity=80), []

    def make(prompt: str) -> dict[str, torch.Tensor]:
        made.append(prompt)
        return {"a": torch.zeros(10)}  # 40 bytes

    for prompt in ("one", "two", "one", "three", "one", "two"):
        cache.get(prompt, make)
    assert made == ["one", "two", "three", "two"]
    assert cache.used == 80
    PromptCache(capacity=1).get("large", make)


@pytest.mark.parametrize("family", families.FAMILIES)
def test_the_identity_is_of_every_component_and_not_of_the_files(directories, family, tmp_path):
    source = directories[family]
    first = load_model(str(source)).identity
    assert json.loads(json.dumps(first)) == first
    assert first["conditional"] is True
    pipeline = DiffusionPipeline.from_pretrained(source)
    pipeline.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    assert len([*tmp_path.glob("sharded/*/*.safetensors")]) > len(pipeline.components)
    assert load_model(str(tmp_path / "sharded")).identity["digest"] == first["digest"]

    seen = {first["digest"]}
    modules = {name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module)}
    assert {"vae", "text_encoder"} < modules.keys()
    for name, module in modules.items():
        parameter = next(module.parameters())
        with torch.no_grad():
            parameter.view(-1)[0] += 1e-4
        seen.add(families.adapter_of(pipeline).of(pipeline).identity["digest"])
        assert len(seen) == 2 + list(modules).index(name), name
    scheduler = pipeline.scheduler
    options = {"shift": 2.0} if hasattr(scheduler.config, "shift") else {"beta_end": 0.013}
    pipeline.scheduler = type(scheduler).from_config(scheduler.config, **options)
    pipeline.vae.register_to_config(scaling_factor=0.5)
    pipeline.tokenizer.add_tokens(["dahlia"])
    seen.add(families.adapter_of(pipeline).of(pipeline).identity["digest"])
    assert len(seen) == 2 + len(modules)


@pytest.mark.parametrize("change", ["scheduler", "scaling", "tokenizer"])
def test_the_identity_is_of_what_has_no_weights_too(directories, change):
    pipeline = DiffusionPipeline.from_pretrained(directories["stable-diffusion"])
    adapter = families.adapter_of(pipeline)
    first = adapter.of(pipeline).identity["digest"]
    if change == "scheduler":
        pipeline.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config, beta_end=0.013)
    elif change == "scaling":
        pipeline.vae.register_to_config(scaling_factor=0.5)
    else:
        pipeline.tokenizer.add_tokens(["dahlia"])
    assert adapter.of(pipeline).identity["digest"] != first


def test_half_precision_weights_load_as_single_precision(directories, tmp_path):
    pipeline = DiffusionPipeline.from_pretrained(directories["stable-diffusion-3"]).to(torch.float16)
    pipeline.save_pretrained(tmp_path / "half")
    model = load_model(str(tmp_path / "half"))
    assert {parameter.dtype for part in model._modules().values() for parameter in part.parameters()} == {
        torch.float32
    }
    assert model.condition(["a cat"])["prompt_embeds"].dtype == torch.float32
    saved = pipeline.transformer.proj_out.weight.float()
    torch.testing.assert_close(model.network.proj_out.weight, saved, rtol=0, atol=0)


def test_sd3_without_its_t5_encoder_is_given_zeros_for_it(directories, tmp_path):
    pipeline = DiffusionPipeline.from_pretrained(
        directories["stable-diffusion-3"], text_encoder_3=None, tokenizer_3=None
    )
    pipeline.save_pretrained(tmp_path / "small")
    model = load_model(str(tmp_path / "small"))
    text = model.condition(["a cat"])["prompt_embeds"]
    assert text.shape == (1, 2 * 77, 32)
    assert not text[:, 77:].any()
    assert text[:, :77].any()


def test_vaes_with_the_names_of_stable_diffusion_1_are_read(directories, tmp_path):
    """Published ones of 2022 call the attention's layers query, key, value and proj_attn."""
    families.make_stable_diffusion(tmp_path / "old")
    file = weights(tmp_path / "old" / "vae")
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = {}
    for name, tensor in load_file(file).items():
        for new, old in names.items():
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{old}.")
        state[name] = tensor
    assert any("proj_attn" in name for name in state)
    save_file(state, file, metadata={"format": "pt"})
    first = load_model(str(directories["stable-diffusion"])).identity["digest"]
    assert load_model(str(tmp_path / "old")).identity["digest"] == first


def test_a_safety_checker_is_neither_needed_nor_read(directories, tmp_path):
    families.make_stable_diffusion(tmp_path / "checked")
    edit(
        tmp_path / "checked" / "model_index.json",
        safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"],
        feature_extractor=["transformers", "CLIPImageProcessor"],
    )
    first = load_model(str(directories["stable-diffusion"])).identity["digest"]
    assert load_model(str(tmp_path / "checked")).identity["digest"] == first


def test_ddim_pipelines_are_read_like_ddpm_s(tmp_path):
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=8,
        layers_per_block=1,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    )
    DDIMPipeline(unet, DDIMScheduler()).save_pretrained(tmp_path / "ddim")
    model = load_model(str(tmp_path / "ddim"))
    assert model.family == "ddpm"
    assert torch.equal(model.network.conv_in.weight, unet.conv_in.weight)


def other_class(folder: Path) -> None:
    edit(folder / "model_index.json", _class_name="PixArtAlphaPipeline")


def inpainting(folder: Path) -> None:
    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.register_modules(unet=families.unet(in_channels=9))
    pipeline.save_pretrained(folder)


def distilled(folder: Path) -> None:
    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.register_modules(unet=families.unet(time_cond_proj_dim=8))
    pipeline.save_pretrained(folder)


def without_text_encoder(folder: Path) -> None:
    edit(folder / "model_index.json", text_encoder=[None, None])


def without_tokenizer(folder: Path) -> None:
    edit(folder / "model_index.json", tokenizer=[None, None])


def without_unet_files(folder: Path) -> None:
    weights(folder / "unet").unlink()


def wrong_unet(folder: Path) -> None:
    edit(folder / "model_index.json", unet=["diffusers", "UNet2DModel"])


def wrong_library(folder: Path) -> None:
    edit(folder / "model_index.json", unet=["somewhere", "UNet2DConditionModel"])


def a_tensor_missing(part: str):
    def change(folder: Path) -> None:
        file = weights(folder / part)
        state = load_file(file)
        state.pop(sorted(state)[-1])
        save_file(state, file, metadata={"format": "pt"})

    return change


def wrong_shape(folder: Path) -> None:
    edit(folder / "unet" / "config.json", cross_attention_dim=20)


def damaged(folder: Path) -> None:
    file = weights(folder / "text_encoder")
    file.write_bytes(file.read_bytes()[:1000])


def flow_scheduler(folder: Path) -> None:
    FlowMatchEulerDiscreteScheduler().save_pretrained(folder / "scheduler")
    edit(folder / "model_index.json", scheduler=["diffusers", "FlowMatchEulerDiscreteScheduler"])


REFUSED = {
    "another-class": (other_class, r"is a PixArtAlphaPipeline, which isn't supported.*FluxPipeline"),
    "inpainting": (inpainting, "maps 9 channels to 4"),
    "distilled-guidance": (distilled, "time_cond_proj_dim is 8"),
    "no-text-encoder": (without_text_encoder, "has no text_encoder"),
    "no-tokenizer": (without_tokenizer, "has no tokenizer"),
    "no-weights": (without_unet_files, r"unet in .* has no weights, no diffusion_pytorch_model\.safetensors"),
    "another-network": (wrong_unet, "unet of .* is a diffusers.UNet2DModel; a UNet2DConditionModel was"),
    "another-library": (wrong_library, r"is a somewhere\.UNet2DConditionModel"),
    "unet-incomplete": (a_tensor_missing("unet"), "unet in .* lack 1 of the network's tensors"),
    "vae-incomplete": (a_tensor_missing("vae"), "vae in .* lack 1"),
    "text-encoder-incomplete": (a_tensor_missing("text_encoder"), "text_encoder in .* lack 1"),
    "wrong-shape": (wrong_shape, "No diffusion model could be loaded"),
    "damaged": (damaged, r"model\.safetensors is cut short: it has 1,000 bytes"),
    "flow-scheduler": (flow_scheduler, "alphas_cumprod"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_models_it_cannot_attribute_are_refused_with_the_reason(tmp_path, kind):
    change, message = REFUSED[kind]
    families.make_stable_diffusion(tmp_path / "model")
    change(tmp_path / "model")
    with pytest.raises(ModelError, match=message):
        load_model(str(tmp_path / "model"))


def test_an_id_that_is_nowhere_is_refused():
    with pytest.raises(ModelError, match="No diffusion model could be loaded from 'no-one/nothing'"):
        load_model("no-one/nothing")


@pytest.mark.parametrize("family", ["stable-diffusion-3", "flux"])
def test_transformers_that_take_more_than_latents_are_refused(directories, family):
    pipeline = DiffusionPipeline.from_pretrained(directories[family])
    pipeline.transformer.register_to_config(in_channels=48)
    with pytest.raises(ModelError, match="maps 48 channels"):
        families.adapter_of(pipeline).of(pipeline)


def test_flow_levels_are_those_of_diffusers_training_scripts():
    t = torch.tensor([0, 1, 499, 998, 999])
    for options in ({}, {"shift": 3.0}, {"shift": 3.0, "use_dynamic_shifting": True}):
        scheduler = FlowMatchEulerDiscreteScheduler(**options)
        schedule = FlowMatching.of(scheduler)
        assert schedule.num_train_timesteps == 1000
        a, b = schedule.levels(t)
        torch.testing.assert_close(b.flatten().float(), scheduler.sigmas[999 - t], rtol=1e-6, atol=0)
        torch.testing.assert_close(schedule.network_time(t).float(), scheduler.timesteps[999 - t])
        assert torch.equal(a, 1 - b)


def test_flow_recovery_inverts_noising_at_every_level():
    schedule = FlowMatching.of(FlowMatchEulerDiscreteScheduler(shift=3.0))
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 4, 3, 5, 5, dtype=torch.float64, generator=generator)
    t = torch.tensor([0, 10, 600, 999])
    x_t, velocity = schedule.add_noise(x0, noise, t), schedule.target(x0, noise, t)
    clean, epsilon = schedule.recover(x_t, t, velocity)
    torch.testing.assert_close(clean, x0, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(epsilon, noise, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(x_t[3], noise[3])
    with pytest.raises(ModelError, match="EulerDiscreteScheduler isn't one of flow matching"):
        FlowMatching.of(EulerDiscreteScheduler())


def test_importing_the_adapters_stays_light():
    script = (
        "import sys, das.models.loading, das.models.lora;"
        "print([m for m in ('diffusers', 'transformers', 'peft') if m in sys.modules])"
    )
    told = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert told.stdout.strip() == "[]"
