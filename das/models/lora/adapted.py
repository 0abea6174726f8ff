"""A layer of a network with LoRAs on it: `y = f(x) + Σ w·g(x)`, one g for each LoRA, none of them merged.

peft has such layers too. These also hold what files bring that peft's don't: a down matrix that several layers share
(a fused qkv layer of FLUX), CP forms, several kinds of adapters on one layer, magnitudes of either side, and weights
that scale exactly what an adapter adds. The parameters that peft knows have its names, so that both have one digest.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Base = nn.Linear | nn.Conv2d


class Tucker(nn.Sequential):
    """The down part of a CP (Tucker) form: a 1×1 convolution to the rank, then one of the layer's own kernel."""

    def __init__(self, down: nn.Conv2d, mid: nn.Conv2d) -> None:
        super().__init__()
        self.add_module("down", down)
        self.add_module("mid", mid)


class Magnitude(nn.Module):
    """DoRA's length of each row (or column) of a weight: multiplies the channels of what is given.

    A module of its own, so that a batch's gradients of it are had from one backward pass (das.layers).
    """

    def __init__(self, weight: Tensor, dimension: int, *, of_inputs: bool) -> None:
        """Take the magnitudes.

        Args:
            weight: one for each channel.
            dimension: where the channels of the activations are, 1 or -1.
            of_inputs: whether the channels are the layer's inputs, which LyCORIS can train; else its outputs.
        """
        super().__init__()
        self.weight = nn.Parameter(weight.reshape(-1).contiguous())
        self.dimension = dimension
        self.of_inputs = of_inputs

    def along(self, values: Tensor, ndim: int) -> Tensor:
        """A number for each channel, shaped to multiply activations of `ndim` dimensions."""
        return values if self.dimension == -1 else values.view(1, -1, *[1] * (ndim - 2))

    def forward(self, u: Tensor) -> Tensor:
        """`m · u`."""
        return u * self.along(self.weight, u.dim())


class Product(nn.Module):
    """An adapter whose weight difference is worked out as a whole: LoHa and LoKr."""

    def __init__(self, factors: Mapping[str, Tensor], shape: torch.Size) -> None:
        super().__init__()
        self.shape = shape
        for name, tensor in factors.items():
            self.register_parameter(name, nn.Parameter(tensor.contiguous()))

    def factor(self, name: str) -> Tensor | None:
        """A tensor by LyCORIS' name for it."""
        return cast(Tensor | None, self._parameters.get(name))

    def delta(self) -> Tensor:
        """The weight difference, unscaled, in the layer's shape."""
        raise NotImplementedError


class Hadamard(Product):
    """LoHa: `(w1_a w1_b) ∘ (w2_a w2_b)`, each with a core `t` in the CP form."""

    def delta(self) -> Tensor:
        """See Product."""
        halves = []
        for half in ("1", "2"):
            a, b, core = (self.factor(f"hada_{name}") for name in (f"w{half}_a", f"w{half}_b", f"t{half}"))
            assert a is not None
            assert b is not None
            # The CP form keeps both factors with the rank in front.
            halves.append(a @ b if core is None else torch.einsum("ij...,jr,ip->pr...", core, b, a))
        return (halves[0] * halves[1]).reshape(self.shape)


class Kronecker(Product):
    """LoKr: `w1 ⊗ w2`, each whole or the product of two factors; `w2` also in the CP form."""

    def delta(self) -> Tensor:
        """See Product."""
        left, right = self._half("1"), self._half("2")
        if right.dim() > 2:
            left = left.reshape(*left.shape, *[1] * (right.dim() - 2))
        return torch.kron(left, right.contiguous()).reshape(self.shape)

    def _half(self, half: str) -> Tensor:
        whole, a, b, core = (
            self.factor(f"lokr_{name}") for name in (f"w{half}", f"w{half}_a", f"w{half}_b", f"t{half}")
        )
        if whole is not None:
            return whole
        assert a is not None
        assert b is not None
        return a @ b if core is None else torch.einsum("ij...,ip,jr->pr...", core, a, b)


class Adapted(nn.Module):
    """A linear or convolutional layer with one or more adapters.

    Attributes:
        scaling: by adapter what its matrices' product is multiplied by: `alpha / rank`, and for all but DoRA times
            the adapter's weight.
        strength: by DoRA adapter its weight.
        active: whether the adapters count; else the layer is its base.
    """

    def __init__(self, base_layer: Base) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.lora_A = nn.ModuleDict()
        self.lora_B = nn.ModuleDict()
        self.lora_magnitude_vector = nn.ModuleDict()
        self.lora_product = nn.ModuleDict()
        self.rows: dict[str, Tensor] = {}
        """By adapter of a kind that isn't split by rows: which of its product's outputs are this layer's."""
        self.scaling: dict[str, float] = {}
        self.strength: dict[str, float] = {}
        self.columns: dict[str, Sequence[Adapted]] = {}
        """By adapter with magnitudes of inputs: the layers that the file has as one, whose columns go on in each."""
        self.active = True

    def __getattr__(self, name: str) -> Any:
        """What callers ask of the layer (its weight's type, its features) is asked of the base."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "base_layer":
                raise
            return getattr(super().__getattr__("base_layer"), name)

    def forward(self, x: Tensor) -> Tensor:
        """`f(x) + Σ w·g(x)`."""
        base: Tensor = self.base_layer(x)
        if not self.active:
            return base
        result = base
        for name, scale in self.scaling.items():
            if name in self.lora_magnitude_vector:
                result = result + self._reweighted(name, scale, x, base)
            else:
                result = result + self._added(name, x) * scale
        return result

    def delta(self, name: str) -> Tensor:
        """The weight difference of an adapter before its magnitudes, unscaled, in the base's shape."""
        shape = self.base_layer.weight.shape
        if name in self.lora_product:
            whole = cast(Product, self.lora_product[name]).delta()
            return whole if name not in self.rows else whole[self.rows[name].to(whole.device)]
        down, up = self.lora_A[name], cast(Base, self.lora_B[name]).weight.flatten(1)
        if isinstance(down, Tucker):
            first, core = cast(nn.Conv2d, down[0]).weight.flatten(1), cast(nn.Conv2d, down[1]).weight
            return torch.einsum("ijkl,pi,jr->prkl", core, up, first).reshape(shape)
        return (up @ cast(Base, down).weight.flatten(1)).reshape(shape)

    def _added(self, name: str, x: Tensor) -> Tensor:
        """What the adapter's matrices add, unscaled."""
        if name in self.lora_product:
            return self._applied(self.delta(name), x)
        added: Tensor = self.lora_B[name](self.lora_A[name](x))
        return added

    def _applied(self, weight: Tensor, x: Tensor) -> Tensor:
        """The layer's map with another weight and no bias."""
        base = self.base_layer
        if isinstance(base, nn.Linear):
            return F.linear(x, weight)
        return F.conv2d(x, weight, None, base.stride, base.padding, base.dilation, base.groups)

    def _whole(self, name: str, scale: float) -> Tensor:
        """The base's weight with an adapter's difference, before magnitudes."""
        weight: Tensor = self.base_layer.weight
        return weight + scale * self.delta(name)

    def _reweighted(self, name: str, scale: float, x: Tensor, base: Tensor) -> Tensor:
        """What DoRA changes: `m · (W + s·ΔW)x / ‖W + s·ΔW‖ - Wx`, the norm held constant as in training (4.3)."""
        magnitude = cast(Magnitude, self.lora_magnitude_vector[name])
        weight = self.base_layer.weight
        with torch.no_grad():
            parts = [layer._whole(name, scale) for layer in self.columns.get(name, (self,))]
            if magnitude.of_inputs:
                sides = torch.cat([part.transpose(0, 1).flatten(1) for part in parts], 1)
            else:
                sides = parts[0].flatten(1)
            norm = torch.linalg.norm(sides, dim=1)
        plain = base
        if self.base_layer.bias is not None:
            bias = self.base_layer.bias
            plain = base - (bias if base.dim() == 2 or magnitude.dimension == -1 else bias.view(1, -1, 1, 1))
        if magnitude.of_inputs:
            given = magnitude(x / magnitude.along(norm, x.dim()))
            changed = self._applied(weight, given) + scale * self._added(name, given)
        else:
            inner = plain + scale * self._added(name, x)
            changed = magnitude(inner / magnitude.along(norm, inner.dim()))
        return self.strength.get(name, 1.0) * (changed - plain)


def lora_scalings(module: nn.Module) -> dict[str, Any]:
    """The factors of each LoRA on a network by the layer's name; empty without a LoRA."""
    return {
        name: layer.scaling
        | {f"{adapter} strength": value for adapter, value in layer.strength.items() if value != 1.0}
        for name, layer in module.named_modules()
        if isinstance(layer, Adapted)
    }


@contextmanager
def without_lora(*modules: nn.Module) -> Iterator[None]:
    """Networks as their bases alone: every LoRA on them counts for nothing until the end of the block."""
    layers = [layer for module in modules for layer in module.modules() if isinstance(layer, Adapted)]
    kept = [layer.active for layer in layers]
    try:
        for layer in layers:
            layer.active = False
        yield
    finally:
        for layer, before in zip(layers, kept, strict=True):
            layer.active = before
