"""LoRAs on every family: trained on real photographs, saved in each format, loaded completely or refused."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import families
import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, StableDiffusionPipeline, UNet2DModel
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from das.errors import ModelError
from das.estimators import das_block_scores
from das.gradients import FeatureConfig, FeatureExtractor, PerExampleGradients, attributed_parameters
from das.kernel import KernelAccumulator, damped_kernel, effective_dimension_target, prepared
from das.models import load_model
from das.models.loading import adapter_for, load_pipeline
from das.models.lora import without_lora

ROOT = Path(__file__).parent.parent.parent
WORKS, PLANTED, OFTEN = 24, (5, 17), 30
CONVOLUTIONS = ("to_q", "attn2.to_v", "conv1", "conv_in", "proj_in", "time_emb_proj")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stable Diffusion pipeline."""
    folder = tmp_path_factory.mktemp("lora") / "base"
    families.make_stable_diffusion(folder)
    return folder


@pytest.fixture(scope="module")
def tuned(base: Path) -> Path:
    """LoRAs of `base` on its attention and convolutions: one in diffusers' format, one in peft's."""
    pipeline = load_pipeline(str(base), adapter_for(str(base)))
    pictures, prompts = families.photographs(4)
    wrapped = families.finetune_lora(pipeline, pictures, prompts, [1] * 4, 3, 0, layers=CONVOLUTIONS)
    folder = base.parent / "tuned"
    families.save_lora(pipeline, wrapped, folder / "diffusers")
    wrapped.save_pretrained(folder / "peft")
    return folder


def prediction(model) -> torch.Tensor:
    x = torch.randn(2, *model.sample_shape, generator=torch.Generator().manual_seed(1))
    return model.predict(x, torch.tensor([10, 700]), model.condition(["a cat", None])).detach()


@pytest.mark.parametrize("family", families.FAMILIES)
def test_a_lora_goes_from_training_through_its_files_to_scores(family, tmp_path):
    """The planted works come first for their own pictures: works, prompts and LoRA are wired up rightly.

    It says nothing of influence, since a picture is its own best match under an untrained LoRA too.
    """
    families.FAMILIES[family](tmp_path / "base")
    source = str(tmp_path / "base")
    pipeline = load_pipeline(source, adapter_for(source))
    pictures, prompts = families.photographs(WORKS)
    repeats = [OFTEN if row in PLANTED else 1 for row in range(WORKS)]
    wrapped = families.finetune_lora(pipeline, pictures, prompts, repeats, 40, 0)
    families.save_lora(pipeline, wrapped, tmp_path / "diffusers")
    wrapped.save_pretrained(tmp_path / "peft")
    trained = prediction(families.adapter_of(pipeline).of(pipeline))

    model, other = (load_model(source, lora=str(tmp_path / format)) for format in ("diffusers", "peft"))
    # The scaling α/r of 2 is as saved, in both formats.
    torch.testing.assert_close(prediction(model), trained, rtol=0, atol=0)
    torch.testing.assert_close(prediction(other), trained, rtol=0, atol=0)
    assert model.identity["digest"] == other.identity["digest"] != load_model(source).identity["digest"]
    assert float((prediction(load_model(source)) - trained).norm()) > 0.01 * float(trained.norm())

    steps, dimension = tuple(range(100, 1000, 200)), 256
    options = FeatureConfig(dimension=dimension, probes=("loss",), timesteps=steps)
    extractor = FeatureExtractor(model, options, batch_size=40)
    assert not extractor._gradients.fallback
    assert all(".lora_" in name for name in extractor.parameters)
    assert len(extractor.parameters) == len(get_peft_model_state_dict(wrapped))
    features = extractor.features(model.encode(pictures), model.condition(prompts)).by_probe["loss"]
    features = prepared(features, normalise=True)
    accumulator = KernelAccumulator("block", dimension)
    accumulator.add(features, torch.tensor(repeats))
    target = effective_dimension_target("block", WORKS, len(steps), dimension)
    kernel = damped_kernel(accumulator.matrix, accumulator.total_weight, target=target)
    works = kernel.whiten(prepared(features, normalise=True).mean(1))
    products, leverage = (works[list(PLANTED)] @ works.T).numpy(), len(steps) * works.square().sum(1).numpy()
    scores = das_block_scores(products, leverage, np.array(repeats), np.array(repeats))
    assert scores.argmax(1).tolist() == list(PLANTED)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-10)])
def test_gradients_of_lora_matrices_equal_autograd_convolutions_included(base, tuned, dtype, tolerance):
    model = load_model(str(base), lora=str(tuned / "diffusers"))
    network = model.network.to(dtype)
    parameters = attributed_parameters(network, "auto")
    assert len(parameters) == len(load_file(tuned / "peft" / "adapter_model.safetensors"))
    shapes = {parameter.shape[2:] for parameter in parameters.values()}
    assert shapes == {(), (1, 1), (3, 3)}
    x = torch.randn(3, *model.sample_shape, dtype=dtype, generator=torch.Generator().manual_seed(2))
    t, given = torch.tensor([5, 300, 900]), model.condition(["a cat", None, "a clock"])
    gradients = PerExampleGradients(network, parameters)
    gradients.settle(lambda: model.predict(x[:2], t[:2], {name: v[:2] for name, v in given.items()}))
    assert not gradients.fallback
    found: dict[str, torch.Tensor] = {}

    def sink(name: str, gradient: torch.Tensor, rows: slice) -> None:
        found[name] = found.get(name, 0) + gradient

    with gradients.recording(sink) as backward:
        output = model.predict(x, t, given)
        backward(output, torch.ones_like(output))
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    for b in range(3):
        alone = model.predict(x[b : b + 1], t[b : b + 1], {name: v[b : b + 1] for name, v in given.items()})
        plain = torch.autograd.grad(alone.sum(), list(parameters.values()))
        for name, expected in zip(parameters, plain, strict=True):
            assert float((found[name][b] - expected).norm()) <= tolerance * float(expected.norm()), name


def test_a_lora_changes_nothing_but_the_network(base, tuned):
    plain, model = load_model(str(base)), load_model(str(base), lora=str(tuned / "diffusers"))
    kept = {
        name.replace(".base_layer.", "."): values
        for name, values in model.network.state_dict().items()
        if ".lora_" not in name
    }
    before = plain.network.state_dict()
    assert kept.keys() == before.keys()
    assert all(torch.equal(values, before[name]) for name, values in kept.items())
    pictures = families.photographs(2)[0]
    torch.testing.assert_close(model.encode(pictures), plain.encode(pictures), rtol=0, atol=0)
    # What is frozen can be attributed too, by asking for it.
    assert len(attributed_parameters(model.network, "all")) > len(before)


def test_the_naming_of_kohya_is_read(base, tuned, tmp_path):
    """`lora_unet_…` with underscores for dots, `lora_down`, `lora_up` and an alpha beside them."""
    kept = {}
    for name, tensor in load_file(tuned / "diffusers" / "pytorch_lora_weights.safetensors").items():
        layer, _, matrix = name.removeprefix("unet.").rpartition(".lora_")
        if "attentions" in layer and layer.endswith(("to_q", "to_v")):
            layer = "lora_unet_" + layer.replace(".", "_")
            kept[f"{layer}.lora_{'down' if matrix.startswith('A') else 'up'}.weight"] = tensor
            kept[f"{layer}.alpha"] = torch.tensor(4.0)
    save_file(kept, tmp_path / "style.safetensors")
    kohya = load_model(str(base), lora=str(tmp_path / "style.safetensors"))
    reference = load_model(str(base), lora=str(tuned / "peft"))
    assert len(attributed_parameters(kohya.network, "lora")) == 2 * len(kept) // 3
    for name, module in reference.network.named_modules():
        if hasattr(module, "lora_A") and not name.endswith(("to_q", "to_v")):
            module.scaling["default"] = 0.0
    torch.testing.assert_close(prediction(kohya), prediction(reference), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layout", ["diffusers", "peft"])
def test_the_network_without_its_lora_is_the_base(base, tuned, layout):
    model = load_model(str(base), lora=str(tuned / layout))
    with_it, alone = prediction(model), prediction(load_model(str(base)))
    identity = model.identity
    with without_lora(model.network):
        torch.testing.assert_close(prediction(model), alone, rtol=1e-5, atol=1e-6)
        assert (alone - with_it).abs().max() > 1e-3
    torch.testing.assert_close(prediction(model), with_it)
    assert model.identity == identity


def test_half_precision_loras_compute_in_single_precision(base, tuned, tmp_path):
    state = load_file(tuned / "diffusers" / "pytorch_lora_weights.safetensors")
    save_file({name: tensor.half() for name, tensor in state.items()}, tmp_path / "half.safetensors")
    model = load_model(str(base), lora=str(tmp_path))
    assert {parameter.dtype for parameter in model.network.parameters()} == {torch.float32}


def test_the_identity_is_of_the_matrices_and_their_scaling(base, tuned, tmp_path):
    first = load_model(str(base), lora=str(tuned / "peft")).identity["digest"]
    changed = shutil.copytree(tuned / "peft", tmp_path / "changed")
    config = changed / "adapter_config.json"
    config.write_text(config.read_text().replace('"lora_alpha": 4', '"lora_alpha": 5'))
    assert load_model(str(base), lora=str(changed)).identity["digest"] != first
    state = load_file(tuned / "peft" / "adapter_model.safetensors")
    next(iter(state.values())).view(-1)[0] += 1e-5
    save_file(state, tuned.parent / "touched.safetensors")
    shutil.copytree(tuned / "peft", tmp_path / "touched")
    shutil.copy(tuned.parent / "touched.safetensors", tmp_path / "touched" / "adapter_model.safetensors")
    assert load_model(str(base), lora=str(tmp_path / "touched")).identity["digest"] != first


def test_a_lora_on_a_model_without_text(tmp_path):
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=8,
        layers_per_block=1,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    )
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained(tmp_path / "base")
    wrapped = get_peft_model(unet, LoraConfig(r=2, target_modules=["conv1"], init_lora_weights=False))
    wrapped.save_pretrained(tmp_path / "peft")
    model = load_model(str(tmp_path / "base"), lora=str(tmp_path / "peft"))
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([3, 500])
    torch.testing.assert_close(model.predict(x, t, {}), unet(x, t).sample, rtol=0, atol=0)
    assert all(".lora_" in name for name in attributed_parameters(model.network, "auto"))
    assert model.identity["digest"] != load_model(str(tmp_path / "base")).identity["digest"]
    save_file({"unet.x.lora_A.weight": torch.ones(1, 1)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match=r"unet\.x, a LoRA, lacks its up matrix"):
        load_model(str(tmp_path / "base"), lora=str(tmp_path / "other.safetensors"))


def edited(tuned: Path, to: Path, **replacements: str) -> Path:
    """The diffusers LoRA with parts of its tensors' names replaced."""
    state = load_file(tuned / "diffusers" / "pytorch_lora_weights.safetensors")
    for old, new in replacements.items():
        state = {name.replace(old, new): tensor for name, tensor in state.items()}
    to.mkdir()
    save_file(state, to / "pytorch_lora_weights.safetensors")
    return to


def one_layer_elsewhere(tuned: Path, to: Path) -> Path:
    state = load_file(tuned / "diffusers" / "pytorch_lora_weights.safetensors")
    moved = {
        name.replace("down_blocks.0.resnets", "down_blocks.7.resnets"): tensor
        for name, tensor in state.items()
    }
    to.mkdir()
    save_file(moved, to / "pytorch_lora_weights.safetensors")
    return to


def a_matrix_short(tuned: Path, to: Path) -> Path:
    state = load_file(tuned / "diffusers" / "pytorch_lora_weights.safetensors")
    state.pop(next(name for name in state if "lora_A" in name))
    to.mkdir()
    save_file(state, to / "pytorch_lora_weights.safetensors")
    return to


def several(tuned: Path, to: Path) -> Path:
    to.mkdir()
    for name in ("one", "two"):
        shutil.copy(tuned / "diffusers" / "pytorch_lora_weights.safetensors", to / f"{name}.safetensors")
    return to


def empty(tuned: Path, to: Path) -> Path:
    to.mkdir()
    return to


def pickled(tuned: Path, to: Path) -> Path:
    to.mkdir()
    torch.save({}, to / "pytorch_lora_weights.bin")
    return to / "pytorch_lora_weights.bin"


def of_a_text_encoder(tuned: Path, to: Path) -> Path:
    text = {
        f"text_model.encoder.layers.0.self_attn.q_proj.lora_{which}.weight": torch.ones(shape)
        for which, shape in (("A", (2, 16)), ("B", (16, 2)))
    }
    StableDiffusionPipeline.save_lora_weights(to, text_encoder_lora_layers=text)
    return to


def peft_changed(old: str, new: str):
    def change(tuned: Path, to: Path) -> Path:
        shutil.copytree(tuned / "peft", to)
        config = to / "adapter_config.json"
        text = config.read_text()
        assert old in text
        config.write_text(text.replace(old, new))
        return to

    return change


def peft_without_weights(tuned: Path, to: Path) -> Path:
    shutil.copytree(tuned / "peft", to)
    (to / "adapter_model.safetensors").unlink()
    return to


def damaged(tuned: Path, to: Path) -> Path:
    shutil.copytree(tuned / "diffusers", to)
    file = to / "pytorch_lora_weights.safetensors"
    file.write_bytes(file.read_bytes()[:500])
    return to


def of_another_family(tuned: Path, to: Path) -> Path:
    """A LoRA of SD XL, whose cross attention is wider."""
    families.make_sdxl(to / "base")
    pipeline = load_pipeline(str(to / "base"), adapter_for(str(to / "base")))
    pictures, prompts = families.photographs(2)
    wrapped = families.finetune_lora(pipeline, pictures, prompts, [1, 1], 1, 0)
    families.save_lora(pipeline, wrapped, to / "lora")
    return to / "lora"


def of_a_transformer(tuned: Path, to: Path) -> Path:
    return edited(tuned, to, **{"unet.": "transformer."})


def peft_of_a_text_encoder(tuned: Path, to: Path) -> Path:
    encoder = families.clip_encoder(families.clip_tokenizer())
    get_peft_model(encoder, LoraConfig(target_modules=["q_proj"])).save_pretrained(to)
    return to


REFUSED = {
    "no-such-file": (lambda tuned, to: to / "nowhere.safetensors", "no such file or directory"),
    "empty-directory": (empty, "there is none"),
    "several-files": (several, r"there is one\.safetensors, two\.safetensors"),
    "pickle": (pickled, "is a pickled file.*weights_only=True.*save_file"),
    "damaged": (damaged, "is cut short: it has 500 bytes"),
    "text-encoder": (of_a_text_encoder, "changes only text_encoder"),
    "no-layer-fits": (
        lambda tuned, to: edited(tuned, to, attentions="attention"),
        r"32 of the 66 tensors .* no layer of the UNet2DConditionModel .* such as unet\.down_blocks\.0\.attention\.",
    ),
    "one-layer-too-many": (one_layer_elsewhere, r"4 of the 66 tensors .* such as unet\.down_blocks\.7"),
    "a-matrix-is-missing": (a_matrix_short, "conv_in, a LoRA, lacks its down matrix"),
    "another-family": (of_another_family, "is 2 × 32, and the layer that it is for needs 2 × 16"),
    "a-transformer": (of_a_transformer, "66 of the 66 .* naming isn't known, or it is for another network"),
    "peft-not-lora": (peft_changed('"peft_type": "LORA"', '"peft_type": "IA3"'), "of type IA3"),
    "peft-with-biases": (peft_changed('"bias": "none"', '"bias": "all"'), "bias='all'"),
    "peft-of-a-text-encoder": (peft_of_a_text_encoder, "4 of the 4 tensors"),
    "peft-on-fewer-layers": (
        peft_changed('"conv_in"', '"conv_out"'),
        "the tensors are of conv_in, and the settings don't name it",
    ),
    "peft-without-weights": (peft_without_weights, "has no adapter_model.safetensors"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_lora_that_does_not_belong_is_refused_with_the_reason(base, tuned, tmp_path, kind):
    make, message = REFUSED[kind]
    source = make(tuned, tmp_path / "lora")
    with pytest.raises(ModelError, match=message):
        load_model(str(base), lora=str(source))


def test_pipeline_and_lora_are_found_by_hub_ids(base, tuned, tmp_path):
    """In the hub's own cache, without a network."""
    repositories = {
        "models--someone--base": base,
        "models--someone--style": tuned / "diffusers",
        "models--someone--adapter": tuned / "peft",
    }
    for name, folder in repositories.items():
        snapshot = tmp_path / name / "snapshots" / ("0" * 40)
        shutil.copytree(folder, snapshot)
        (tmp_path / name / "refs").mkdir()
        (tmp_path / name / "refs" / "main").write_text("0" * 40)
    script = """
from das.models import load_model
from das.errors import ModelError
for lora in (None, "someone/style", "someone/style/pytorch_lora_weights.safetensors", "someone/adapter"):
    print(load_model("someone/base", lora=lora).identity["digest"])
for model, lora in (("someone/none", None), ("someone/base", "someone/none")):
    try:
        load_model(model, lora=lora)
    except ModelError as error:
        print("refused")
"""
    told = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"},
    )
    assert told.returncode == 0, told.stderr
    expected = load_model(str(base), lora=str(tuned / "peft")).identity["digest"]
    plain = load_model(str(base)).identity["digest"]
    assert told.stdout.split() == [plain, expected, expected, expected, "refused", "refused"]
