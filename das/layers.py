"""Per-example parameter gradients of single layers, from the layer's input and its output's gradient.

For a layer `y = f(a; W)` in a network that treats examples separately, the gradient of example b's scalar is a
function of `a_b` and `∂s_b/∂y_b` alone. So one ordinary backward pass over a batch hands out every example's
gradient (METHOD, section 7). A layer kind without a rule here is left to the exact, slower path of `das.gradients`.
"""

import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import grad as convolution_gradients

Gradients = Iterator[tuple[str, Tensor]]
Rule = Callable[[nn.Module, Tensor, Tensor, frozenset[str]], Gradients]


GRADIENT_BYTES = 8 * 2**20
"""So much of a layer's gradients exists at once on a CPU: it stays in the cache until it is sketched, and the
allocator has it again for the next layer. All of a batch at once cost 4 to 8 % of a plain pass more (decision 41)."""


def examples_at_once(module: nn.Module, g: Tensor) -> int:
    """Of how many examples a layer's gradients are best formed together; `g` is the gradient of its output."""
    if g.is_cuda:
        return len(g)
    largest = max(weights.numel() for weights in module.parameters(recurse=False))
    return max(1, min(len(g), GRADIENT_BYTES // (largest * g.element_size())))


def _linear(module: nn.Module, a: Tensor, g: Tensor, wanted: frozenset[str]) -> Gradients:
    """`a`: (B, ..., in), `g`: (B, ..., out)."""
    a, g = a.reshape(len(a), -1, a.shape[-1]), g.reshape(len(g), -1, g.shape[-1])
    if "weight" in wanted:
        yield "weight", torch.bmm(g.transpose(1, 2), a)
    if "bias" in wanted:
        yield "bias", g.sum(1)


def _convolution(module: nn.Module, a: Tensor, g: Tensor, wanted: frozenset[str]) -> Gradients:
    """`a`: (B, C, *spatial), `g`: (B, O, *spatial')."""
    assert isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    if "weight" in wanted:
        if _is_pointwise(module):
            weight = torch.bmm(g.flatten(2), a.flatten(2).transpose(1, 2))
        elif isinstance(module, nn.Conv2d) and _unfolding_pays(module, g):
            weight = _unfolded_weight_gradient(module, a, g)
        else:
            weight = _grouped_weight_gradient(module, a, g)
        yield "weight", weight.view(len(a), *module.weight.shape)
    if "bias" in wanted:
        yield "bias", g.flatten(2).sum(2)


def _grouped_weight_gradient(module: nn.Conv1d | nn.Conv2d | nn.Conv3d, a: Tensor, g: Tensor) -> Tensor:
    """Every example's weight gradient, stacked, from one call of the library's own kernel.

    The batch is folded into the groups: the weight gradient of a convolution with B·groups groups is the stack of
    the examples' weight gradients, and nothing is unfolded.
    """
    batch, shape = len(a), module.weight.shape
    return _WEIGHT_GRADIENT[a.dim() - 2](
        a.reshape(1, batch * a.shape[1], *a.shape[2:]),
        (batch * shape[0], *shape[1:]),
        g.reshape(1, batch * shape[0], *g.shape[2:]),
        module.stride,
        module.padding,
        module.dilation,
        batch * module.groups,
    )


def _unfolded_weight_gradient(module: nn.Conv2d, a: Tensor, g: Tensor) -> Tensor:
    """The same as one matrix product per example over the unfolded input, (B, O, C·kh·kw)."""
    assert not isinstance(module.padding, str)  # `_is_plain`
    patches = F.unfold(a, module.kernel_size, module.dilation, module.padding, module.stride)
    return torch.bmm(g.flatten(2), patches.transpose(1, 2))


UNFOLD_POSITIONS = 16
"""Up to so many output positions unfolding was 1.5 to 4 times faster on a CPU, beyond it 1.5 to 8 times slower."""


def _unfolding_pays(module: nn.Conv2d, g: Tensor) -> bool:
    # On a GPU, libraries run convolutions with very many groups one after another.
    return module.groups == 1 and (g.is_cuda or g[0, 0].numel() <= UNFOLD_POSITIONS)


def _is_pointwise(module: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> bool:
    """Whether the convolution is one matrix product at every position."""
    plain = {*module.kernel_size, *module.stride, module.groups} == {1}
    return plain and {*module.padding} == {0}


_WEIGHT_GRADIENT: dict[int, Callable[..., Tensor]] = {
    1: convolution_gradients.conv1d_weight,
    2: convolution_gradients.conv2d_weight,
    3: convolution_gradients.conv3d_weight,
}


def _channel_norm(normalised: Tensor, g: Tensor, wanted: frozenset[str]) -> Gradients:
    """Affine gradients where each channel (dimension 1) has a gain and a bias."""
    if "weight" in wanted:
        yield "weight", (g * normalised).flatten(2).sum(2) if g.dim() > 2 else g * normalised
    if "bias" in wanted:
        yield "bias", g.flatten(2).sum(2) if g.dim() > 2 else g


def _group_norm(module: nn.Module, a: Tensor, g: Tensor, wanted: frozenset[str]) -> Gradients:
    assert isinstance(module, nn.GroupNorm)
    return _channel_norm(F.group_norm(a, module.num_groups, eps=module.eps), g, wanted)


def _batch_norm(module: nn.Module, a: Tensor, g: Tensor, wanted: frozenset[str]) -> Gradients:
    """In evaluation mode, where the statistics are constants and examples stay separate."""
    assert isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d)
    normalised = F.batch_norm(a, module.running_mean, module.running_var, eps=module.eps)
    return _channel_norm(normalised, g, wanted)


def _trailing_norm(
    normalised: Tensor, g: Tensor, shape: tuple[int, ...], wanted: frozenset[str]
) -> Gradients:
    """Affine gradients where the trailing dimensions `shape` have a gain and a bias."""
    batch = len(g)
    if "weight" in wanted:
        yield "weight", (g * normalised).reshape(batch, -1, *shape).sum(1)
    if "bias" in wanted:
        yield "bias", g.reshape(batch, -1, *shape).sum(1)


def _layer_norm(module: nn.Module, a: Tensor, g: Tensor, wanted: frozenset[str]) -> Gradients:
    assert isinstance(module, nn.LayerNorm)
    shape = tuple(module.normalized_shape)
    return _trailing_norm(F.layer_norm(a, shape, eps=module.eps), g, shape, wanted)


def _rms_norm(module: nn.Module, a: Tensor, g: Tensor, wanted: frozenset[str]) -> Gradients:
    assert isinstance(module, nn.RMSNorm)
    shape = tuple(module.normalized_shape)
    return _trailing_norm(F.rms_norm(a, shape, eps=module.eps), g, shape, wanted)


def _diffusers_rms_norm(module: nn.Module, a: Tensor, g: Tensor, wanted: frozenset[str]) -> Gradients:
    """diffusers' own RMSNorm, as in Stable Diffusion 3.5: it takes the mean square in single precision."""
    options: Any = module  # its class can't be named here without importing diffusers
    scale = torch.rsqrt(a.to(torch.float32).square().mean(-1, keepdim=True) + float(options.eps))
    yield from _trailing_norm(a * scale, g, tuple(options.dim), wanted)


def _magnitude(module: nn.Module, a: Tensor, g: Tensor, wanted: frozenset[str]) -> Gradients:
    """A DoRA's lengths, one for each channel; channels are where the module says."""
    options: Any = module  # its class can't be named here without importing every adapter's
    if options.dimension == -1:
        yield "weight", (g * a).reshape(len(a), -1, a.shape[-1]).sum(1)
    else:
        yield from _channel_norm(a, g, wanted)


def _embedding(module: nn.Module, a: Tensor, g: Tensor, wanted: frozenset[str]) -> Gradients:
    """`a`: (B, ...) indices, `g`: (B, ..., D)."""
    assert isinstance(module, nn.Embedding)
    if "weight" in wanted:
        rows, width = module.weight.shape
        indices, g = a.reshape(len(a), -1), g.reshape(len(g), -1, width)
        if module.padding_idx is not None:
            g = g * (indices != module.padding_idx).unsqueeze(-1)
        gradient = g.new_zeros(len(a), rows, width)
        yield "weight", gradient.scatter_add_(1, indices.unsqueeze(-1).expand_as(g), g)


_RULES: dict[type[nn.Module], Rule] = {
    nn.Linear: _linear,
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.Conv3d: _convolution,
    nn.GroupNorm: _group_norm,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.BatchNorm3d: _batch_norm,
    nn.LayerNorm: _layer_norm,
    nn.RMSNorm: _rms_norm,
    nn.Embedding: _embedding,
}


def _loaded_rules() -> dict[type[nn.Module], Rule]:
    """The rules of layers in modules that may not be loaded, and then no layer can be theirs."""
    found: dict[type[nn.Module], Rule] = {}
    if (normalization := sys.modules.get("diffusers.models.normalization")) is not None:
        found[normalization.RMSNorm] = _diffusers_rms_norm
    if (adapted := sys.modules.get("das.models.lora.adapted")) is not None:
        found[adapted.Magnitude] = _magnitude
    return found


def rule_for(module: nn.Module) -> Rule | None:
    """The rule for `module`, or None where none is known to be exact.

    A subclass with a `forward` of its own is not its parent: it may use the parameters in another way.
    """
    for kind, rule in (_RULES | _loaded_rules()).items():
        if isinstance(module, kind) and type(module).forward is kind.forward:
            return rule if _is_plain(module) else None
    return None


def _is_plain(module: nn.Module) -> bool:
    """Whether the module's options are those that its rule covers."""
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return module.padding_mode == "zeros" and not isinstance(module.padding, str)
    if isinstance(module, nn.Embedding):
        return module.max_norm is None and not module.scale_grad_by_freq
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
        return module.track_running_stats
    return True
