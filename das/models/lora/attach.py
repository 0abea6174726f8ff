"""The matrices of one layer of a file, put on the layers of the network that they are of."""

from pathlib import Path

import torch
from torch import Tensor, nn

from das.errors import ModelError
from das.models.lora.adapted import Adapted, Hadamard, Kronecker, Magnitude, Tucker
from das.models.lora.kinds import LOHA, LORA, Piece, shown
from das.models.lora.naming import Places


class Misfit(ModelError):
    """Tensors of other sizes than the layers that they are for."""


def attach(
    piece: Piece,
    places: Places,
    layers: list[Adapted],
    adapter: str,
    scale: float,
    weight: float,
    file: Path,
) -> None:
    """Put a piece on the layers at `places`, as `adapter`.

    Where a file's layer is several of the network's (a fused qkv), these share the matrix that the file has once, so
    that what is attributed is what was trained.

    Args:
        scale: `alpha / rank`.
        weight: of the whole LoRA.

    Raises:
        Misfit: a tensor hasn't the shape that the layers ask for.
        ModelError: the layer is of a kind that takes no adapters.
    """
    # Copied out of the mapped file, where they needn't be aligned, which costs time and changes last digits.
    tensors = {role: tensor.to(torch.float32, copy=True) for role, tensor in piece.tensors.items()}
    if piece.kind == LORA:
        _attach_matrices(piece, tensors, places, layers, adapter, file)
    else:
        _attach_product(piece, tensors, places, layers, adapter, file)
    of_inputs = _of_inputs(piece)
    if "magnitude" in tensors:
        made = _magnitudes(piece, tensors["magnitude"].flatten(), places, layers, file, of_inputs=of_inputs)
        for magnitude, layer in zip(made, layers, strict=True):
            layer.lora_magnitude_vector[adapter] = magnitude
            layer.strength[adapter] = weight
            if of_inputs:
                layer.columns[adapter] = layers
    for layer in layers:
        layer.scaling[adapter] = scale if "magnitude" in tensors else scale * weight


def _attach_matrices(
    piece: Piece,
    tensors: dict[str, Tensor],
    places: Places,
    layers: list[Adapted],
    adapter: str,
    file: Path,
) -> None:
    outputs = _outputs(layers)
    up = tensors["up"].flatten(1)
    rank = len(tensors["down"])
    if tuple(up.shape) != (outputs, rank):
        raise _misfit(piece, "up", (outputs, rank), file)
    if "up_bias" in tensors and tuple(tensors["up_bias"].shape) != (outputs,):
        raise _misfit(piece, "up_bias", (outputs,), file)
    columns = _separate_columns(up, places) if "magnitude" not in tensors and "mid" not in tensors else None
    shared = None if columns else _down(piece, tensors, layers[0].base_layer, file)
    for number, (place, layer) in enumerate(zip(places, layers, strict=True)):
        rows = _rows(up, place.rows)
        if columns is not None:
            chosen = columns[number]
            rows = rows[:, chosen]
            part = tensors | {"down": tensors["down"][chosen]}
            layer.lora_A[adapter] = _down(piece, part, layer.base_layer, file)
        else:
            assert shared is not None
            layer.lora_A[adapter] = shared
        bias = _rows(tensors["up_bias"], place.rows) if "up_bias" in tensors else None
        layer.lora_B[adapter] = _up(rows, bias, layer.base_layer)


def _separate_columns(up: Tensor, places: Places) -> list[slice] | None:
    """Where a fused layer was trained with matrices of their own for each part, the columns of each; else None.

    kohya's `split_qkv` keeps them as one up matrix of blocks, zero outside.
    """
    parts, rank = len(places), up.shape[1]
    if parts == 1 or rank % parts:
        return None
    width = rank // parts
    columns = [slice(part * width, (part + 1) * width) for part in range(parts)]
    for place, own in zip(places, columns, strict=True):
        rest = _rows(up, place.rows).clone()
        rest[:, own] = 0
        if bool(rest.any()):
            return None
    return columns


def _down(piece: Piece, tensors: dict[str, Tensor], base: nn.Linear | nn.Conv2d, file: Path) -> nn.Module:
    """The module that maps a layer's input to the rank."""
    down = tensors["down"]
    rank = len(down)
    if isinstance(base, nn.Linear):
        if "mid" in tensors or down.flatten(1).shape[1] != base.in_features or down.shape[2:].numel() != 1:
            raise _misfit(piece, "mid" if "mid" in tensors else "down", (rank, base.in_features), file)
        made: nn.Linear | nn.Conv2d = nn.Linear(base.in_features, rank, bias=False)
        made.weight = nn.Parameter(down.flatten(1).contiguous())
        return made
    if base.groups != 1 or base.padding_mode != "zeros":
        raise ModelError(
            f"{file}: {shown(piece.name)} is a convolution in groups or with other padding than zeros; adapters of"
            " such aren't supported."
        )
    kernel = tuple(base.kernel_size)
    if "mid" in tensors:
        if tuple(tensors["mid"].shape) != (rank, rank, *kernel):
            raise _misfit(piece, "mid", (rank, rank, *kernel), file)
        if down.numel() != rank * base.in_channels:
            raise _misfit(piece, "down", (rank, base.in_channels, 1, 1), file)
        first = nn.Conv2d(base.in_channels, rank, 1, bias=False)
        first.weight = nn.Parameter(down.reshape(rank, base.in_channels, 1, 1).contiguous())
        return Tucker(first, _convolution_like(base, tensors["mid"]))
    wanted = (rank, base.in_channels, *kernel)
    if down.dim() == 2 and kernel == (1, 1):
        down = down[..., None, None]
    if tuple(down.shape) != wanted:
        raise _misfit(piece, "down", wanted, file)
    return _convolution_like(base, down)


def _convolution_like(base: nn.Conv2d, weight: Tensor) -> nn.Conv2d:
    """A convolution of the base's kernel, stride and padding with another weight, and no bias."""
    made = nn.Conv2d(
        weight.shape[1],
        weight.shape[0],
        base.kernel_size,  # type: ignore[arg-type]
        base.stride,  # type: ignore[arg-type]
        base.padding,  # type: ignore[arg-type]
        base.dilation,  # type: ignore[arg-type]
        bias=False,
    )
    made.weight = nn.Parameter(weight.contiguous())
    return made


def _up(rows: Tensor, bias: Tensor | None, base: nn.Linear | nn.Conv2d) -> nn.Module:
    """The module that maps the rank to a layer's output."""
    outputs, rank = rows.shape
    made: nn.Linear | nn.Conv2d
    if isinstance(base, nn.Linear):
        made = nn.Linear(rank, outputs, bias=bias is not None)
    else:
        made = nn.Conv2d(rank, outputs, 1, bias=bias is not None)
        rows = rows[..., None, None]
    made.weight = nn.Parameter(rows.contiguous())
    if bias is not None:
        made.bias = nn.Parameter(bias.contiguous())
    return made


def _attach_product(
    piece: Piece,
    tensors: dict[str, Tensor],
    places: Places,
    layers: list[Adapted],
    adapter: str,
    file: Path,
) -> None:
    first = layers[0].base_layer.weight.shape
    shape = torch.Size((_outputs(layers), *first[1:]))
    kind = Hadamard if piece.kind == LOHA else Kronecker
    factors = {role: tensor for role, tensor in tensors.items() if role != "magnitude"}
    made = kind(factors, shape)
    try:
        with torch.no_grad():
            made.delta()
    except (RuntimeError, ValueError) as error:
        sides = ", ".join(f"{role} {_size(tensor.shape)}" for role, tensor in factors.items())
        raise Misfit(
            f"{file}: the tensors of {shown(piece.name)} ({sides}) don't make a weight of {_size(shape)}, which the"
            " layer has. The LoRA is of a network of other sizes."
        ) from error
    for place, layer in zip(places, layers, strict=True):
        layer.lora_product[adapter] = made
        if place.rows is not None:
            layer.rows[adapter] = _rows(torch.arange(shape[0]), place.rows)


def _of_inputs(piece: Piece) -> bool:
    """Whether magnitudes are one for each input: LyCORIS' (1, in, …); its (out, 1, …) and all of peft's aren't."""
    if "magnitude" not in piece.tensors or not piece.names["magnitude"].endswith("dora_scale"):
        return False
    shape = piece.tensors["magnitude"].shape
    return len(shape) > 1 and shape[0] == 1 and shape[1] > 1


def _magnitudes(
    piece: Piece, values: Tensor, places: Places, layers: list[Adapted], file: Path, *, of_inputs: bool
) -> list[Magnitude]:
    """DoRA's for each layer; those of inputs are once in a file, and so one module of all of its layers."""
    weight = layers[0].base_layer.weight
    count = weight.shape[1] if of_inputs else _outputs(layers)
    if values.numel() != count:
        raise _misfit(piece, "magnitude", (count,), file)
    dimension = -1 if weight.dim() == 2 else 1
    if of_inputs:
        return [Magnitude(values, dimension, of_inputs=True)] * len(layers)
    return [Magnitude(_rows(values, place.rows), dimension, of_inputs=False) for place in places]


def _rows(values: Tensor, rows: tuple[tuple[int, int], ...] | None) -> Tensor:
    """The ranges of a tensor's rows, one behind the other."""
    if rows is None:
        return values
    return torch.cat([values[start:stop] for start, stop in rows])


def _outputs(layers: list[Adapted]) -> int:
    return sum(len(layer.base_layer.weight) for layer in layers)


def _misfit(piece: Piece, role: str, wanted: tuple[int, ...], file: Path) -> Misfit:
    found = piece.tensors[role].shape
    return Misfit(
        f"{file}: {shown(piece.names[role])} is {_size(found)}, and the layer that it is for needs {_size(wanted)}."
        " The LoRA is of a network of other sizes, such as another version of the model."
    )


def _size(shape: tuple[int, ...] | torch.Size) -> str:
    return " × ".join(map(str, shape)) or "one number"
