"""LoRAs of ground truths: low-rank matrices on a base network that stays as it is, as peft adapters on disk."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from das.durable import write_directory

if TYPE_CHECKING:
    from peft import LoraConfig

# Every convolution and linear layer of a U-Net's residual and attention blocks.
LAYERS = ("conv1", "conv2", "conv_shortcut", "time_emb_proj", "to_q", "to_k", "to_v", "to_out.0")


def base_network(pipeline: Path) -> nn.Module:
    """The network of a DDPMPipeline directory, in single precision."""
    from diffusers.models.unets.unet_2d import UNet2DModel

    network: nn.Module = UNet2DModel.from_pretrained(pipeline / "unet")
    return network.float()


def add_new_lora(network: nn.Module, rank: int) -> list[nn.Parameter]:
    """Put a fresh LoRA on the network, its first matrices from torch's current seed, the second ones zero.

    Returns:
        Its parameters, the only ones that ask for gradients afterwards.
    """
    from peft import inject_adapter_in_model

    inject_adapter_in_model(_config(rank), network, "default")
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(".lora_" in name)
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def save_lora(network: Any, path: Path, rank: int) -> None:
    """A peft adapter's directory, there whole or not at all."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    state = get_peft_model_state_dict(network, adapter_name="default")
    named = {f"base_model.model.{name}": tensor.detach().cpu().contiguous() for name, tensor in state.items()}

    def write(folder: Path) -> None:
        save_file(named, folder / "adapter_model.safetensors")
        _config(rank).save_pretrained(str(folder))

    write_directory(path, write)


def _config(rank: int) -> "LoraConfig":
    from peft import LoraConfig

    return LoraConfig(r=rank, lora_alpha=rank, target_modules=list(LAYERS))
