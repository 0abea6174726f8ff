"""The names that trainers have for the layers of a network, each made from the network that is there.

A file's name is looked up in a table of all names of all layers, so that nothing is guessed from spellings, and a
name that two layers could have means neither.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

Rows = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Place:
    """A layer, or the part of a file's fused layer that is one.

    Attributes:
        path: the module's path in its component.
        rows: ranges of the file's output rows that are this layer's, in its order; None: all of them.
    """

    path: str
    rows: Rows | None = None


Places = tuple[Place, ...]


class Naming:
    """The names of one component's linear and convolutional layers, by every convention."""

    def __init__(self, component: str, module: nn.Module) -> None:
        """Work them out.

        Args:
            component: its name in the pipeline, such as `unet` or `text_encoder_2`.
        """
        self.component = component
        self.layers: dict[str, nn.Module] = {
            path: layer for path, layer in module.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)
        }
        self._dotted: dict[str, Places | None] = {}
        self._flat: dict[str, Places | None] = {}
        for name, places in self._names(module):
            _enter(self._dotted, name, places)
            _enter(self._flat, name.replace(".", "_"), places)

    def find(self, name: str, *, flat: bool) -> Places | None:
        """The layers that a name without its prefix stands for; None for none, or more than one reading.

        Args:
            flat: whether dots were written as underscores.
        """
        return (self._flat if flat else self._dotted).get(name)

    def _names(self, module: nn.Module) -> Iterator[tuple[str, Places]]:
        for path in self.layers:
            yield path, (Place(path),)
            yield from ((name, (Place(path),)) for name in _attention_processor(path))
        kind = type(module).__name__
        if kind.startswith("UNet2D"):
            renamed: Iterable[tuple[str, Places]] = self._renamed(_sgm_blocks(module), _SGM_LAYERS)
        elif kind == "FluxTransformer2DModel":
            renamed = _flux(self.layers)
        elif kind == "SD3Transformer2DModel":
            renamed = _mmdit(self.layers)
        else:
            renamed = _text(self.layers)
        for name, places in renamed:
            if all(place.path in self.layers for place in places):
                yield name, places

    def _renamed(
        self, blocks: dict[str, str], inside: tuple[tuple[str, str], ...]
    ) -> Iterator[tuple[str, Places]]:
        """Paths with a block's other name, and other names of the layers in it."""
        for path in self.layers:
            for ours, theirs in blocks.items():
                if path == ours or path.startswith(f"{ours}."):
                    rest = path[len(ours) :]
                    for old, new in inside:
                        if rest == old:
                            rest = new
                    yield theirs + rest, (Place(path),)


def _enter(table: dict[str, Places | None], name: str, places: Places) -> None:
    if table.setdefault(name, places) != places:
        table[name] = None


def _attention_processor(path: str) -> Iterator[str]:
    """As diffusers named a layer's LoRA while it lay in the attention's processor."""
    outer, _, last = path.rpartition(".")
    if last == "0" and outer.endswith(".to_out"):
        outer, last = outer.removesuffix(".to_out"), "to_out"
        yield f"{outer}.{last}"
    if last in ("to_q", "to_k", "to_v", "to_out", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"):
        yield f"{outer}.processor.{last}"


_SGM_LAYERS = (
    (".conv1", ".in_layers.2"),
    (".time_emb_proj", ".emb_layers.1"),
    (".conv2", ".out_layers.3"),
    (".conv_shortcut", ".skip_connection"),
)


def _sgm_blocks(unet: Any) -> dict[str, str]:
    """Stability's names (`input_blocks.4.1`) of a U-Net's blocks by diffusers' (`down_blocks.1.attentions.0`)."""
    found = {
        "conv_in": "input_blocks.0.0",
        "conv_out": "out.2",
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "add_embedding.linear_1": "label_emb.0.0",
        "add_embedding.linear_2": "label_emb.0.2",
        "mid_block.resnets.0": "middle_block.0",
        "mid_block.attentions.0": "middle_block.1",
        "mid_block.resnets.1": "middle_block.2",
    }
    number = 1
    for block, down in enumerate(getattr(unet, "down_blocks", ())):
        for layer in range(len(getattr(down, "resnets", ()))):
            found[f"down_blocks.{block}.resnets.{layer}"] = f"input_blocks.{number}.0"
            found[f"down_blocks.{block}.attentions.{layer}"] = f"input_blocks.{number}.1"
            number += 1
        if getattr(down, "downsamplers", None):
            found[f"down_blocks.{block}.downsamplers.0.conv"] = f"input_blocks.{number}.0.op"
            number += 1
    number = 0
    for block, up in enumerate(getattr(unet, "up_blocks", ())):
        for layer in range(len(getattr(up, "resnets", ()))):
            found[f"up_blocks.{block}.resnets.{layer}"] = f"output_blocks.{number}.0"
            found[f"up_blocks.{block}.attentions.{layer}"] = f"output_blocks.{number}.1"
            number += 1
        if getattr(up, "upsamplers", None):
            place = 2 if getattr(up, "attentions", None) else 1
            found[f"up_blocks.{block}.upsamplers.0.conv"] = f"output_blocks.{number - 1}.{place}.conv"
    return found


def _fused(layers: dict[str, nn.Module], paths: Iterable[str]) -> Places:
    """Layers that another implementation has as one, in its order of rows."""
    places, start = [], 0
    for path in paths:
        size = _outputs(layers.get(path))
        places.append(Place(path, ((start, start + size),)))
        start += size
    return tuple(places)


def _numbered(name: str, fused: Places) -> Iterator[tuple[str, Places]]:
    """The parts of a fused layer as the Open Model Initiative calls them: its name and their numbers."""
    for number, place in enumerate(fused):
        yield f"{name}.{number}", (Place(place.path),)


def _swapped(layers: dict[str, nn.Module], path: str) -> Places:
    """A modulation whose halves, shift and scale, stand in the other order."""
    size = _outputs(layers.get(path))
    return (Place(path, ((size // 2, size), (0, size // 2))),)


def _outputs(layer: nn.Module | None) -> int:
    if layer is None:
        return 0
    return int(layer.weight.shape[0])  # type: ignore[index]


_QKV = ("to_q", "to_k", "to_v")
_ADDED_QKV = ("add_q_proj", "add_k_proj", "add_v_proj")


def _flux(layers: dict[str, nn.Module]) -> Iterator[tuple[str, Places]]:
    """Black Forest Labs' names, which kohya and ComfyUI have too, those of XLabs' attention processors, and OMI's."""
    for block in _numbers(layers, "transformer_blocks."):
        ours, theirs = f"transformer_blocks.{block}", f"double_blocks.{block}"
        for side, norm, qkv, out, forward, xlabs in (
            ("img", "norm1", _QKV, "to_out.0", "ff", "1"),
            ("txt", "norm1_context", _ADDED_QKV, "to_add_out", "ff_context", "2"),
        ):
            fused = _fused(layers, [f"{ours}.attn.{name}" for name in qkv])
            yield f"{theirs}.{side}_attn.qkv", fused
            yield from _numbered(f"{theirs}.{side}_attn.qkv", fused)
            yield f"{theirs}.processor.qkv_lora{xlabs}", fused
            yield f"{theirs}.{side}_attn.proj", (Place(f"{ours}.attn.{out}"),)
            yield f"{theirs}.processor.proj_lora{xlabs}", (Place(f"{ours}.attn.{out}"),)
            yield f"{theirs}.{side}_mod.lin", (Place(f"{ours}.{norm}.linear"),)
            yield f"{theirs}.{side}_mlp.0", (Place(f"{ours}.{forward}.net.0.proj"),)
            yield f"{theirs}.{side}_mlp.2", (Place(f"{ours}.{forward}.net.2"),)
    for block in _numbers(layers, "single_transformer_blocks."):
        ours, theirs = f"single_transformer_blocks.{block}", f"single_blocks.{block}"
        qkv_paths = [f"{ours}.attn.{name}" for name in _QKV]
        fused = _fused(layers, [*qkv_paths, f"{ours}.proj_mlp"])
        yield f"{theirs}.linear1", fused
        yield from _numbered(f"{theirs}.linear1", fused)
        yield f"{theirs}.processor.qkv", _fused(layers, qkv_paths)
        yield f"{theirs}.linear2", (Place(f"{ours}.proj_out"),)
        yield f"{theirs}.processor.proj", (Place(f"{ours}.proj_out"),)
        yield f"{theirs}.modulation.lin", (Place(f"{ours}.norm.linear"),)
    for theirs, ours in (
        ("img_in", "x_embedder"),
        ("img_in.proj", "x_embedder"),
        ("txt_in", "context_embedder"),
        ("time_in.in_layer", "time_text_embed.timestep_embedder.linear_1"),
        ("time_in.out_layer", "time_text_embed.timestep_embedder.linear_2"),
        ("vector_in.in_layer", "time_text_embed.text_embedder.linear_1"),
        ("vector_in.out_layer", "time_text_embed.text_embedder.linear_2"),
        ("guidance_in.in_layer", "time_text_embed.guidance_embedder.linear_1"),
        ("guidance_in.out_layer", "time_text_embed.guidance_embedder.linear_2"),
        ("final_layer.linear", "proj_out"),
    ):
        yield theirs, (Place(ours),)
    yield "final_layer.adaLN_modulation.1", _swapped(layers, "norm_out.linear")


def _mmdit(layers: dict[str, nn.Module]) -> Iterator[tuple[str, Places]]:
    """Stability's names of Stable Diffusion 3, which kohya and ComfyUI have too."""
    blocks = _numbers(layers, "transformer_blocks.")
    for block in blocks:
        ours, theirs = f"transformer_blocks.{block}", f"joint_blocks.{block}"
        for side, norm, qkv, out, forward in (
            ("x_block", "norm1", _QKV, "to_out.0", "ff"),
            ("context_block", "norm1_context", _ADDED_QKV, "to_add_out", "ff_context"),
        ):
            yield f"{theirs}.{side}.attn.qkv", _fused(layers, [f"{ours}.attn.{name}" for name in qkv])
            yield f"{theirs}.{side}.attn.proj", (Place(f"{ours}.attn.{out}"),)
            yield f"{theirs}.{side}.mlp.fc1", (Place(f"{ours}.{forward}.net.0.proj"),)
            yield f"{theirs}.{side}.mlp.fc2", (Place(f"{ours}.{forward}.net.2"),)
            modulation = f"{ours}.{norm}.linear"
            # The last block's text side is only normalised, by diffusers' layer with the halves the other way round.
            last = side == "context_block" and block == blocks[-1]
            places = _swapped(layers, modulation) if last else (Place(modulation),)
            yield f"{theirs}.{side}.adaLN_modulation.1", places
        yield f"{theirs}.x_block.attn2.qkv", _fused(layers, [f"{ours}.attn2.{name}" for name in _QKV])
        yield f"{theirs}.x_block.attn2.proj", (Place(f"{ours}.attn2.to_out.0"),)
    for theirs, ours in (
        ("x_embedder.proj", "pos_embed.proj"),
        ("context_embedder", "context_embedder"),
        ("t_embedder.mlp.0", "time_text_embed.timestep_embedder.linear_1"),
        ("t_embedder.mlp.2", "time_text_embed.timestep_embedder.linear_2"),
        ("y_embedder.mlp.0", "time_text_embed.text_embedder.linear_1"),
        ("y_embedder.mlp.2", "time_text_embed.text_embedder.linear_2"),
        ("final_layer.linear", "proj_out"),
    ):
        yield theirs, (Place(ours),)
    yield "final_layer.adaLN_modulation.1", _swapped(layers, "norm_out.linear")


def _text(layers: dict[str, nn.Module]) -> Iterator[tuple[str, Places]]:
    """Text encoders: with and without the outer `text_model`, and diffusers' old names of the attention's layers."""
    for path in layers:
        names = [path.removeprefix("text_model."), f"text_model.{path.removeprefix('text_model.')}"]
        for name in names:
            yield name, (Place(path),)
            for ours, theirs in (
                ("q_proj", "to_q"),
                ("k_proj", "to_k"),
                ("v_proj", "to_v"),
                ("out_proj", "to_out"),
            ):
                if name.endswith(f".self_attn.{ours}"):
                    yield f"{name.removesuffix(ours)}{theirs}", (Place(path),)


def _numbers(layers: dict[str, nn.Module], start: str) -> list[str]:
    """The numbers of the blocks below `start`, in their order."""
    found = {path[len(start) :].partition(".")[0] for path in layers if path.startswith(start)}
    return sorted(found, key=int)
