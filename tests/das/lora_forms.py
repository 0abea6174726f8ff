"""The forms that a LoRA's tensors of one layer can have, each with the weight difference that it means.

Worked out here from the formulas alone, in double precision, by the names that LyCORIS and kohya give the tensors.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from lora_files import Merging, loha, lokr, tucker
from torch import Tensor


class Layer(NamedTuple):
    """What a form is made for.

    Attributes:
        weight: the layer's, in the file's order of rows.
        number: which layer of the file, so that ranks and alphas can differ.
    """

    made: Merging
    weight: Tensor
    number: int
    dtype: torch.dtype


Made = tuple[dict[str, Tensor], Tensor]
"""Tensors by the ends of their names, and the difference."""


def _low_rank(layer: Layer, rank: int) -> tuple[dict[str, Tensor], Tensor]:
    rows, *rest = layer.weight.shape
    down = layer.made.normal(rank, *rest).to(layer.dtype)
    up = layer.made.normal(rows, rank, *[1] * len(rest[1:])).to(layer.dtype)
    product = (up.double().flatten(1) @ down.double().flatten(1)).reshape(layer.weight.shape)
    return {"lora_down.weight": down, "lora_up.weight": up}, product


def plain(layer: Layer) -> Made:
    """Without an alpha: the product itself."""
    return _low_rank(layer, 2)


def own_alpha(layer: Layer) -> Made:
    """A rank and an alpha for each layer."""
    rank, alpha = 1 + layer.number % 4, (0.5, 1.0, 3.0, 8.0, 2.5)[layer.number % 5]
    tensors, product = _low_rank(layer, rank)
    return tensors | {"alpha": torch.tensor(alpha)}, alpha / rank * product


def _weighed(layer: Layer, tensors: dict[str, Tensor], difference: Tensor, side: int) -> Made:
    """DoRA's magnitudes of the rows (0) or the columns (1) besides."""
    weight = layer.weight.double()
    shape = [1] * weight.dim()
    shape[side] = weight.shape[side]
    magnitude = (0.5 + torch.rand(shape, generator=layer.made.random)).to(layer.dtype)
    whole = weight + difference
    norm = whole.transpose(0, side).flatten(1).norm(dim=1).reshape(shape)
    return tensors | {"dora_scale": magnitude}, magnitude.double() * whole / norm - weight


def dora(layer: Layer) -> Made:
    return _weighed(layer, *own_alpha(layer), 0)


def dora_of_inputs(layer: Layer) -> Made:
    """LyCORIS' older form."""
    return _weighed(layer, *own_alpha(layer), 1)


def _lycoris(
    kind: Callable[..., tuple[dict[str, Tensor], Tensor, int]], *, cp: bool
) -> Callable[[Layer], Made]:
    def form(layer: Layer) -> Made:
        rounding = layer.made.dtype
        layer.made.dtype = layer.dtype
        parts, whole, rank = kind(layer.made, layer.weight.shape, cp=cp)
        layer.made.dtype = rounding
        tensors = {name: tensor.to(layer.dtype) for name, tensor in parts.items()}
        return tensors | {"alpha": torch.tensor(1.5)}, 1.5 / rank * whole.double()

    return form


def whole_lokr(layer: Layer) -> Made:
    """Both halves whole: nothing has a rank, and alpha means nothing."""
    rows, columns, *kernel = layer.weight.shape
    left = layer.made.normal(2, 2).to(layer.dtype)
    right = layer.made.normal(rows // 2, columns // 2, *kernel).to(layer.dtype)
    blocks = [torch.cat([left[i, j].double() * right.double() for j in range(2)], 1) for i in range(2)]
    return {"lokr_w1": left, "lokr_w2": right, "alpha": torch.tensor(7.0)}, torch.cat(blocks, 0)


def weighed_loha(layer: Layer) -> Made:
    tensors, difference = _lycoris(loha, cp=False)(layer)
    return _weighed(layer, tensors, difference, 0)


def weighed_lokr(layer: Layer) -> Made:
    tensors, difference = _lycoris(lokr, cp=False)(layer)
    return _weighed(layer, tensors, difference, 0)


FORMS: dict[str, Callable[[Layer], Made]] = {
    "LoRA": plain,
    "LoRA, alphas of layers": own_alpha,
    "DoRA": dora,
    "DoRA of inputs": dora_of_inputs,
    "LoHa": _lycoris(loha, cp=False),
    "LoKr": _lycoris(lokr, cp=False),
    "LoKr of whole halves": whole_lokr,
    "LoHa with magnitudes": weighed_loha,
    "LoKr with magnitudes": weighed_lokr,
}
CP_FORMS: dict[str, Callable[[Layer], Made]] = {
    "LoRA in the CP form": _lycoris(tucker, cp=True),
    "LoHa in the CP form": _lycoris(loha, cp=True),
    "LoKr in the CP form": _lycoris(lokr, cp=True),
}
"""For convolutions; other layers get the plain form of the same kind beside them."""
