"""Every naming of trainers, with the names of full-size files: each layer finds its own in the network."""

from typing import Any

import pytest
import torch
from lora_files import Merging, kohya, lora_parameters
from lora_names import SGM, flux, omi, sd3, swapped, xlabs
from safetensors.torch import save_file

from das.errors import ModelError
from das.models import load_model
from das.models.lora import loras_of

STYLES = {
    "kohya": ("lora_unet_{flat}", ".lora_down.weight", ".lora_up.weight"),
    "bfl": ("{dotted}", ".lora_A.weight", ".lora_B.weight"),
    "comfyui": ("diffusion_model.{dotted}", ".lora_A.weight", ".lora_B.weight"),
    "fal": ("base_model.model.{dotted}", ".lora_A.weight", ".lora_B.weight"),
    "omi": ("transformer.{dotted}", ".lora_down.weight", ".lora_up.weight"),
    "xlabs": ("{dotted}", ".down.weight", ".up.weight"),
}


def add(made: Merging, component: str, style: str, name: str, paths: list[str]) -> None:
    """A LoRA of a (fused) layer with an alpha, as the file has it and merged row by row."""
    template, down_end, up_end = STYLES[style]
    layers = [made.component(component).get_submodule(path).weight for path in paths]
    rank, kernel = 2, layers[0].shape[2:]
    down = made.normal(rank, layers[0].shape[1], *kernel)
    up = made.normal(sum(len(weight) for weight in layers), rank)
    layer = template.format(dotted=name, flat=kohya(name))
    made.tensors |= {
        f"{layer}{down_end}": down,
        f"{layer}{up_end}": up.reshape(*up.shape, *[1] * len(kernel)),
    }
    scale = 1.0
    if style == "kohya":
        made.tensors[f"{layer}.alpha"] = torch.tensor(0.5)
        scale = 0.25
    start = 0
    for path, weight in zip(paths, layers, strict=True):
        rows = up[start : start + len(weight)]
        if swapped(name):
            rows = torch.cat([rows[len(rows) // 2 :], rows[: len(rows) // 2]])
        made.merge(component, path, scale * rows @ down.flatten(1))
        start += len(weight)


@pytest.mark.parametrize("style", STYLES)
def test_flux_layers_of_every_naming_equal_their_merged_weights(bases, tmp_path, style):
    made = Merging(bases["flux-of-two"])
    layers = {"xlabs": xlabs, "omi": omi}.get(style, flux)()
    for name, paths in layers.items():
        add(made, "transformer", style, name, paths)
    model = made.compare(bases["flux-of-two"], tmp_path / "flux.safetensors")
    # What is attributed is what the file has, as often: fused layers share the matrix that they have once.
    matrices = [tensor for name, tensor in made.tensors.items() if not name.endswith(".alpha")]
    assert sum(p.numel() for p in lora_parameters(model).values()) == sum(t.numel() for t in matrices)
    assert loras_of(model.network)[0].kinds == {"LoRA": len(layers)}


def test_a_fused_layer_of_separate_matrices_is_taken_apart(bases, tmp_path):
    """kohya's split_qkv: one up matrix of blocks."""
    made = Merging(bases["flux-of-two"])
    paths = flux()["double_blocks.0.img_attn.qkv"]
    width = made.component("transformer").get_submodule(paths[0]).weight.shape[1]
    down, blocks = made.normal(6, width), [made.normal(width, 2) for _ in paths]
    name = "lora_unet_double_blocks_0_img_attn_qkv"
    made.tensors = {
        f"{name}.lora_down.weight": down,
        f"{name}.lora_up.weight": torch.block_diag(*blocks),
        f"{name}.alpha": torch.tensor(12.0),
    }
    for number, path in enumerate(paths):
        made.merge("transformer", path, 2.0 * blocks[number] @ down[2 * number : 2 * number + 2])
    model = made.compare(bases["flux-of-two"], tmp_path / "split.safetensors")
    assert sum(p.numel() for p in lora_parameters(model).values()) == 6 * width + 3 * width * 2


@pytest.mark.parametrize("style", ["kohya", "comfyui"])
def test_layers_of_stable_diffusion_3_equal_their_merged_weights(bases, tmp_path, style):
    made = Merging(bases["stable-diffusion-3"])
    for name, paths in sd3().items():
        add(made, "transformer", style, name, paths)
    made.compare(bases["stable-diffusion-3"], tmp_path / "sd3.safetensors")


@pytest.mark.parametrize("style", ["kohya", "comfyui"])
def test_stability_names_of_a_unet_equal_their_merged_weights(bases, tmp_path, style):
    made = Merging(bases["stable-diffusion-xl"])
    for name, path in SGM.items():
        add(made, "unet", style, name, [path])
    made.compare(bases["stable-diffusion-xl"], tmp_path / "sdxl.safetensors")


@pytest.mark.parametrize("prefix", ["unet.", ""])
@pytest.mark.parametrize(
    "ends",
    [
        ("attn1.processor.{}_lora.down.weight", "attn1.processor.{}_lora.up.weight"),
        ("attn1.{}.lora.down.weight", "attn1.{}.lora.up.weight"),
        ("attn1.{}.lora_A.default.weight", "attn1.{}.lora_B.default.weight"),
    ],
)
def test_old_namings_of_diffusers_equal_their_merged_weights(bases, tmp_path, prefix, ends):
    made = Merging(bases["stable-diffusion"])
    block = "down_blocks.0.attentions.0.transformer_blocks.0"
    for layer in ("to_q", "to_k", "to_v", "to_out"):
        path = f"{block}.attn1.{layer}" + (".0" if layer == "to_out" else "")
        weight = made.component("unet").get_submodule(path).weight
        down, up = made.normal(2, weight.shape[1]), made.normal(len(weight), 2)
        names = [f"{prefix}{block}.{end.format(layer)}" for end in ends]
        made.tensors |= dict(zip(names, (down, up), strict=True))
        made.merge("unet", path, up @ down)
    made.compare(bases["stable-diffusion"], tmp_path / "old.safetensors")


PLAIN = {
    "lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": torch.ones(2, 16, 1, 1),
    "lora_unet_mid_block_attentions_0_proj_in.lora_up.weight": torch.ones(16, 2, 1, 1),
}
TEXT = "lora_te2_text_model_encoder_layers_0_mlp_fc1"

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "oft": ({"lora_unet_conv_in.oft_blocks": torch.ones(2, 2, 2)}, "OFT or BOFT"),
    "glora": ({"lora_unet_conv_in.a1.weight": torch.ones(2, 2)}, "GLoRA"),
    "ia3": ({"lora_unet_conv_in.on_input": torch.ones(1)}, "IA³"),
    "full": ({"lora_unet_conv_in.diff": torch.ones(8, 4, 3, 3)}, "differences of whole weights"),
    "control": ({"double_blocks.0.img_attn.norm.query_norm.scale": torch.ones(4)}, "control LoRA of BFL"),
    "embedding": ({"bundle_emb.sks.string_to_param.*": torch.ones(1, 4)}, "textual inversion"),
    "checkpoint": ({"conv_in.weight": torch.ones(8, 4, 3, 3)}, "whole weights"),
    "another-family": (
        {f"double_blocks.0.img_attn.proj.lora_{m}.weight": torch.ones(2, 2) for m in "AB"},
        "of a FLUX transformer.*is a UNet2DConditionModel",
    ),
    "an-encoder-too-many": (
        {f"{TEXT}.lora_down.weight": torch.ones(2, 16), f"{TEXT}.lora_up.weight": torch.ones(32, 2)},
        "text encoder.*other text encoders",
    ),
    "other-sizes": (
        {
            "lora_unet_conv_out.lora_down.weight": torch.ones(2, 320, 3, 3),
            "lora_unet_conv_out.lora_up.weight": torch.ones(4, 2, 1, 1),
        },
        "2 × 320 × 3 × 3, and the layer that it is for needs 2 × 8 × 3 × 3",
    ),
    "not-finite": (
        {
            "lora_unet_conv_in.lora_down.weight": torch.full((2, 4, 3, 3), torch.nan),
            "lora_unet_conv_in.lora_up.weight": torch.ones(8, 2, 1, 1),
        },
        "aren't finite",
    ),
    "alpha-of-two": (
        {"lora_unet_mid_block_attentions_0_proj_in.alpha": torch.ones(2)},
        "one finite number",
    ),
    "twice": (
        {
            "unet.mid_block.attentions.0.proj_in.lora_A.weight": torch.ones(2, 16, 1, 1),
            "unet.mid_block.attentions.0.proj_in.lora_B.weight": torch.ones(16, 2, 1, 1),
        },
        "two adapters for mid_block",
    ),
    "hostile-name": ({"\x1b[2J" + "x" * 5000: torch.ones(1)}, "�.*…"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_attributed_is_refused_by_its_true_name(bases, tmp_path, kind):
    """Beside tensors that do fit: nothing is half loaded."""
    tensors, message = REFUSED[kind]
    save_file(PLAIN | tensors, tmp_path / "refused.safetensors")
    with pytest.raises(ModelError, match=message) as caught:
        load_model(str(bases["stable-diffusion"]), lora=str(tmp_path / "refused.safetensors"))
    assert len(str(caught.value)) < 1000
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
            "Git LFS pointer.*git lfs pull",
        ),
        (b"<!DOCTYPE html><html>login</html>", "is a web page"),
        (b"PK\x03\x04 and so on", "a pickle or an archive named like a safetensors file"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00not json at all!", "its header can't be read"),
        (b"\xff" * 40, "the header would have"),
        (b"\x02\x00\x00\x00\x00\x00\x00\x00[]", "its header can't be read"),
    ],
)
def test_files_that_are_no_loras_are_told_as_what_they_are(bases, tmp_path, content, message):
    file = tmp_path / "lora.safetensors"
    file.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        load_model(str(bases["stable-diffusion"]), lora=str(file))
