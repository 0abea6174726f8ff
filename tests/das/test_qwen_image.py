"""Qwen-Image: texts of any length, a VAE of video, and the whole way from works to an answer."""

import json
from pathlib import Path

import families
import numpy as np
import pytest
import torch
import typer
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner

from das.attribution import Attributor
from das.errors import ModelError
from das.gradients import FeatureConfig, FeatureExtractor
from das.index import AttributionIndex
from das.models import load_model
from das.models.loading import load_pipeline
from das.models.qwen_image import QwenImageModel
from das.prng import standard_normal
from das.probes import Point, direction_of
from das.sketch import CountSketch
from das.sources import ModelSource
from index_build.cli import register

PROMPTS = ["a ginger tabby cat with green eyes", None, "a wall clock"]
LAYERS = ("to_q", "to_k", "to_v", "to_out.0", "add_k_proj", "img_mlp.net.2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline. Don't change it."""
    made = tmp_path_factory.mktemp("qwen") / "model"
    families.make_qwen_image(made)
    return made


def noised(model, count: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, *model.sample_shape, generator=generator).to(model.dtype)
    return x, torch.tensor([50, 500, 950])[:count]


def test_a_prompt_is_cut_at_512_tokens_whatever_the_tokenizer_can(folder):
    model = load_model(str(folder))
    tokenizer = DiffusionPipeline.from_pretrained(folder).tokenizer
    whole, *cut = ("a" * count + last for count, last in ((511, "b"), (512, "a"), (512, "b")))
    assert len(tokenizer(whole, add_special_tokens=False).input_ids) == 512
    assert [model.cut_at(prompt) for prompt in (whole, *cut)] == [None, 512, 512]
    text = model.condition(cut)["prompt_embeds"]
    assert text.shape[1] == 512
    assert torch.equal(text[0], text[1])


def test_it_is_read_in_its_own_space(folder):
    model = load_model(str(folder))
    assert (model.family, model.conditional) == ("qwen-image", True)
    assert model.sample_shape == (4, 8, 8)
    assert model.identity["class"] == "QwenImageTransformer2DModel"
    pictures = families.photographs(3)[0]
    vae = DiffusionPipeline.from_pretrained(folder).vae
    values = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
    mean, deviation = (torch.tensor(getattr(vae.config, f"latents_{name}")) for name in ("mean", "std"))
    with torch.no_grad():
        plain = vae.encode(values[:, :, None]).latent_dist.mean[:, :, 0]
    expected = (plain - mean.view(1, -1, 1, 1)) / deviation.view(1, -1, 1, 1)
    torch.testing.assert_close(model.encode(pictures), expected, rtol=1e-4, atol=1e-5)


def test_a_texts_length_and_company_change_nothing(folder):
    model = load_model(str(folder))
    model.network.double()
    x, t = noised(model)
    given = model.condition(PROMPTS)
    assert given["mask"].sum(1).tolist() == [
        float(len(model.condition([prompt])["mask"][0])) for prompt in PROMPTS
    ]
    assert len(set(given["mask"].sum(1).tolist())) == 3
    together = model.predict(x, t, given).detach()
    for row, prompt in enumerate(PROMPTS):
        alone = model.predict(x[row : row + 1], t[row : row + 1], model.condition([prompt])).detach()
        torch.testing.assert_close(alone[0], together[row], rtol=1e-5, atol=1e-6)
    other = model.predict(x[:1], t[:1], model.condition(["a dog"])).detach()
    assert float((other[0] - together[0]).norm()) > 1e-3 * float(other.norm())


def test_the_prediction_is_what_the_pipeline_walks_by(folder):
    """One step of the pipeline's own sampler, from noise to σ = 0, is the noise less the velocity."""
    model = load_model(str(folder))
    pipeline = load_pipeline(str(folder), QwenImageModel)
    pipeline.scheduler = FlowMatchEulerDiscreteScheduler()
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.randn(1, *model.sample_shape, generator=torch.Generator().manual_seed(3))
    made = pipeline(
        "a wall clock",
        num_inference_steps=1,
        height=32,
        width=32,
        latents=pipeline._pack_latents(noise, 1, *model.sample_shape),
        output_type="latent",
    ).images
    end = pipeline._unpack_latents(made, 32, 32, 4)[:, :, 0]
    velocity = model.predict(noise, torch.tensor([999]), model.condition(["a wall clock"])).detach()
    torch.testing.assert_close(end, noise - velocity, rtol=1e-4, atol=1e-5)


def test_features_equal_a_loop_of_autograd_with_each_prompt_alone(folder):
    model = load_model(str(folder))
    model.network.double()
    x0 = model.encode(families.photographs(3)[0]).double()
    options = FeatureConfig(
        dimension=64, probes=("loss", "random"), timesteps=(0, 400, 999), seed=2, prompt_dropout=0.5
    )
    extractor = FeatureExtractor(model, options, batch_size=4)
    assert not extractor._gradients.fallback
    got = extractor.features(x0, model.condition(PROMPTS)).by_probe
    parameters = dict(model.network.named_parameters())
    sketch = CountSketch(64, 2, {n: tuple(p.shape) for n, p in parameters.items()}, dtype=torch.float64)
    dropped = [extractor._drops_prompts(t, 0) for t in options.timesteps]
    assert len(set(dropped)) == 2
    for row, prompt in enumerate(PROMPTS):
        for step, t in enumerate(options.timesteps):
            noise = torch.from_numpy(standard_normal(2, f"noise\n{t}\n0", model.sample_shape)).double()[None]
            time, picture = torch.tensor([t]), x0[row : row + 1]
            given = model.condition([None if dropped[step] else prompt])
            output = model.predict(model.schedule.add_noise(picture, noise, time), time, given)
            point = Point(output.detach(), model.schedule.target(picture, noise, time), 2)
            for name in options.probes:
                scalar = (output * direction_of(name)(point)).sum()
                plain = torch.autograd.grad(
                    scalar, [*parameters.values()], retain_graph=True, materialize_grads=True
                )
                expected = sketch.sketch({n: g[None] for n, g in zip(parameters, plain, strict=True)})[0]
                difference = float((got[name][row, step] - expected).norm())
                assert difference <= 1e-5 * float(expected.norm()), (name, prompt, t)


def test_it_makes_pictures_of_its_prompts(folder):
    first, again, other = load_model(str(folder)).generate(["a cat", "a cat", None], [1, 1, 1])
    assert first.shape == (32, 32, 3)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


NAMINGS = {
    "diffusers": lambda path: (f"transformer.{path}", "lora_A.weight", "lora_B.weight"),
    "ComfyUI": lambda path: (f"diffusion_model.{path}", "lora_A.weight", "lora_B.weight"),
    "musubi": lambda path: (f"lora_unet_{path.replace('.', '_')}", "lora_down.weight", "lora_up.weight"),
}


@pytest.mark.parametrize("naming", NAMINGS)
def test_a_lora_equals_merged_weights_in_every_naming(folder, naming, tmp_path):
    merged, tensors = load_model(str(folder)), {}
    generator = torch.Generator().manual_seed(1)
    for path, layer in merged.network.named_modules():
        if isinstance(layer, nn.Linear) and path.endswith(LAYERS):
            down = torch.randn(2, layer.in_features, generator=generator) / 4
            up = torch.randn(layer.out_features, 2, generator=generator) / 4
            stem, first, second = NAMINGS[naming](path)
            tensors |= {f"{stem}.{first}": down, f"{stem}.{second}": up}
            if naming == "musubi":
                tensors[f"{stem}.alpha"] = torch.tensor(1.0)
            with torch.no_grad():
                layer.weight += (0.5 if naming == "musubi" else 1.0) * up @ down
    assert len(tensors) >= 2 * 2 * len(LAYERS)
    save_file(tensors, tmp_path / "style.safetensors")
    model = load_model(str(folder), lora=str(tmp_path / "style.safetensors"))
    x, t = noised(model)
    expected, got = (one.predict(x, t, one.condition(PROMPTS)).detach() for one in (merged, model))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    assert float((expected - load_model(str(folder)).predict(x, t, model.condition(PROMPTS))).norm()) > 0.01


def test_a_network_in_a_single_file(folder, tmp_path):
    network = load_model(str(folder)).network
    file = tmp_path / "checkpoint.safetensors"
    save_file({f"model.diffusion_model.{n}": p.contiguous() for n, p in network.state_dict().items()}, file)
    told: list[str] = []
    model = load_model(ModelSource(str(file), config=str(folder)), tell=told.append)
    assert all(
        torch.equal(tensor, model.network.state_dict()[name]) for name, tensor in network.state_dict().items()
    )
    assert told == [
        "checkpoint.safetensors is a checkpoint of Qwen-Image: transformer from it, vae, text_encoder from"
        f" {folder}."
    ]


def test_the_size_is_the_pipelines_or_ones_own(folder, tmp_path):
    assert load_model(ModelSource(str(folder), size=(64, 48))).sample_shape == (4, 16, 12)
    with pytest.raises(ModelError, match="multiples of 8"):
        load_model(ModelSource(str(folder), size=(60, 48)))
    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.save_pretrained(tmp_path / "published")
    config = tmp_path / "published" / "vae" / "config.json"
    values = json.loads(config.read_text())
    del values["sample_size"]
    config.write_text(json.dumps(values))
    # The published pipelines say 1024 pixels, of a VAE that halves three times; this one halves twice.
    assert load_model(str(tmp_path / "published")).sample_shape == (4, 128, 128)


@pytest.mark.parametrize("option", ["zero_cond_t", "use_layer3d_rope"])
def test_networks_that_are_given_more_are_refused(folder, option, tmp_path):
    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.transformer.register_to_config(**{option: True})
    pipeline.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=f"{option}.*Edit, Layered"):
        load_model(str(tmp_path))


def test_the_whole_way_from_works_to_an_answer(folder, tmp_path):
    works = tmp_path / "works"
    works.mkdir()
    pictures, prompts = families.photographs(12)
    for row, (picture, prompt) in enumerate(zip(pictures, prompts, strict=True)):
        Image.fromarray(picture).save(works / f"{row}.png")
        (works / f"{row}.txt").write_text(prompt)
    cli = typer.Typer()
    register(cli)
    command = ["build", "--model", folder, "--works", works, "--out", tmp_path / "index", "--no-screening"]
    command += ["--timesteps", "200,700", "--dimension", "512", "--references", "0"]
    done = CliRunner().invoke(cli, [str(part) for part in command], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    attributor = Attributor(AttributionIndex.open(tmp_path / "index"), threads=1)
    firsts = [
        attributor.attribute(picture, prompt=prompt, top_k=1).works[0].row
        for picture, prompt in zip(pictures, prompts, strict=True)
    ]
    files = [attributor.index.works.row(row)["file"] for row in firsts]
    # A picture is its own best match under random weights too, though a near one may pass it.
    assert sum(file == f"{row}.png" for row, file in enumerate(files)) >= 10, files
