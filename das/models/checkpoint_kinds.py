"""What a single file holds, told from the names and shapes of its tensors: its family, or why it isn't attributed."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from das.errors import ModelError
from das.models.weights import TensorHeader

PREFIXES = ("model.diffusion_model.", "unet.", "transformer.", "diffusion_model.", "")
"""What stands before the network's tensors, the first that is there."""

TEXT_ENCODERS = (
    "cond_stage_model.",
    "conditioner.embedders.",
    "text_encoders.",
    "text_encoder.",
    "text_encoder_2.",
)
VAES = ("first_stage_model.", "vae.")
_ELSEWHERE = (*TEXT_ENCODERS, *VAES, "model_ema.")

_SUPPORTED = "Stable Diffusion 1 and 2, SDXL, SD3, FLUX.1 and Qwen-Image"

# Kinds that aren't attributed, by a name that only they have, anywhere in a tensor's name.
_NAMED: dict[str, str] = {
    r"\.lora_(up|down|A|B)\.|^lora_|\.lokr_|\.hada_|_lora\.": "a LoRA: give it as --lora, and a pipeline as --model",
    r"^control_model\.|controlnet_": "a ControlNet",
    r"motion_modules?\.|temporal_transformer|time_stack|^patchify_proj|blocks\.\d+\.attn\.qkv_x": "a video model",
    r"individual_token_refiner": "a HunyuanVideo model",
    r"^vace_blocks|^head\.modulation": "a Wan video model",
    r"distilled_guidance_layer": "a Chroma model",
    r"single_stream_modulation": "a FLUX.2 model",
    r"early_stream_modulations": "a FLUX.3 model",
    r"cap_embedder\.": "a Lumina or Z-Image model",
    r"clip_txt_mapper|channelwise\.0\.weight": "a Stable Cascade model",
    r"^cond_seq_linear": "an AuraFlow model",
    r"double_stream_blocks\.": "a HiDream model",
    r"cross_attn\.kv_linear": "a Sana or PixArt model in its trainer's naming",
    r"scaled_fp8|\.scale_weight$|\.weight_scale$|\.absmax$|quant_state|\.qweight$": "quantised, with"
    " scales of its own: give the model in half or single precision",
}


@dataclass(frozen=True)
class Kind:
    """A checkpoint that can be read.

    Attributes:
        family: as `das.models.Adapter` calls it.
        name: as people call it.
        prefix: what stands before the network's tensors.
        original: whether the network's tensors have the names of the family's first code, not diffusers'.
    """

    family: str
    name: str
    prefix: str
    original: bool


def kind_of(file: Path, header: Mapping[str, TensorHeader]) -> Kind:
    """The kind of a checkpoint.

    Raises:
        ModelError: it is of a kind that isn't attributed, which the message names, or of none that is known.
    """
    if not header:
        raise ModelError(f"{file} holds no tensors.")
    prefix, network = network_part(header)
    if not network and all(name.startswith(_ELSEWHERE) for name in header):
        raise ModelError(
            f"{file} holds text encoders or a VAE and no network, such as {next(iter(header))}; give the checkpoint."
        )
    for pattern, what in _NAMED.items():
        if any(re.search(pattern, name) for name in network) or any(re.search(pattern, n) for n in header):
            raise ModelError(f"{file} is {what}; single files of {_SUPPORTED} are read.")
    found = _unet(network) or _flux(network) or _sd3(network) or _qwen_image(network)
    if found is None:
        raise ModelError(
            f"{file} has tensors of no naming that is known, such as {next(iter(header))}; single files of"
            f" {_SUPPORTED} are read."
        )
    if isinstance(found, str):
        raise ModelError(f"{file} is {found}; plain text-to-image models of {_SUPPORTED} are read.")
    family, name, original = found
    if family == "stable-diffusion-xl" and _is_refiner(header, network):
        raise ModelError(f"{file} is SDXL's refiner; give the base model.")
    return Kind(family, name, prefix, original)


def network_part(header: Mapping[str, TensorHeader]) -> tuple[str, dict[str, TensorHeader]]:
    """What stands before the network's tensors, and those by the rest of their names."""
    prefix = next(p for p in PREFIXES if any(name.startswith(p) for name in header))
    chosen = {name: value for name, value in header.items() if name.startswith(prefix)}
    if not prefix:
        chosen = {name: value for name, value in chosen.items() if not name.startswith(_ELSEWHERE)}
    return prefix, {name.removeprefix(prefix): value for name, value in chosen.items()}


Found = tuple[str, str, bool] | str | None


def _unet(network: Mapping[str, TensorHeader]) -> Found:
    original = "input_blocks.0.0.weight" in network
    first = network.get("input_blocks.0.0.weight") or network.get("conv_in.weight")
    if first is None or not (original or any(name.startswith("down_blocks.") for name in network)):
        return None
    if any(len(value.shape) == 5 for value in network.values()):
        return "a video model"
    if not any(re.search(r"attn2\.to_k\.weight", name) for name in network):
        return (
            "a U-Net without attention to text: an unconditional one is read as a directory (--network), with its"
            " pipeline as --model"
        )
    given = first.shape[1] if len(first.shape) > 1 else 0
    extra = {5: "a depth model", 7: "an upscaler", 8: "an InstructPix2Pix model", 9: "an inpainting model"}
    if given in extra:
        return f"{extra[given]}, whose U-Net takes {given} channels"
    if any(name.startswith(("label_emb.", "add_embedding.")) for name in network):
        return "stable-diffusion-xl", "SDXL", original
    if any(name.startswith("class_embedding.") for name in network):
        return "conditioned on classes or pictures"
    width = next(v.shape[-1] for n, v in network.items() if n.endswith("attn2.to_k.weight"))
    return (
        "stable-diffusion",
        {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2"}.get(width, "Stable Diffusion 1 or 2"),
        original,
    )


def _flux(network: Mapping[str, TensorHeader]) -> Found:
    if any(name.startswith("double_blocks.") for name in network):
        first = network.get("img_in.weight")
        if first is not None and len(first.shape) == 2 and first.shape[1] in (128, 384):
            return "a FLUX.1 Fill, Canny or Depth model, which is also given another picture"
        return "flux", "FLUX.1", True
    if any(name.startswith("single_transformer_blocks.") for name in network):
        return "flux", "FLUX.1", False
    return None


def _sd3(network: Mapping[str, TensorHeader]) -> Found:
    if any(name.startswith("joint_blocks.") for name in network):
        return "stable-diffusion-3", "Stable Diffusion 3", True
    diffusers = "pos_embed.proj.weight" in network and "context_embedder.weight" in network
    if diffusers and any(name.startswith("transformer_blocks.") for name in network):
        return "stable-diffusion-3", "Stable Diffusion 3", False
    return None


def _qwen_image(network: Mapping[str, TensorHeader]) -> Found:
    if "txt_norm.weight" not in network or "transformer_blocks.0.img_mod.1.weight" not in network:
        return None
    if "time_text_embed.addition_t_embedding.weight" in network:
        return "a Qwen-Image Layered model, which is also given layers"
    return "qwen-image", "Qwen-Image", False


def _is_refiner(header: Mapping[str, TensorHeader], network: Mapping[str, TensorHeader]) -> bool:
    # The refiner has one text encoder, OpenCLIP's, where the base model has CLIP's as the first.
    if any(name.startswith("conditioner.embedders.0.model.") for name in header):
        return True
    size = network.get("label_emb.0.0.weight") or network.get("add_embedding.linear_1.weight")
    return size is not None and size.shape[-1] == 2560
