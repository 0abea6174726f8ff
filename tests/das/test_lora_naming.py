"""Every naming of trainers, with the names of full-size files: each layer finds its own in the network."""

from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from test_lora_merged import Bases, Merging, bases, kohya, lora_parameters  # noqa: F401 - a fixture

from das.errors import ModelError
from das.models import load_model
from das.models.lora import loras_of

FLUX = {
    "double_blocks.0.img_attn.qkv": [
        f"transformer_blocks.0.attn.{name}" for name in ("to_q", "to_k", "to_v")
    ],
    "double_blocks.0.txt_attn.qkv": [
        f"transformer_blocks.0.attn.{name}" for name in ("add_q_proj", "add_k_proj", "add_v_proj")
    ],
    "double_blocks.0.img_attn.proj": ["transformer_blocks.0.attn.to_out.0"],
    "double_blocks.0.txt_attn.proj": ["transformer_blocks.0.attn.to_add_out"],
    "double_blocks.0.img_mod.lin": ["transformer_blocks.0.norm1.linear"],
    "double_blocks.0.txt_mod.lin": ["transformer_blocks.0.norm1_context.linear"],
    "double_blocks.0.img_mlp.0": ["transformer_blocks.0.ff.net.0.proj"],
    "double_blocks.0.img_mlp.2": ["transformer_blocks.0.ff.net.2"],
    "double_blocks.0.txt_mlp.0": ["transformer_blocks.0.ff_context.net.0.proj"],
    "double_blocks.0.txt_mlp.2": ["transformer_blocks.0.ff_context.net.2"],
    "single_blocks.0.linear1": [
        *(f"single_transformer_blocks.0.attn.{name}" for name in ("to_q", "to_k", "to_v")),
        "single_transformer_blocks.0.proj_mlp",
    ],
    "single_blocks.0.linear2": ["single_transformer_blocks.0.proj_out"],
    "single_blocks.0.modulation.lin": ["single_transformer_blocks.0.norm.linear"],
    "img_in": ["x_embedder"],
    "txt_in": ["context_embedder"],
    "time_in.in_layer": ["time_text_embed.timestep_embedder.linear_1"],
    "time_in.out_layer": ["time_text_embed.timestep_embedder.linear_2"],
    "vector_in.in_layer": ["time_text_embed.text_embedder.linear_1"],
    "guidance_in.in_layer": ["time_text_embed.guidance_embedder.linear_1"],
    "final_layer.linear": ["proj_out"],
    "final_layer.adaLN_modulation.1": ["norm_out.linear"],
}
"""Black Forest Labs' layers, and diffusers' of them in the order of their rows."""

XLABS = {
    "double_blocks.0.processor.qkv_lora1": FLUX["double_blocks.0.img_attn.qkv"],
    "double_blocks.0.processor.qkv_lora2": FLUX["double_blocks.0.txt_attn.qkv"],
    "double_blocks.0.processor.proj_lora1": FLUX["double_blocks.0.img_attn.proj"],
    "double_blocks.0.processor.proj_lora2": FLUX["double_blocks.0.txt_attn.proj"],
    "single_blocks.0.processor.qkv_lora": FLUX["single_blocks.0.linear1"][:3],
    "single_blocks.0.processor.proj_lora": FLUX["single_blocks.0.linear2"],
}

SD3 = {
    "joint_blocks.0.x_block.attn.qkv": FLUX["double_blocks.0.img_attn.qkv"],
    "joint_blocks.0.context_block.attn.qkv": FLUX["double_blocks.0.txt_attn.qkv"],
    "joint_blocks.0.x_block.attn2.qkv": [f"transformer_blocks.0.attn2.{n}" for n in ("to_q", "to_k", "to_v")],
    "joint_blocks.0.x_block.attn.proj": ["transformer_blocks.0.attn.to_out.0"],
    "joint_blocks.0.context_block.attn.proj": ["transformer_blocks.0.attn.to_add_out"],
    "joint_blocks.0.x_block.adaLN_modulation.1": ["transformer_blocks.0.norm1.linear"],
    "joint_blocks.1.context_block.adaLN_modulation.1": ["transformer_blocks.1.norm1_context.linear"],
    "joint_blocks.1.x_block.mlp.fc1": ["transformer_blocks.1.ff.net.0.proj"],
    "joint_blocks.1.x_block.mlp.fc2": ["transformer_blocks.1.ff.net.2"],
    "x_embedder.proj": ["pos_embed.proj"],
    "final_layer.adaLN_modulation.1": ["norm_out.linear"],
}

SGM = {
    "input_blocks.0.0": "conv_in",
    "input_blocks.1.0.in_layers.2": "down_blocks.0.resnets.0.conv1",
    "input_blocks.1.0.emb_layers.1": "down_blocks.0.resnets.0.time_emb_proj",
    "input_blocks.1.1.transformer_blocks.0.attn1.to_q": "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
    "input_blocks.1.1.proj_in": "down_blocks.0.attentions.0.proj_in",
    "input_blocks.2.0.op": "down_blocks.0.downsamplers.0.conv",
    "input_blocks.3.0.skip_connection": "down_blocks.1.resnets.0.conv_shortcut",
    "middle_block.0.out_layers.3": "mid_block.resnets.0.conv2",
    "middle_block.1.transformer_blocks.0.ff.net.2": "mid_block.attentions.0.transformer_blocks.0.ff.net.2",
    "output_blocks.1.1.conv": "up_blocks.0.upsamplers.0.conv",
    "output_blocks.3.1.transformer_blocks.0.attn2.to_out.0": (
        "up_blocks.1.attentions.1.transformer_blocks.0.attn2.to_out.0"
    ),
    "time_embed.0": "time_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "out.2": "conv_out",
}

STYLES = {
    "kohya": ("lora_unet_{flat}", ".lora_down.weight", ".lora_up.weight"),
    "bfl": ("{dotted}", ".lora_A.weight", ".lora_B.weight"),
    "comfyui": ("diffusion_model.{dotted}", ".lora_A.weight", ".lora_B.weight"),
    "fal": ("base_model.model.{dotted}", ".lora_A.weight", ".lora_B.weight"),
    "xlabs": ("{dotted}", ".down.weight", ".up.weight"),
}


def swapped(path: str, last_text: str) -> bool:
    return path in ("norm_out.linear", last_text)


def add(made: Merging, component: str, style: str, name: str, paths: list[str], last_text: str = "") -> None:
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
        if swapped(path, last_text):
            rows = torch.cat([rows[len(rows) // 2 :], rows[: len(rows) // 2]])
        made.merge(component, path, scale * rows @ down.flatten(1))
        start += len(weight)


@pytest.mark.parametrize("style", STYLES)
def test_flux_layers_of_every_naming_equal_their_merged_weights(bases, tmp_path, style):  # noqa: F811
    made = Merging(bases["flux"])
    layers = XLABS if style == "xlabs" else FLUX
    for name, paths in layers.items():
        add(made, "transformer", style, name, paths)
    model = made.compare(bases["flux"], tmp_path / "flux.safetensors")
    # What is attributed is what the file has, as often: fused layers share the matrix that they have once.
    matrices = [tensor for name, tensor in made.tensors.items() if not name.endswith(".alpha")]
    assert sum(p.numel() for p in lora_parameters(model).values()) == sum(t.numel() for t in matrices)
    assert loras_of(model.network)[0].kinds == {"LoRA": len(layers)}


def test_a_fused_layer_of_separate_matrices_is_taken_apart(bases, tmp_path):  # noqa: F811
    """kohya's split_qkv: one up matrix of blocks."""
    made = Merging(bases["flux"])
    paths = FLUX["double_blocks.0.img_attn.qkv"]
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
    model = made.compare(bases["flux"], tmp_path / "split.safetensors")
    assert sum(p.numel() for p in lora_parameters(model).values()) == 6 * width + 3 * width * 2


@pytest.mark.parametrize("style", ["kohya", "comfyui"])
def test_layers_of_stable_diffusion_3_equal_their_merged_weights(bases, tmp_path, style):  # noqa: F811
    made = Merging(bases["stable-diffusion-3"])
    for name, paths in SD3.items():
        add(made, "transformer", style, name, paths, "transformer_blocks.1.norm1_context.linear")
    made.compare(bases["stable-diffusion-3"], tmp_path / "sd3.safetensors")


@pytest.mark.parametrize("style", ["kohya", "comfyui"])
def test_stability_names_of_a_unet_equal_their_merged_weights(bases, tmp_path, style):  # noqa: F811
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
def test_old_namings_of_diffusers_equal_their_merged_weights(bases, tmp_path, prefix, ends):  # noqa: F811
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
def test_what_cannot_be_attributed_is_refused_by_its_true_name(bases, tmp_path, kind):  # noqa: F811
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
def test_files_that_are_no_loras_are_told_as_what_they_are(bases, tmp_path, content, message):  # noqa: F811
    file = tmp_path / "lora.safetensors"
    file.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        load_model(str(bases["stable-diffusion"]), lora=str(file))
