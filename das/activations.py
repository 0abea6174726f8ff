"""Activations: what a network's blocks hand on to one another, as a feature that takes no backward pass.

With a virtual linear readout `⟨W_l, a_l(x_t)⟩` of every hidden state `a_l`, the gradient with respect to `W_l` is the
state itself. So a sketched activation is a feature like any other: kernel, leverage and score are those of the
Gauss–Newton step on these readouts instead of the network's own weights (METHOD, section 2).

    φ_{i,t} = Σ_l P_lᵀ a_l(x_{i,t}) / ‖a_l(x_{i,t})‖

Every state counts the same, however large its numbers are; an inner product of two features is then the sum, in
expectation, of the cosines of their states.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from das.errors import ModelError, SettingsError
from das.kernel import normalised
from das.sketch import CountSketch

MOST_STATES = 12
"""Deep transformers hand on dozens of states of millions of numbers each; so many, evenly spaced, are read."""

_MIDDLE = "mid_block"
_HEADS = ("conv_norm_out", "norm_out")
"""What norms the last hidden state before the output layer, in diffusers' U-Nets and transformers."""


class Activations:
    """Records the hidden states of a network's forward passes and sketches them."""

    def __init__(
        self,
        network: nn.Module,
        forward: Callable[[int], Tensor],
        dimension: int,
        seed: int,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Find the states and draw their sketch; runs the network twice.

        A state is what a block is given by the one before it, or the output's norm by the last block. What the first
        block is given is left out: it is the picture, after one layer.

        Args:
            forward: the network's outputs for the first n of some fixed, different examples.

        Raises:
            SettingsError: the network has no blocks.
            ModelError: it doesn't keep the examples of a batch apart.
        """
        self.network = network
        self._readers = _readers(network)
        together, alone = self._states(lambda: forward(2)), self._states(lambda: forward(1))
        states = list(together)[1:]
        if not states:
            raise SettingsError(
                f"A {type(network).__name__} has no blocks whose activations could be read; leave the probe"
                " 'activation' out."
            )
        for name in states:
            self._compare(name, together[name], alone[name])
        # The last state is what the output is made of; from there every step-th one backwards.
        chosen = states[:: -math.ceil(len(states) / MOST_STATES)][::-1]
        self._readers = {module: name for module, name in self._readers.items() if name in chosen}
        self._sketch = CountSketch(
            dimension,
            seed,
            {f"activation {name}": tuple(together[name].shape[1:]) for name in chosen},
            device=device,
            dtype=dtype,
        )

    @property
    def states(self) -> tuple[str, ...]:
        """The modules whose input is read, by name."""
        return tuple(self._readers.values())

    def _compare(self, name: str, together: Tensor, alone: Tensor) -> None:
        if len(together) != 2 or len(alone) != 1:
            raise ModelError(
                f"What {name} is given doesn't have the examples in front; its activations can't be read."
            )
        difference = float((together[0] - alone[0]).norm())
        if difference > 1e-3 * float(alone[0].norm()):
            raise ModelError(
                f"The network mixes the examples of a batch: what {name} is given depends on the others. Activations"
                " can't be read."
            )

    def _states(self, forward: Callable[[], Tensor]) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        with self._hooks(found), torch.no_grad():
            forward()
        return found

    @contextmanager
    def recording(self) -> Iterator[Callable[[], Tensor]]:
        """Run one forward pass of B examples inside this context; what it yields then gives their `φ`, (B, k)."""
        found: dict[str, Tensor] = {}
        with self._hooks(found):
            yield lambda: self._feature(found)

    def _feature(self, states: dict[str, Tensor]) -> Tensor:
        accumulator = self._sketch.accumulator(len(next(iter(states.values()))))
        for name, state in states.items():
            # The norm of a large state is beyond half precision, whatever its elements are.
            flat = state.flatten(1).to(torch.promote_types(state.dtype, torch.float32))
            self._sketch.add(accumulator, f"activation {name}", normalised(flat).to(state.dtype))
        return self._sketch.finish(accumulator)

    @contextmanager
    def _hooks(self, found: dict[str, Tensor]) -> Iterator[None]:
        """Keep what each reader is given, in the order in which they are called."""

        def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = kwargs.get("hidden_states", args[0] if args else None)
            if isinstance(given, Tensor):
                found[self._readers[module]] = given.detach()

        handles = [module.register_forward_pre_hook(keep, with_kwargs=True) for module in self._readers]
        training = self.network.training
        self.network.eval()
        try:
            yield
        finally:
            self.network.train(training)
            for handle in handles:
                handle.remove()


def _readers(network: nn.Module) -> dict[nn.Module, str]:
    """The blocks of a network and the norm of its output, with their names."""
    found: dict[nn.Module, str] = {}
    for name, child in network.named_children():
        if isinstance(child, nn.ModuleList) and name.endswith("blocks"):
            found |= {block: f"{name}.{place}" for place, block in enumerate(child)}
        elif name == _MIDDLE or name in _HEADS:
            found[child] = name
    return found
