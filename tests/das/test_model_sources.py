"""What a person may name as a model: variants, bare networks, training runs' folders, sizes, classes that begin
with a picture; and what the refusals say."""

import json
import shutil
import socket
import time
from pathlib import Path

import families
import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, DiffusionPipeline, UNet2DModel
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file

from das import hub
from das.errors import ModelError
from das.models import load_model
from das.sources import ModelSource, check_source, conversion, find_network


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stable Diffusion pipeline. Don't change it."""
    path = tmp_path_factory.mktemp("sources") / "sd"
    families.make_stable_diffusion(path)
    return path


def edit(file: Path, **changes) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(("variant", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_the_only_variant_that_there_is_is_loaded_and_told(directory, tmp_path, variant, dtype):
    pipeline = DiffusionPipeline.from_pretrained(directory).to(dtype)
    pipeline.save_pretrained(tmp_path / "half", variant=variant)
    assert not [f for f in (tmp_path / "half").glob("*/*.safetensors") if variant not in f.name]
    told: list[str] = []
    model = load_model(str(tmp_path / "half"), tell=told.append)
    assert model.dtype == torch.float32
    assert torch.equal(model.network.conv_in.weight, pipeline.unet.conv_in.weight.float())
    name = str(dtype).removeprefix("torch.")
    assert len(told) == 1
    assert (
        f"vae, text_encoder, unet are in variant {variant}, {name}; they are computed with in single"
        in told[0]
    )


def test_variants_are_chosen_for_each_component_and_never_guessed(directory, tmp_path):
    shutil.copytree(directory, tmp_path / "mixed")
    file = tmp_path / "mixed" / "unet" / "diffusion_pytorch_model.safetensors"
    file.rename(file.with_name("diffusion_pytorch_model.non_ema.safetensors"))
    told: list[str] = []
    assert (
        load_model(str(tmp_path / "mixed"), tell=told.append).identity == load_model(str(directory)).identity
    )
    assert told[0].startswith("The weights of unet are in variant non_ema, float32")
    shutil.copy(
        file.with_name("diffusion_pytorch_model.non_ema.safetensors"),
        file.with_name("diffusion_pytorch_model.fp16.safetensors"),
    )
    with pytest.raises(ModelError, match="in the variants fp16 and non_ema, and none without"):
        load_model(str(tmp_path / "mixed"))
    shutil.copy(directory / "unet" / file.name, file)
    assert load_model(str(tmp_path / "mixed")).identity == load_model(str(directory)).identity


def test_a_component_that_is_only_pickled_is_refused_with_the_line_that_converts_it(directory, tmp_path):
    shutil.copytree(directory, tmp_path / "old")
    for part, name, pickled in [
        ("unet", "diffusion_pytorch_model", "diffusion_pytorch_model.bin"),
        ("text_encoder", "model", "pytorch_model.bin"),
    ]:
        file = tmp_path / "old" / part / f"{name}.safetensors"
        torch.save(load_file(file), file.with_name(pickled))
        file.unlink()
        with pytest.raises(ModelError) as refused:
            load_model(str(tmp_path / "old"))
        assert str(refused.value).endswith(conversion(file.with_name(pickled)))
        assert conversion(file.with_name(pickled)).endswith(str(file))
        shutil.copy(directory / part / file.name, file)


def test_a_bare_network_takes_the_place_of_the_bases_own(directory, tmp_path):
    pipeline = DiffusionPipeline.from_pretrained(directory)
    with torch.no_grad():
        pipeline.unet.conv_in.weight.add_(1)
    ema = EMAModel(
        pipeline.unet.parameters(), model_cls=type(pipeline.unet), model_config=pipeline.unet.config
    )
    ema.save_pretrained(tmp_path / "unet_ema")
    pipeline.unet.save_pretrained(tmp_path / "half", variant="fp16")
    expected = families.adapter_of(pipeline).of(pipeline).network.state_dict()
    for network in ("unet_ema", "half"):
        told: list[str] = []
        model = load_model(ModelSource(str(directory), network=str(tmp_path / network)), tell=told.append)
        assert all(torch.equal(t, expected[n]) for n, t in model.network.state_dict().items())
        assert told == [f"The unet is that of {tmp_path / network}; all else is that of {directory}."]
        assert model.identity["digest"] != load_model(str(directory)).identity["digest"]
    for path, message in [
        (tmp_path / "unet_ema", "is a UNet2DConditionModel alone.*--model, and this directory as --network"),
        (tmp_path, r"is a training run's folder with unet_ema and no model_index.*--network"),
    ]:
        with pytest.raises(ModelError, match=message):
            load_model(str(path))


def test_an_unconditional_network_needs_only_its_scheduler(tiny_model, tmp_path):
    network = UNet2DModel(
        sample_size=8,
        layers_per_block=1,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    )
    network.save_pretrained(tmp_path / "net")
    model = load_model(ModelSource(str(tiny_model), network=str(tmp_path / "net")))
    assert model.sample_shape == (3, 8, 8)
    DDPMPipeline(network, DDPMScheduler(num_train_timesteps=1000)).save_pretrained(tmp_path / "whole")
    assert model.identity == load_model(str(tmp_path / "whole")).identity


def test_a_network_that_doesn_t_fit_is_refused_in_a_sentence(directory, tiny_model, tmp_path):
    families.unet(cross_attention_dim=20).save_pretrained(tmp_path / "narrow")
    with pytest.raises(
        ModelError, match="its cross_attention_dim is 20, and that of the pipeline's own unet is 16"
    ):
        load_model(ModelSource(str(directory), network=str(tmp_path / "narrow")))
    with pytest.raises(ModelError, match="has a UNet2DModel as its unet; let --model name"):
        load_model(ModelSource(str(tiny_model), network=str(tmp_path / "narrow")))
    families.unet().save_pretrained(tmp_path / "changed")
    edit(tmp_path / "changed" / "config.json", block_out_channels=[8, 24])
    with pytest.raises(ModelError, match=r"network in .* (lack|can't be loaded).*"):
        load_model(ModelSource(str(directory), network=str(tmp_path / "changed")))


def test_a_training_run_s_folder_gives_its_last_network_or_is_ambiguous(tmp_path):
    run = tmp_path / "run"
    for number in (500, 1000, 99):
        families.unet().save_pretrained(run / f"checkpoint-{number}" / "unet")
    (run / "checkpoint-2000").mkdir()
    assert find_network(run) == run / "checkpoint-1000" / "unet"
    assert find_network(run / "checkpoint-500") == run / "checkpoint-500" / "unet"
    families.unet().save_pretrained(run / "checkpoint-1000" / "unet_ema")
    with pytest.raises(ModelError, match="holds unet and unet_ema, which differ; name one of them"):
        find_network(run)
    families.unet().save_pretrained(run / "unet")
    assert find_network(run) == run / "unet"


def test_folders_without_a_network_say_what_they_hold(directory, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="holds no network"):
        find_network(tmp_path / "empty")
    with pytest.raises(ModelError, match="There is no directory"):
        find_network(tmp_path / "gone")
    (tmp_path / "run" / "checkpoint-5").mkdir(parents=True)
    (tmp_path / "run" / "checkpoint-5" / "pytorch_lora_weights.safetensors").touch()
    with pytest.raises(ModelError, match="checkpoint-5' holds a LoRA and no network: give it as --lora"):
        find_network(tmp_path / "run")
    with pytest.raises(ModelError, match="is a LoRA: give the pipeline"):
        load_model(str(tmp_path / "run" / "checkpoint-5"))
    (tmp_path / "empty" / "a.safetensors").touch()
    with pytest.raises(ModelError, match=r"a\.safetensors --config PIPELINE"):
        load_model(str(tmp_path / "empty"))


@pytest.mark.parametrize(
    ("family", "class_name"),
    [
        ("stable-diffusion", "StableDiffusionImg2ImgPipeline"),
        ("stable-diffusion", "StableDiffusionInpaintPipeline"),
        ("stable-diffusion-xl", "StableDiffusionXLImg2ImgPipeline"),
        ("stable-diffusion-xl", "StableDiffusionXLInpaintPipeline"),
        ("stable-diffusion-3", "StableDiffusion3Img2ImgPipeline"),
        ("stable-diffusion-3", "StableDiffusion3InpaintPipeline"),
        ("flux", "FluxImg2ImgPipeline"),
        ("flux", "FluxInpaintPipeline"),
    ],
)
def test_classes_that_begin_with_a_picture_are_their_families(tmp_path, family, class_name):
    families.FAMILIES[family](tmp_path / "model")
    plain = load_model(str(tmp_path / "model"))
    edit(tmp_path / "model" / "model_index.json", _class_name=class_name)
    model = load_model(str(tmp_path / "model"))
    assert model.identity == plain.identity
    assert model.generate(["a cat"], [3])[0].shape == (32, 32, 3)


def test_the_refiner_and_inpainting_networks_are_refused_by_name(directory, tmp_path):
    families.make_sdxl(tmp_path / "xl")
    edit(
        tmp_path / "xl" / "model_index.json",
        _class_name="StableDiffusionXLImg2ImgPipeline",
        text_encoder=[None, None],
    )
    with pytest.raises(ModelError, match="is SDXL's refiner"):
        load_model(str(tmp_path / "xl"))
    pipeline = DiffusionPipeline.from_pretrained(directory)
    pipeline.register_modules(unet=families.unet(in_channels=9))
    pipeline.save_pretrained(tmp_path / "inpainting")
    edit(tmp_path / "inpainting" / "model_index.json", _class_name="StableDiffusionInpaintPipeline")
    with pytest.raises(ModelError, match=r"maps 9 channels to 4, .* an inpainting model"):
        load_model(str(tmp_path / "inpainting"))


@pytest.mark.parametrize("family", families.FAMILIES)
def test_the_size_may_be_given(tmp_path, family):
    families.FAMILIES[family](tmp_path / "model")
    plain = load_model(str(tmp_path / "model"))
    model = load_model(ModelSource(str(tmp_path / "model"), size=(16, 32)))
    assert (plain.sample_shape, model.sample_shape) == ((4, 8, 8), (4, 4, 8))
    assert model.identity["digest"] != plain.identity["digest"]
    pictures = families.photographs(1)[0]
    x0, given = model.encode(pictures), model.condition(["a cat"])
    assert model.predict(x0, torch.tensor([5]), given).shape == (1, 4, 4, 8)
    same = load_model(ModelSource(str(tmp_path / "model"), size=(32, 32)))
    assert same.sample_shape == plain.sample_shape
    with pytest.raises(ModelError, match="A size of 33 × 32 can't be used: this model needs multiples of 8"):
        load_model(ModelSource(str(tmp_path / "model"), size=(32, 33)))


def test_a_configuration_without_a_size_asks_for_one(tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "model")
    edit(tmp_path / "model" / "unet" / "config.json", sample_size=None)
    with pytest.raises(ModelError, match=r"has no sample_size.*as --size"):
        load_model(str(tmp_path / "model"))
    model = load_model(ModelSource(str(tmp_path / "model"), size=(16, 16)))
    assert model.identity["digest"] == load_model(str(tiny_model)).identity["digest"]


@pytest.mark.parametrize("name", ["/nowhere/model", "./model", "model", "a/b/c", "~/model", "x.safetensors"])
def test_a_path_that_isn_t_there_is_said_to_be_none(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"There is no model .* no such file or directory"):
        load_model(name)


def test_a_folder_that_is_here_was_meant_as_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    with pytest.raises(ModelError, match=r"no such file or directory"):
        check_source(ModelSource("models/sd"))


def test_a_hub_that_can_t_be_asked_is_told_within_a_second(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused at once
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.delenv(name, raising=False)
        began = time.monotonic()
        with pytest.raises(ModelError, match=r"can't be asked: there is no network to 127\.0\.0\.1"):
            load_model("no-one/nothing")
        assert time.monotonic() - began < 10
        taken.listen()
        assert hub.unreachable() is None
