"""Layers by the names of each family's first code, and diffusers' of them in the order of their rows."""

_QKV = ("to_q", "to_k", "to_v")
_ADDED = ("add_q_proj", "add_k_proj", "add_v_proj")

BLOCKS = 2
"""Double blocks, and single ones, of the FLUX pipeline that these tests make, so that numbers can be mixed up."""


def flux(blocks: int = BLOCKS) -> dict[str, list[str]]:
    """Black Forest Labs' names of every layer of a FLUX transformer with so many blocks of both kinds."""
    found: dict[str, list[str]] = {}
    for block in range(blocks):
        ours, theirs = f"transformer_blocks.{block}", f"double_blocks.{block}"
        found |= {
            f"{theirs}.img_attn.qkv": [f"{ours}.attn.{name}" for name in _QKV],
            f"{theirs}.txt_attn.qkv": [f"{ours}.attn.{name}" for name in _ADDED],
            f"{theirs}.img_attn.proj": [f"{ours}.attn.to_out.0"],
            f"{theirs}.txt_attn.proj": [f"{ours}.attn.to_add_out"],
            f"{theirs}.img_mod.lin": [f"{ours}.norm1.linear"],
            f"{theirs}.txt_mod.lin": [f"{ours}.norm1_context.linear"],
            f"{theirs}.img_mlp.0": [f"{ours}.ff.net.0.proj"],
            f"{theirs}.img_mlp.2": [f"{ours}.ff.net.2"],
            f"{theirs}.txt_mlp.0": [f"{ours}.ff_context.net.0.proj"],
            f"{theirs}.txt_mlp.2": [f"{ours}.ff_context.net.2"],
        }
    for block in range(blocks):
        ours, theirs = f"single_transformer_blocks.{block}", f"single_blocks.{block}"
        found |= {
            f"{theirs}.linear1": [*(f"{ours}.attn.{name}" for name in _QKV), f"{ours}.proj_mlp"],
            f"{theirs}.linear2": [f"{ours}.proj_out"],
            f"{theirs}.modulation.lin": [f"{ours}.norm.linear"],
        }
    return found | {
        "img_in": ["x_embedder"],
        "txt_in": ["context_embedder"],
        "time_in.in_layer": ["time_text_embed.timestep_embedder.linear_1"],
        "time_in.out_layer": ["time_text_embed.timestep_embedder.linear_2"],
        "vector_in.in_layer": ["time_text_embed.text_embedder.linear_1"],
        "vector_in.out_layer": ["time_text_embed.text_embedder.linear_2"],
        "guidance_in.in_layer": ["time_text_embed.guidance_embedder.linear_1"],
        "guidance_in.out_layer": ["time_text_embed.guidance_embedder.linear_2"],
        "final_layer.linear": ["proj_out"],
        "final_layer.adaLN_modulation.1": ["norm_out.linear"],
    }


def xlabs() -> dict[str, list[str]]:
    """The names of XLabs' attention processors."""
    bfl, found = flux(), {}
    for block in range(BLOCKS):
        double, single = f"double_blocks.{block}", f"single_blocks.{block}"
        found |= {
            f"{double}.processor.qkv_lora1": bfl[f"{double}.img_attn.qkv"],
            f"{double}.processor.qkv_lora2": bfl[f"{double}.txt_attn.qkv"],
            f"{double}.processor.proj_lora1": bfl[f"{double}.img_attn.proj"],
            f"{double}.processor.proj_lora2": bfl[f"{double}.txt_attn.proj"],
            f"{single}.processor.qkv_lora": bfl[f"{single}.linear1"][:3],
            f"{single}.processor.proj_lora": bfl[f"{single}.linear2"],
        }
    return found


def omi() -> dict[str, list[str]]:
    """The names of the Open Model Initiative, which OneTrainer writes: BFL's with fused layers by their parts."""
    found = {}
    for name, paths in flux().items():
        for number, path in enumerate(paths):
            found[f"{name}.{number}" if len(paths) > 1 else {"img_in": "img_in.proj"}.get(name, name)] = [
                path
            ]
    return found


def sd3() -> dict[str, list[str]]:
    """Stability's names of every layer of the Stable Diffusion 3 of two blocks that these tests make."""
    found: dict[str, list[str]] = {}
    for block in (0, 1):
        ours, theirs = f"transformer_blocks.{block}", f"joint_blocks.{block}"
        for side, norm, qkv, out, forward in (
            ("x_block", "norm1", _QKV, "to_out.0", "ff"),
            ("context_block", "norm1_context", _ADDED, "to_add_out", "ff_context"),
        ):
            found[f"{theirs}.{side}.attn.qkv"] = [f"{ours}.attn.{name}" for name in qkv]
            found[f"{theirs}.{side}.adaLN_modulation.1"] = [f"{ours}.{norm}.linear"]
            if side == "context_block" and block == 1:
                continue  # the last block's text goes nowhere
            found[f"{theirs}.{side}.attn.proj"] = [f"{ours}.attn.{out}"]
            found[f"{theirs}.{side}.mlp.fc1"] = [f"{ours}.{forward}.net.0.proj"]
            found[f"{theirs}.{side}.mlp.fc2"] = [f"{ours}.{forward}.net.2"]
    return found | {
        "joint_blocks.0.x_block.attn2.qkv": [f"transformer_blocks.0.attn2.{name}" for name in _QKV],
        "joint_blocks.0.x_block.attn2.proj": ["transformer_blocks.0.attn2.to_out.0"],
        "x_embedder.proj": ["pos_embed.proj"],
        "context_embedder": ["context_embedder"],
        "t_embedder.mlp.0": ["time_text_embed.timestep_embedder.linear_1"],
        "t_embedder.mlp.2": ["time_text_embed.timestep_embedder.linear_2"],
        "y_embedder.mlp.0": ["time_text_embed.text_embedder.linear_1"],
        "y_embedder.mlp.2": ["time_text_embed.text_embedder.linear_2"],
        "final_layer.linear": ["proj_out"],
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
"""Stability's names in a U-Net of SDXL."""


def swapped(name: str) -> bool:
    """Whether diffusers has the two halves of a layer's rows the other way round than the first code's `name`."""
    return name in ("final_layer.adaLN_modulation.1", "joint_blocks.1.context_block.adaLN_modulation.1")
