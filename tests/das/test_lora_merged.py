"""LoRAs of every kind and naming: what they compute is what their weights, merged by hand, compute."""

from typing import Any

import families
import pytest
import torch
from lora_files import (
    PICTURE,
    Merging,
    add_dotted,
    add_plain,
    agree,
    attention_layers,
    convolutions,
    kohya,
    loha,
    lokr,
    lora_parameters,
    output,
    pipeline_of,
    same_conditioning,
    same_conditioning_as,
    tucker,
)
from peft import LoHaConfig, LoKrConfig, LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor, nn

from das.errors import SettingsError
from das.gradients import PerExampleGradients, attributed_parameters
from das.models import load_model
from das.models.lora import as_base, loras_of


@pytest.mark.parametrize("family", ["stable-diffusion", "stable-diffusion-xl"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 1e-3), (torch.bfloat16, 1e-3)]
)
def test_every_layer_of_a_resized_lora_has_the_scale_that_the_file_gives(
    bases, tmp_path, family, dtype, tolerance
):
    """kohya's resize gives each layer a rank and an alpha of its own; diffusers makes one of them all."""
    made = Merging(bases[family])
    expected = {}
    for number, path in enumerate(attention_layers(made.component("unet"))):
        rank, alpha = 1 + number % 4, (0.5, 1.0, 3.0, 8.0, 2.5)[number % 5]
        weight = made.component("unet").get_submodule(path).weight
        down, up = (made.normal(*shape).to(dtype) for shape in ((rank, weight.shape[1]), (len(weight), rank)))
        layer = f"lora_unet_{kohya(path)}"
        made.tensors |= {
            f"{layer}.lora_down.weight": down,
            f"{layer}.lora_up.weight": up,
            f"{layer}.alpha": torch.tensor(alpha).to(dtype),
        }
        made.merge("unet", path, alpha / rank * up.float() @ down.float())
        expected[path] = alpha / rank
    model = made.compare(bases[family], tmp_path / "resized.safetensors", tolerance)
    found = {
        name: layer.scaling for name, layer in model.network.named_modules() if hasattr(layer, "scaling")
    }
    assert found == {path: {"default": scale} for path, scale in expected.items()}
    assert len(set(expected.values())) > 10


@pytest.mark.parametrize("family", ["stable-diffusion", "stable-diffusion-xl"])
def test_text_encoders_of_a_kohya_file_change_the_conditioning(bases, tmp_path, family):
    made = Merging(bases[family])
    add_plain(made, "unet", "lora_unet_", attention_layers(made.component("unet"))[:3])
    encoders = {"text_encoder": "lora_te_", "text_encoder_2": "lora_te2_"}
    if family == "stable-diffusion-xl":
        encoders["text_encoder"] = "lora_te1_"
    else:
        del encoders["text_encoder_2"]
    for name, prefix in encoders.items():
        add_plain(made, name, prefix, attention_layers(made.component(name)), outer="text_model.")
    model = made.compare(bases[family], tmp_path / "text.safetensors")
    merged, plain = families.adapter_of(made.pipeline).of(made.pipeline), load_model(str(bases[family]))
    same_conditioning(model, merged, plain)
    assert set(loras_of(model.network)[0].text_encoders) == set(encoders)
    assert "not attributed" in loras_of(model.network)[0].describe()
    assert all(name.startswith(("down_blocks", "up_blocks", "mid")) for name in lora_parameters(model))
    with as_base(model):
        same_conditioning_as(model, plain)
        torch.testing.assert_close(output(model), output(plain), rtol=1e-5, atol=1e-6)
    same_conditioning(model, merged, plain)


@pytest.mark.parametrize(
    ("family", "second"), [("flux", "lora_te3_"), ("flux", "text_encoder_2."), ("stable-diffusion-3", "")]
)
def test_text_encoders_of_transformers_change_the_conditioning(bases, tmp_path, family, second):
    """FLUX and SD3: CLIP by kohya's names or diffusers', T5 by those too."""
    made = Merging(bases[family])
    add_dotted(made, "transformer", "transformer.", attention_layers(made.component("transformer"))[:3])
    add_plain(
        made,
        "text_encoder",
        "lora_te1_",
        attention_layers(made.component("text_encoder")),
        outer="text_model.",
    )
    if family == "stable-diffusion-3":
        paths = attention_layers(made.component("text_encoder_2"))
        add_dotted(made, "text_encoder_2", "text_encoder_2.", paths)
        t5, second = "text_encoder_3", "lora_te3_"
    else:
        t5 = "text_encoder_2"
    paths = [f"encoder.block.{block}.layer.0.SelfAttention.{part}" for block in (0, 1) for part in "qv"]
    if second.endswith("_"):
        add_plain(made, t5, second, paths)
    else:
        add_dotted(made, t5, second, paths)
    model = made.compare(bases[family], tmp_path / "text.safetensors")
    plain = load_model(str(bases[family]))
    same_conditioning(model, families.adapter_of(made.pipeline).of(made.pipeline), plain)
    assert t5 in loras_of(model.network)[0].text_encoders


def mixed_layers(unet: nn.Module) -> list[str]:
    """Linear layers, and convolutions with and without a stride."""
    found = attention_layers(unet)[::7] + convolutions(unet)[::3]
    return found + [name for name in convolutions(unet) if "downsamplers" in name and name not in found]


@pytest.mark.parametrize("side", ["outputs", "inputs"])
@pytest.mark.parametrize("family", ["stable-diffusion", "stable-diffusion-xl"])
def test_a_dora_of_lycoris_equals_its_merged_weights(bases, tmp_path, family, side):
    made = Merging(bases[family])
    for path in mixed_layers(made.component("unet")):
        layer = made.component("unet").get_submodule(path)
        shape = layer.weight.shape
        down, up = made.normal(3, *shape[1:]), made.normal(shape[0], 3, *[1] * (len(shape) - 2))
        whole = layer.weight.detach() + 2 / 3 * (up.flatten(1) @ down.flatten(1)).reshape(shape)
        kept = (shape[0], 1) if side == "outputs" else (1, shape[1])
        magnitude = 0.5 + torch.rand(*kept, *[1] * (len(shape) - 2), generator=made.random)
        others = [number for number, size in enumerate(kept) if size == 1] + list(range(2, len(shape)))
        merged = magnitude * whole / whole.pow(2).sum(others, keepdim=True).sqrt()
        name = f"lora_unet_{kohya(path)}"
        made.tensors |= {
            f"{name}.lora_down.weight": down,
            f"{name}.lora_up.weight": up,
            f"{name}.alpha": torch.tensor(2.0),
            f"{name}.dora_scale": magnitude,
        }
        made.merge("unet", path, merged - layer.weight.detach())
    model = made.compare(bases[family], tmp_path / "dora.safetensors")
    assert set(loras_of(model.network)[0].kinds) == {"DoRA"}
    with as_base(model):
        torch.testing.assert_close(
            output(model), output(load_model(str(bases[family]))), rtol=1e-5, atol=1e-6
        )
    same_gradients(model)


def same_gradients(model: Any) -> None:
    """Every matrix is served by the batched rules, and each example's gradient is autograd's."""
    parameters = lora_parameters(model)
    x = torch.randn(2, *model.sample_shape, generator=torch.Generator().manual_seed(2))
    t, given = torch.tensor([5, 300]), model.condition([PICTURE, None])
    gradients = PerExampleGradients(model.network, parameters)
    gradients.settle(lambda: model.predict(x.clone(), t, given))
    raw = {name for name in parameters if "hada_" in name or "lokr_" in name}
    assert set(gradients.fallback) == raw
    found: dict[str, Tensor] = {}
    with gradients.recording(lambda name, g, rows: found.update({name: found.get(name, 0) + g})) as backward:
        predicted = model.predict(x, t, given)
        backward(predicted, torch.ones_like(predicted))
    assert found.keys() == parameters.keys()


def test_a_dora_is_the_same_from_peft_and_from_kohya(bases, tmp_path):
    base = bases["stable-diffusion"]
    pipeline = pipeline_of(base)
    torch.manual_seed(3)
    targets = ["to_q", "attn2.to_v", "conv1"]
    config = LoraConfig(r=3, lora_alpha=2, target_modules=targets, use_dora=True, init_lora_weights=False)
    wrapped = get_peft_model(pipeline.unet, config)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "magnitude" in name:
                parameter *= 1.5
    wrapped.save_pretrained(tmp_path / "peft")
    expected = output(families.adapter_of(pipeline).of(pipeline))
    tensors = {}
    for name, tensor in get_peft_model_state_dict(wrapped).items():
        path, _, last = name.removeprefix("base_model.model.").rpartition(".lora_")
        layer = f"lora_unet_{kohya(path)}"
        tensors[f"{layer}.alpha"] = torch.tensor(2.0)
        if last.startswith("magnitude"):
            shape = (-1, 1) if tensor.dim() == 1 else (-1, 1, 1, 1)
            tensors[f"{layer}.dora_scale"] = tensor.reshape(shape).contiguous()
        else:
            tensors[f"{layer}.lora_{'down' if last.startswith('A') else 'up'}.weight"] = tensor.contiguous()
    save_file(tensors, tmp_path / "kohya.safetensors")
    models = [load_model(str(base), lora=str(tmp_path / name)) for name in ("peft", "kohya.safetensors")]
    assert models[0].identity["digest"] == models[1].identity["digest"]
    for model in models:
        assert float((output(model) - expected).abs().max()) < 1e-5
        assert set(loras_of(model.network)[0].kinds) == {"DoRA"}


@pytest.mark.parametrize("cp", [False, True])
@pytest.mark.parametrize("kind", [loha, lokr, tucker])
@pytest.mark.parametrize("family", ["stable-diffusion", "stable-diffusion-xl"])
def test_lycoris_kinds_equal_their_merged_weights(bases, tmp_path, family, kind, cp):
    made = Merging(bases[family])
    for path in mixed_layers(made.component("unet")):
        shape = made.component("unet").get_submodule(path).weight.shape
        if any(side % 2 for side in shape[:2]):
            continue
        parts, whole, rank = kind(made, shape, cp=cp)
        name = f"lora_unet_{kohya(path)}"
        made.tensors |= {f"{name}.{role}": tensor for role, tensor in parts.items()}
        made.tensors[f"{name}.alpha"] = torch.tensor(1.5)
        made.merge("unet", path, 1.5 / rank * whole)
    model = made.compare(bases[family], tmp_path / "lycoris.safetensors")
    assert len(lora_parameters(model)) == sum(".alpha" not in name for name in made.tensors)
    if family == "stable-diffusion":
        same_gradients(model)


@pytest.mark.parametrize("kind", [LoHaConfig, LoKrConfig])
def test_loha_and_lokr_of_peft_are_loaded(bases, tmp_path, kind):
    base = bases["stable-diffusion"]
    pipeline = pipeline_of(base)
    torch.manual_seed(4)
    wrapped = get_peft_model(
        pipeline.unet, kind(r=2, alpha=3, target_modules=["to_q", "conv1"], init_weights=False)
    )
    wrapped.save_pretrained(tmp_path)
    merged = families.adapter_of(pipeline).of(pipeline)
    agree(load_model(str(base), lora=str(tmp_path)), merged, load_model(str(base)))


def test_several_loras_add_up_with_their_weights(bases, tmp_path):
    base = bases["stable-diffusion"]
    both = Merging(base)
    layers = attention_layers(both.component("unet"))
    for number, (name, weight) in enumerate((("a", 0.8), ("b", -0.5))):
        made = Merging(base)
        made.random.manual_seed(number)
        before = {path: made.component("unet").get_submodule(path).weight.clone() for path in layers}
        add_plain(made, "unet", "lora_unet_", layers[number : number + 4])
        for path in layers[number : number + 4]:
            both.merge(
                "unet", path, weight * (made.component("unet").get_submodule(path).weight - before[path])
            )
        save_file(made.tensors, tmp_path / f"{name}.safetensors")
    given = [f"{tmp_path}/a.safetensors:0.8", f"{tmp_path}/b.safetensors:-0.5"]
    model, plain = load_model(str(base), lora=given), load_model(str(base))
    agree(model, families.adapter_of(both.pipeline).of(both.pipeline), plain)
    apart = [attributed_parameters(model.network, which) for which in ("lora1", "lora2")]
    assert [len(chosen) for chosen in apart] == [8, 8]
    assert lora_parameters(model).keys() == apart[0].keys() | apart[1].keys()
    with as_base(model):
        torch.testing.assert_close(output(model), output(plain), rtol=1e-5, atol=1e-6)
    other = load_model(str(base), lora=[given[0], f"{tmp_path}/b.safetensors:-0.4"])
    assert other.identity["digest"] != model.identity["digest"]
    with pytest.raises(SettingsError, match="given twice"):
        load_model(str(base), lora=[given[0], f"{tmp_path}/a.safetensors"])


def test_a_weight_scales_what_a_dora_adds(bases, tmp_path):
    base = bases["stable-diffusion"]
    pipeline = pipeline_of(base)
    torch.manual_seed(3)
    wrapped = get_peft_model(
        pipeline.unet, LoraConfig(r=3, target_modules=["conv_out"], use_dora=True, init_lora_weights=False)
    )
    wrapped.save_pretrained(tmp_path / "dora")
    whole, plain = (output(load_model(str(base), lora=lora)) for lora in (str(tmp_path / "dora"), None))
    half = output(load_model(str(base), lora=f"{tmp_path / 'dora'}:0.5"))
    torch.testing.assert_close(half, (whole + plain) / 2, rtol=1e-5, atol=1e-6)
    assert float((whole - plain).abs().max()) > 1e-2
