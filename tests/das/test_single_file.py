"""Checkpoints in one file: read whole with a pipeline's configuration, or refused for what they are."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import families
import pytest
import single_files
import torch
from diffusers import DDPMScheduler, DiffusionPipeline, EulerDiscreteScheduler, PNDMScheduler
from safetensors.torch import load_file, save_file

from das.errors import ModelError
from das.models import load_model
from das.models.weights import LARGEST_HEADER_BYTES, header_of
from das.sources import ModelSource, conversion


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A pipeline of each family. Don't change them."""
    base = tmp_path_factory.mktemp("single")
    for name, make in families.FAMILIES.items():
        make(base / name)
    return {name: base / name for name in families.FAMILIES}


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline with the configuration of the first and other weights."""
    path = tmp_path_factory.mktemp("other") / "sd"
    families.make_stable_diffusion(path, seed=9)
    return path


def digest(source: ModelSource | str, told: list[str] | None = None) -> str:
    return load_model(source, tell=(told if told is not None else []).append).identity["digest"]


def test_a_checkpoint_by_the_first_codes_names_is_the_pipeline_it_was_made_of(directories, other, tmp_path):
    pipeline = DiffusionPipeline.from_pretrained(directories["stable-diffusion"])
    single_files.write(pipeline, tmp_path / "model.safetensors")
    names = set(load_file(tmp_path / "model.safetensors"))
    assert "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight" in names
    told: list[str] = []
    # The pipeline with other weights gives the configuration alone.
    found = digest(ModelSource(str(tmp_path / "model.safetensors"), str(other)), told)
    vae = other / "vae" / "config.json"
    assert json.loads(vae.read_text())["scaling_factor"] != pipeline.vae.config.scaling_factor
    assert found != digest(str(directories["stable-diffusion"]))  # the scaling factor is no weight
    config = str(directories["stable-diffusion"])
    assert digest(ModelSource(str(tmp_path / "model.safetensors"), config)) == digest(config)
    assert told == [
        "model.safetensors is a checkpoint of Stable Diffusion 1 or 2: unet, vae, text_encoder from it."
    ]


def test_what_a_file_lacks_is_taken_from_the_pipeline_and_told(directories, other, tmp_path):
    config = str(directories["stable-diffusion"])
    network = DiffusionPipeline.from_pretrained(other).unet
    state = {f"model.diffusion_model.{n}": t.clone() for n, t in network.state_dict().items()}
    save_file({**state, "model_ema.decay": torch.ones(1)}, tmp_path / "unet.safetensors")
    told: list[str] = []
    model = load_model(ModelSource(str(tmp_path / "unet.safetensors"), config), tell=told.append)
    assert all(torch.equal(t, network.state_dict()[n]) for n, t in model.network.state_dict().items())
    kept = DiffusionPipeline.from_pretrained(config).vae.state_dict()
    assert all(torch.equal(t, kept[n]) for n, t in model._modules()["vae"].state_dict().items())
    assert told[0].startswith("1 tensors of unet.safetensors aren't used: the moving average (EMA)")
    assert told[1].endswith(f"unet from it, vae, text_encoder from {config}.")


@pytest.mark.parametrize("family", ["stable-diffusion-xl", "stable-diffusion-3", "flux"])
@pytest.mark.parametrize("prefix", ["model.diffusion_model.", ""])
def test_a_network_alone_in_diffusers_naming_is_read_for_every_family(directories, tmp_path, family, prefix):
    config = directories[family]
    pipeline = DiffusionPipeline.from_pretrained(config)
    network = getattr(pipeline, families.adapter_of(pipeline).network_name)
    with torch.no_grad():
        next(network.parameters()).add_(1.0)
    state = {f"{prefix}{n}": t.clone() for n, t in network.state_dict().items()}
    save_file(state, tmp_path / "network.safetensors")
    model = load_model(ModelSource(str(tmp_path / "network.safetensors"), str(config)))
    assert model.identity["digest"] == families.adapter_of(pipeline).of(pipeline).identity["digest"]
    assert model.identity["digest"] != digest(str(config))


def test_an_sdxl_checkpoint_by_the_first_codes_names_is_read(directories, tmp_path):
    config = directories["stable-diffusion-xl"]
    pipeline = DiffusionPipeline.from_pretrained(config)
    single_files.write(pipeline, tmp_path / "xl.safetensors", text=False)
    told: list[str] = []
    assert digest(ModelSource(str(tmp_path / "xl.safetensors"), str(config)), told) == digest(str(config))
    assert "a checkpoint of SDXL: unet, vae from it, text_encoder, text_encoder_2 from" in told[-1]


def test_half_precision_is_computed_with_in_single(directories, tmp_path):
    config = str(directories["stable-diffusion"])
    pipeline = DiffusionPipeline.from_pretrained(config).to(torch.float16)
    single_files.write(pipeline, tmp_path / "half.safetensors")
    model = load_model(ModelSource(str(tmp_path / "half.safetensors"), config))
    assert model.dtype == torch.float32
    assert torch.equal(model.network.conv_in.weight, pipeline.unet.conv_in.weight.float())


def tensors(**shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    return {name.replace("__", "."): torch.zeros(shape) for name, shape in shapes.items()}


def unet_of(channels: int, **more: tuple[int, ...]) -> dict[str, torch.Tensor]:
    found = tensors(input_blocks__0__0__weight=(8, channels, 3, 3), **more)
    found["input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"] = torch.zeros(8, 768)
    return {f"model.diffusion_model.{name}": tensor for name, tensor in found.items()}


KINDS = {
    "inpainting": (unet_of(9), "an inpainting model, whose U-Net takes 9 channels"),
    "pix2pix": (unet_of(8), "an InstructPix2Pix model"),
    "depth": (unet_of(5), "a depth model"),
    "upscaler": (unet_of(7), "an upscaler"),
    "refiner": (
        unet_of(4, label_emb__0__0__weight=(8, 2560)),
        "is SDXL's refiner; give the base model",
    ),
    "refiner-by-encoder": (
        unet_of(4, label_emb__0__0__weight=(8, 99)) | tensors(conditioner__embedders__0__model__x=(1,)),
        "is SDXL's refiner",
    ),
    "video": (unet_of(4, middle_block__1__time_stack__0__w=(1,)), "a video model"),
    "video-by-convolutions": (unet_of(4, out__2__weight=(1, 1, 1, 1, 1)), "a video model"),
    "controlnet": (tensors(control_model__time_embed__0__weight=(2, 2)), "is a ControlNet"),
    "wan": (tensors(head__modulation=(1,)), "is a Wan video model"),
    "flux-fill": (
        tensors(double_blocks__0__img_attn__norm__key_norm__scale=(1,), img_in__weight=(2, 384)),
        "a FLUX.1 Fill, Canny or Depth model",
    ),
    "flux-2": (tensors(single_stream_modulation__lin__weight=(1,)), "is a FLUX.2 model"),
    "chroma": (tensors(distilled_guidance_layer__in_proj__bias=(1,)), "is a Chroma model"),
    "lora": (tensors(lora_unet_mid_block__lora_up__weight=(1, 1)), "is a LoRA: give it as --lora"),
    "quantised": (
        tensors(double_blocks__0__x__scale_weight=(1,), double_blocks__0__x__weight=(1,)),
        "is quantised, with scales of its own",
    ),
    "text-encoder": (tensors(text_encoders__clip_l__x=(1,)), "holds text encoders or a VAE and no network"),
    "unconditional": (
        tensors(conv_in__weight=(8, 3, 3, 3), down_blocks__0__resnets__0__conv1__weight=(8, 8, 3, 3)),
        r"without attention to text.*--network",
    ),
    "nothing": ({}, "holds no tensors"),
    "unknown": (tensors(a__b=(1,)), r"tensors of no naming that is known, such as a\.b"),
    "v-prediction": (unet_of(4) | {"v_pred": torch.zeros(1)}, "says that it predicts velocity"),
    "zero-terminal-snr": (unet_of(4) | {"ztsnr": torch.zeros(0)}, r"has rescale_betas_zero_snr true\."),
    "both-marks": (
        unet_of(4) | {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)},
        r"the prediction_type v_prediction and rescale_betas_zero_snr true \(ztsnr\)",
    ),
    "playground": (
        unet_of(4) | {"edm_mean": torch.zeros(4), "edm_std": torch.ones(4)},
        r"trained with EDM's noise \(edm_(mean|std)\)",
    ),
    "cosxl": (
        unet_of(4) | {"v_pred": torch.zeros(0), "edm_vpred.sigma_max": torch.ones(1)},
        r"trained with EDM's noise \(edm_vpred\.sigma_max\)",
    ),
    "another-family": (unet_of(4, label_emb__0__0__weight=(8, 2816)), "a checkpoint of SDXL by its tensors"),
    "another-size": (unet_of(4), r"The unet in .* doesn't fit the configuration|lacks tensors"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_isn_t_attributed_is_refused_by_its_name(directories, tmp_path, kind):
    stored, message = KINDS[kind]
    file = tmp_path / "model.safetensors"
    save_file(stored, file)
    with pytest.raises(ModelError, match=message) as refused:
        load_model(ModelSource(str(file), str(directories["stable-diffusion"])))
    assert str(file) in str(refused.value)


@pytest.fixture(scope="module")
def schedulers(tmp_path_factory: pytest.TempPathFactory, directories: dict[str, Path]) -> dict[str, Path]:
    """The same pipeline with schedulers of other settings, by what they are for."""
    base = tmp_path_factory.mktemp("schedulers")
    pipeline = DiffusionPipeline.from_pretrained(directories["stable-diffusion"])
    plain = pipeline.scheduler.config
    for name, kind, options in [
        ("v", DDPMScheduler, {"prediction_type": "v_prediction"}),
        ("v-zero", DDPMScheduler, {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}),
        ("zero", EulerDiscreteScheduler, {"rescale_betas_zero_snr": True}),
    ]:
        pipeline.scheduler = kind.from_config(plain, **options)
        pipeline.save_pretrained(base / name)
    return {"epsilon": directories["stable-diffusion"]} | {path.name: path for path in base.iterdir()}


@pytest.mark.parametrize(
    ("marks", "said", "fit"),
    [
        ([], None, {"epsilon", "v", "v-zero", "zero"}),  # says nothing
        (["v_pred"], None, {"v", "v-zero"}),
        (["ztsnr"], None, {"v-zero", "zero"}),
        (["v_pred", "ztsnr"], None, {"v-zero"}),
        (["v_pred", "ztsnr"], "v", {"v-zero"}),
        ([], "v", {"v", "v-zero"}),
        ([], "epsilon", {"epsilon", "zero"}),
        ([], "of my own", {"epsilon", "v", "v-zero", "zero"}),
    ],
)
def test_what_a_file_says_it_was_trained_for_has_to_be_the_schedulers(schedulers, tmp_path, marks, said, fit):
    file = tmp_path / "model.safetensors"
    single_files.write(
        DiffusionPipeline.from_pretrained(schedulers["epsilon"]),
        file,
        header=None if said is None else {"modelspec.prediction_type": said},
        **{mark: torch.zeros(0) for mark in marks},
    )
    told: list[str] = []
    for name, config in schedulers.items():
        source = ModelSource(str(file), str(config))
        if name in fit:
            schedule = load_model(source, tell=told.append).schedule
            assert schedule.prediction_type == ("v_prediction" if name.startswith("v") else "epsilon")
            assert schedule.ends_in_noise == name.endswith("zero")
        else:
            with pytest.raises(ModelError, match=r"let --config name a pipeline whose scheduler has"):
                load_model(source)
    assert not any("aren't used" in sentence for sentence in told)


def test_a_scheduler_that_ignores_a_zero_terminal_snr_is_refused(schedulers, tmp_path):
    pipeline = DiffusionPipeline.from_pretrained(schedulers["v-zero"])
    pipeline.scheduler = PNDMScheduler.from_config(pipeline.scheduler.config)
    pipeline.save_pretrained(tmp_path / "pipeline")
    with pytest.raises(ModelError, match="PNDMScheduler doesn't know rescale_betas_zero_snr"):
        load_model(str(tmp_path / "pipeline"))


def test_a_file_without_a_tensor_or_with_one_too_many_is_refused(directories, tmp_path):
    config = str(directories["stable-diffusion"])
    file = tmp_path / "model.safetensors"
    single_files.write(DiffusionPipeline.from_pretrained(config), file)
    whole = load_file(file)
    name = "model.diffusion_model.out.2.bias"
    save_file({n: t for n, t in whole.items() if n != name}, file)
    with pytest.raises(ModelError, match="lacks tensors of the unet, which would be random"):
        load_model(ModelSource(str(file), config))
    save_file({**whole, "model.diffusion_model.input_blocks.77.0.weight": torch.ones(3)}, file)
    with pytest.raises(
        ModelError, match=r"doesn't fit the unet of .* numbers, and the configuration has room for"
    ):
        load_model(ModelSource(str(file), config))
    save_file({**whole, name: torch.zeros(5)}, file)
    with pytest.raises(ModelError, match=r"conv_out\.bias expected shape .*\[4\].*got .*\[5\]"):
        load_model(ModelSource(str(file), config))
    encoder = "cond_stage_model.transformer.text_model.final_layer_norm.bias"
    save_file({n: t for n, t in whole.items() if n != encoder}, file)
    with pytest.raises(ModelError, match="lacks tensors of the text_encoder"):
        load_model(ModelSource(str(file), config))
    renamed = {n.replace("transformer.text_model.", "embeddings."): t for n, t in whole.items()}
    save_file(renamed, file)
    with pytest.raises(ModelError, match="text_encoder"):
        load_model(ModelSource(str(file), config))


def header(length: int, content: bytes = b"{}") -> bytes:
    return struct.pack("<Q", length) + content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"abc", "is cut short: it has 3 bytes"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "is a Git LFS pointer"),
        (b"\n <!DOCTYPE html><html></html>", "is a web page that was saved under this name"),
        (b"<HTML>", "is a web page"),
        (b'{"error": "unauthorised"}', "is text, such as a server's error"),
        (b"GGUF\x03\x00\x00\x00more", "is a GGUF file"),
        (b"PK\x03\x04 and so on", "a pickle or an archive named like a safetensors file"),
        (b"\x80\x02}q\x00(X\x00\x00", "a pickle or an archive named like a safetensors file"),
        (header(2**63), "the header would have 9,223,372,036,854,775,808 bytes"),
        (header(LARGEST_HEADER_BYTES), "is cut short: .* its header alone takes"),
        (header(2, b"[]"), "its header can't be read"),
        (header(9, b"\xff" * 9), "its header can't be read"),
        (header(100_000, b'{"a":' + b"[" * 99_995), "its header can't be read"),
        (header(5, b'{"a":'), "its header can't be read"),
        (header(47, b'{"a":{"dtype":"F32","shape":[1],"data_offsets":'), "its header can't be read"),
        (
            header(54, b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}'[:54] + b"}"),
            "is cut short|its header can't be read",
        ),
    ],
)
def test_a_file_that_isn_t_what_it_is_named_is_told_as_what_it_is(directories, tmp_path, content, message):
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        load_model(ModelSource(str(file), str(directories["stable-diffusion"])))


def test_a_file_that_was_cut_short_says_by_how_much(tmp_path):
    save_file({"a": torch.zeros(100)}, tmp_path / "a.safetensors")
    whole = (tmp_path / "a.safetensors").read_bytes()
    assert header_of(tmp_path / "a.safetensors") == {"a": ("F32", (100,))}
    (tmp_path / "a.safetensors").write_bytes(whole[:-8])
    with pytest.raises(
        ModelError, match=f"it has {len(whole) - 8} bytes, and its header speaks of {len(whole)}"
    ):
        header_of(tmp_path / "a.safetensors")


@pytest.mark.parametrize("ending", [".ckpt", ".pt", ".pth", ".bin"])
def test_a_pickle_is_refused_and_the_line_that_is_told_converts_it(directories, tmp_path, ending):
    config = str(directories["stable-diffusion"])
    pipeline = DiffusionPipeline.from_pretrained(config)
    single_files.write(pipeline, tmp_path / "plain.safetensors")
    file = tmp_path / f"it's a model{ending}"
    torch.save({"state_dict": load_file(tmp_path / "plain.safetensors"), "epoch": 3}, file)
    with pytest.raises(ModelError) as refused:
        load_model(ModelSource(str(file), config))
    line = str(refused.value).partition("give the new file: ")[2]
    assert line == conversion(file)
    subprocess.run(["bash", "-c", line.replace("python", sys.executable, 1)], check=True)
    assert digest(ModelSource(str(file.with_suffix(".safetensors")), config)) == digest(config)


def test_a_single_file_needs_a_configuration_and_nothing_else_takes_one(directories, tmp_path):
    config = directories["stable-diffusion"]
    save_file({"a": torch.zeros(1)}, tmp_path / "m.safetensors")
    for source, message in [
        (ModelSource(str(tmp_path / "m.safetensors")), "a single file.*add --config PIPELINE"),
        (ModelSource(str(config), str(config)), "--config goes with a single file, and .* is a directory"),
        (ModelSource("gone.safetensors", str(config)), "isn't a file that is here"),
        (
            ModelSource(str(tmp_path / "m.safetensors"), str(tmp_path / "m.safetensors")),
            "--config .* is a file",
        ),
        (ModelSource(str(tmp_path / "m.safetensors"), str(tmp_path / "gone")), "There is no model"),
    ]:
        with pytest.raises(ModelError, match=message):
            load_model(source)
