"""Features: sketched per-example gradients `φ_{i,t} = Pᵀ J_t(x_i)ᵀ v`, for a batch at a time.

One forward pass over (image, timestep) pairs serves all probes; each probe costs one ordinary batched backward
pass, except `activation`, which costs none (`das.activations`). Hooks keep a layer's input and receive its output's
gradient; from these the layer's per-example gradient is formed (`das.layers`), sketched and dropped, so at most one
layer's gradients exist at a time.
"""

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from das import registry
from das.activations import Activations
from das.config import BuildConfig
from das.errors import ExtensionError, ModelError, SettingsError
from das.layers import Rule, examples_at_once, rule_for
from das.methods import ACTIVATION
from das.models import Conditioning, DiffusionModel, equally_long
from das.prng import random_words, standard_normal
from das.probes import Point, direction_of
from das.sketch import CountSketch

log = logging.getLogger(__name__)

Sink = Callable[[str, Tensor, slice], None]
"""Takes a parameter's name, gradients (n, *shape) of some examples of the batch, and which ones these are."""


class Backward(Protocol):
    """Sends every example's gradient of `⟨direction_b, output_b⟩` to the sink of the recording."""

    def __call__(self, output: Tensor, direction: Tensor, *, last: bool = True) -> None: ...


@dataclass(frozen=True)
class FeatureConfig:
    """Everything that a feature's value depends on besides the model and the image.

    Attributes:
        dimension: k, buckets of the sketch.
        probes: names of probes that `das.registry` knows.
        timesteps: the values of t, in the model's training schedule.
        noise_draws: noises for each t; a feature is the mean over them.
        seed: of the sketch, the noise and the random probe.
        attributed: see `attributed_parameters`.
        prompt_dropout: part of the (timestep, draw) pairs that are computed without prompts, the same pairs for
            every image: what training for classifier-free guidance does at random.
    """

    dimension: int
    probes: tuple[str, ...]
    timesteps: tuple[int, ...]
    noise_draws: int = 1
    seed: int = 0
    attributed: str = "auto"
    prompt_dropout: float = 0.0

    @classmethod
    def of(cls, config: BuildConfig, probes: tuple[str, ...], timesteps: tuple[int, ...]) -> "FeatureConfig":
        """The part of a build's choices that its features depend on."""
        return cls(
            dimension=config.dimension,
            probes=probes,
            timesteps=timesteps,
            noise_draws=config.noise_draws,
            seed=config.seed,
            attributed=config.attributed,
            prompt_dropout=config.prompt_dropout,
        )


@dataclass(frozen=True)
class Features:
    """The features of B images.

    Attributes:
        by_probe: for each probe (B, T, k), not normalised.
        residual_rms: `RMS(r_t(x_i))` of the residual `ε_θ - target`, (B, T).
    """

    by_probe: dict[str, Tensor]
    residual_rms: Tensor


SELECTIONS = {"up-blocks": r"(^|\.)up_blocks\.", "lora": r"\blora_[A-Za-z_]+(\.|$)"}
"""Names for parts of a network that the paper attributes to (App. E), as regular expressions of parameter names."""


def attributed_parameters(network: nn.Module, attributed: str) -> dict[str, nn.Parameter]:
    """The parameters by name that `attributed` selects.

    "auto" is the LoRA matrices where the network has some, else all parameters; "all" is all, of the frozen base
    under a LoRA too; "lora2" is the second of several LoRAs alone, the others as fixed as the base; `SELECTIONS`
    names further parts; anything else is a regular expression searched in the names.

    Raises:
        SettingsError: the expression is malformed or selects nothing.
    """
    named = dict(network.named_parameters())
    if attributed == "auto":
        attributed = "lora" if any(re.search(SELECTIONS["lora"], name) for name in named) else "all"
    if attributed == "all":
        return named
    try:
        one = re.fullmatch(r"lora\d+", attributed)
        pattern = re.compile(rf"\.{attributed}\." if one else SELECTIONS.get(attributed, attributed))
    except re.error as error:
        raise SettingsError(f"attributed={attributed!r} is not a regular expression: {error}.") from error
    chosen = {name: parameter for name, parameter in named.items() if pattern.search(name)}
    if not chosen:
        examples = ", ".join(list(named)[:3])
        raise SettingsError(
            f"attributed={attributed!r} matches no parameter; there are names such as {examples}."
        )
    return chosen


class PerExampleGradients:
    """Per-example gradients of chosen parameters of a network, through hooks that exist only during a pass.

    Parameters of layers with a rule are served by the hooks. Every other parameter (a raw parameter, a layer kind
    without a rule, a layer called with something else than the batch in front) is served by one backward pass per
    example, exactly and slowly; `fallback` names them and a warning is logged once. None is skipped.
    """

    def __init__(self, network: nn.Module, parameters: dict[str, nn.Parameter]) -> None:
        """Plan which parameter is served how, as far as the layers' kinds tell; `settle` finds the rest."""
        self.network = network
        self.parameters = parameters
        self.fallback: dict[str, nn.Parameter] = {}
        self._plan()

    def _plan(self) -> None:
        canonical = {parameter: name for name, parameter in self.parameters.items()}
        hooked: dict[nn.Module, tuple[Rule, dict[str, str]]] = {}
        served: set[str] = set()
        for module in self.network.modules():
            names = {
                local: canonical[p] for local, p in module.named_parameters(recurse=False) if p in canonical
            }
            names = {local: name for local, name in names.items() if name not in self.fallback}
            rule = rule_for(module) if names else None
            if rule is not None:
                hooked[module] = (rule, names)
                served.update(names.values())
            else:
                # A parameter that two modules share is served by hooks only if both have a rule.
                self.fallback.update({name: self.parameters[name] for name in names.values()})
        self._hooked = hooked
        if served & self.fallback.keys():
            self._plan()

    def settle(self, forward: Callable[[], Tensor]) -> None:
        """Find out, by one pass, which layers are never called or not called with the batch in front.

        `forward` maps a batch of at least two examples to outputs (B, ...). Afterwards the first example's
        hooked gradients are compared with plain autograd.

        Raises:
            ModelError: a hooked gradient differs from autograd's; the message names the parameters.
        """
        called: set[nn.Module] = set()
        foreign: set[nn.Module] = set()
        with self._prepared(), self._hooks(lambda name, gradient, rows: None, called, foreign):
            output = forward().detach()
        for module in (self._hooked.keys() - called) | foreign:
            names = self._hooked[module][1]
            self.fallback.update({name: self.parameters[name] for name in names.values()})
        self._plan()
        if self.fallback:
            log.warning(
                "%d of %d parameters have no batched rule and are differentiated one example at a time: %s",
                len(self.fallback),
                len(self.parameters),
                ", ".join(self.fallback),
            )
        self._compare_with_autograd(forward, torch.ones_like(output))

    def _compare_with_autograd(self, forward: Callable[[], Tensor], direction: Tensor) -> None:
        hooked: dict[str, Tensor] = {}

        def keep_first(name: str, gradient: Tensor, rows: slice) -> None:
            if rows.start == 0:
                hooked[name] = hooked[name] + gradient[0] if name in hooked else gradient[0].clone()

        with self.recording(keep_first) as backward:
            output = forward()
            backward(output, direction)
        parameters = list(self.parameters.values())
        with self._prepared(all_parameters=True), self._differentiable_input() as inputs:
            scalar = (forward()[0] * direction[0]).sum()
            plain = torch.autograd.grad(scalar, [*parameters, *inputs], allow_unused=True)[: len(parameters)]
        # A gradient that is zero in truth, of a bias before a norm, comes out as the rounding error of large terms.
        noise = 1e-6 * max(1.0, *(float(expected.norm()) for expected in plain if expected is not None))
        wrong = []
        for (name, parameter), expected in zip(self.parameters.items(), plain, strict=True):
            expected = torch.zeros_like(parameter) if expected is None else expected
            got = hooked.get(name, torch.zeros_like(parameter))
            tolerance = 1e-3 * float(expected.norm()) + noise
            if float((got - expected).norm()) > tolerance:
                wrong.append(name)
        if wrong:
            raise ModelError(
                "The network mixes examples of a batch or uses layers in a way that hooks can't follow; the "
                f"per-example gradients of these parameters would be wrong: {', '.join(wrong)}. "
                "Leave them out with a regular expression for 'attributed'."
            )

    @contextmanager
    def _differentiable_input(self) -> Iterator[list[Tensor]]:
        """Let the network's input ask for a gradient; yields it, in a list that the forward pass fills.

        torch 2.6 ends with a segmentation fault where a group norm's weights want a gradient and its input, in
        channels-last order, doesn't.
        """
        found: list[Tensor] = []

        def on_start(network: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
            first = args[0] if args else next(iter(kwargs.values()))
            if first.is_floating_point():
                found.append(first.requires_grad_())

        handle = self.network.register_forward_pre_hook(on_start, with_kwargs=True)
        try:
            yield found
        finally:
            handle.remove()

    @contextmanager
    def recording(self, sink: Sink) -> Iterator[Backward]:
        """Run a forward pass inside this context, then call what it yields with the output and a direction `v`.

        Every example's gradient of `⟨v_b, output_b⟩` then goes to `sink`, piece by piece (a parameter used twice
        comes twice; pieces add up). Several directions can be asked of one forward pass; the last call says so.
        """
        with self._prepared(), self._hooks(sink, set(), set()) as starts:

            def backward(output: Tensor, direction: Tensor, *, last: bool = True) -> None:
                inputs = [*starts, *self.fallback.values()]
                keep = not last or bool(self.fallback)
                torch.autograd.grad(output, inputs, direction, retain_graph=keep, allow_unused=True)
                if self.fallback:
                    self._one_by_one(output, direction, sink, keep_graph=not last)

            yield backward

    def _one_by_one(self, output: Tensor, direction: Tensor, sink: Sink, *, keep_graph: bool) -> None:
        parameters = list(self.fallback.values())
        scalars = (output * direction).flatten(1).sum(1)
        self._muted = True
        try:
            for b, scalar in enumerate(scalars):
                keep = keep_graph or b + 1 < len(scalars)
                found = torch.autograd.grad(scalar, parameters, retain_graph=keep, allow_unused=True)
                for (name, parameter), gradient in zip(self.fallback.items(), found, strict=True):
                    given = torch.zeros_like(parameter) if gradient is None else gradient
                    sink(name, given.unsqueeze(0), slice(b, b + 1))
        finally:
            self._muted = False

    _muted = False

    @contextmanager
    def _prepared(self, *, all_parameters: bool = False) -> Iterator[None]:
        """Let gradients reach the layers without being accumulated in the parameters; restores everything."""
        wanted = set(self.parameters.values()) if all_parameters else set(self.fallback.values())
        before = [(parameter, parameter.requires_grad) for parameter in self.network.parameters()]
        training = self.network.training
        self.network.eval()
        try:
            for parameter, _ in before:
                parameter.requires_grad_(parameter in wanted)
            with torch.enable_grad():
                yield
        finally:
            for parameter, flag in before:
                parameter.requires_grad_(flag)
            self.network.train(training)

    @contextmanager
    def _hooks(self, sink: Sink, called: set[nn.Module], foreign: set[nn.Module]) -> Iterator[list[Tensor]]:
        """Attach the forward hooks; yields the list of graph starts that a backward pass must reach."""
        starts: list[Tensor] = []
        batch: list[int] = []

        def receive(rule: Rule, module: nn.Module, names: dict[str, str], a: Tensor, g: Tensor) -> None:
            if self._muted:
                return
            wanted, together = frozenset(names), examples_at_once(module, g)
            with torch.no_grad():
                for start in range(0, len(g), together):
                    rows = slice(start, start + together)
                    for local, gradient in rule(module, a[rows], g[rows], wanted):
                        sink(names[local], gradient, rows)

        def on_forward(
            rule: Rule, names: dict[str, str], module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor
        ) -> Tensor:
            called.add(module)
            a = inputs[0].detach() if inputs else None
            if a is None or len(a) != batch[0] or len(output) != batch[0]:
                foreign.add(module)
                return output
            if not output.requires_grad:
                # Nothing before this layer asks for gradients, so the graph starts here.
                start = output.detach().requires_grad_()
                starts.append(start)
                output = start.clone()
            output.register_hook(partial(receive, rule, module, names, a))
            return output

        def on_start(network: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
            batch[:] = [len(args[0] if args else next(iter(kwargs.values())))]

        handles = [self.network.register_forward_pre_hook(on_start, with_kwargs=True)]
        handles += [
            module.register_forward_hook(partial(on_forward, rule, names))
            for module, (rule, names) in self._hooked.items()
        ]
        try:
            yield starts
        finally:
            for handle in handles:
                handle.remove()


class FeatureExtractor:
    """Computes the features of images under one model and one `FeatureConfig`."""

    def __init__(self, model: DiffusionModel, config: FeatureConfig, *, batch_size: int = 32) -> None:
        """Prepare sketch, noise and hooks; runs the network on two examples to check the hooks.

        Args:
            batch_size: (image, timestep) pairs in one pass; it doesn't change the values.

        Raises:
            SettingsError: an option of `config` can't be used with this model.
            ModelError: the network can't be differentiated example by example.
        """
        last = model.schedule.num_train_timesteps - 1
        outside = [t for t in config.timesteps if not 0 <= t <= last]
        if outside or not config.timesteps:
            raise SettingsError(f"Timesteps must lie in 0 to {last}; got {outside}.")
        self.model = model
        self.config = config
        self.batch_size = batch_size
        self._directions = {name: direction_of(name) for name in config.probes if name != ACTIVATION}
        self.parameters = attributed_parameters(model.network, config.attributed) if self._directions else {}
        self.sketch = CountSketch(
            config.dimension,
            config.seed,
            {name: tuple(p.shape) for name, p in self.parameters.items()},
            device=model.device,
            dtype=model.dtype,
        )
        # One noise for each (t, draw), shared by every image, query included: (T, draws, C, h, w).
        self.noise = torch.stack(
            [
                torch.stack([self._shared_noise(t, d) for d in range(config.noise_draws)])
                for t in config.timesteps
            ]
        ).to(model.device, model.dtype)
        self._dropped = torch.tensor(
            [[self._drops_prompts(t, d) for d in range(config.noise_draws)] for t in config.timesteps]
        ).to(model.device)
        self._gradients = PerExampleGradients(model.network, self.parameters)
        if self._directions:
            self._gradients.settle(self._trial)
        self._activations: Activations | None = None
        if ACTIVATION in config.probes:
            self._activations = Activations(
                model.network,
                self._trial,
                config.dimension,
                config.seed,
                device=model.device,
                dtype=model.dtype,
            )

    def _shared_noise(self, t: int, draw: int) -> Tensor:
        return torch.from_numpy(
            standard_normal(self.config.seed, f"noise\n{t}\n{draw}", self.model.sample_shape)
        )

    def _drops_prompts(self, t: int, draw: int) -> bool:
        word = int(random_words(self.config.seed, f"prompt dropout\n{t}\n{draw}", 1)[0])
        return word < self.config.prompt_dropout * 2**64

    def _trial(self, examples: int = 2) -> Tensor:
        """The outputs (n, C, h, w) for the first n of two different inputs, to check the hooks with."""
        noise = torch.from_numpy(standard_normal(0, "trial", (2, *self.model.sample_shape)))[:examples]
        last = self.model.schedule.num_train_timesteps - 1
        t = torch.tensor([last // 3, last // 2][:examples], device=self.model.device)
        conditioning = self.model.condition([None, "a picture"][:examples])
        return self.model.predict(noise.to(self.model.device, self.model.dtype), t, conditioning)

    @property
    def pairs_per_image(self) -> int:
        """Forward passes an image takes: T times the noise draws."""
        return len(self.config.timesteps) * self.config.noise_draws

    def features(
        self,
        x0: Tensor,
        conditioning: Conditioning | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Features:
        """The features of images at every timestep.

        Args:
            x0: (B, C, h, w); or (B, T, C, h, w), another clean picture for each timestep.
            conditioning: of the images, as the model's `condition` gives it; None: as without prompts.
            progress: called with (pairs done, pairs in all) after each pass.
        """
        if x0.shape[-3:] != self.model.sample_shape:
            raise ModelError(
                f"Pictures are {tuple(x0.shape[-3:])} and the model's are {self.model.sample_shape}; both have to be"
                " the same."
            )
        images, steps, draws = len(x0), len(self.config.timesteps), self.config.noise_draws
        pairs = images * steps * draws
        x0 = x0.to(self.model.device, self.model.dtype)
        unconditioned = self.model.condition([None] * images)
        conditioning, unconditioned = equally_long(conditioning or unconditioned, unconditioned)
        timesteps = torch.tensor(self.config.timesteps, device=self.model.device)
        sums = {name: x0.new_zeros(images * steps, self.config.dimension) for name in self.config.probes}
        rms = torch.zeros(images * steps, dtype=self.model.dtype, device=self.model.device)
        for start in range(0, pairs, self.batch_size):
            index = torch.arange(start, min(start + self.batch_size, pairs), device=self.model.device)
            image, step, draw = index // (steps * draws), index // draws % steps, index % draws
            clean = x0[image] if x0.dim() == self.noise.dim() - 1 else x0[image, step]
            dropped = self._dropped[step, draw]
            given = {
                name: torch.where(
                    dropped.view(-1, *[1] * (values.dim() - 1)), unconditioned[name][image], values[image]
                )
                for name, values in conditioning.items()
            }
            sketches, residual = self._pass(clean, timesteps[step], self.noise[step, draw], given)
            row = index // draws
            for name, sketch in zip(self.config.probes, sketches, strict=True):
                sums[name].index_add_(0, row, sketch)
            rms.index_add_(0, row, residual)
            if progress is not None:
                progress(int(index[-1]) + 1, pairs)
        return Features(
            by_probe={name: (total / draws).view(images, steps, -1) for name, total in sums.items()},
            residual_rms=(rms / draws).view(images, steps),
        )

    def _pass(
        self, x0: Tensor, t: Tensor, noise: Tensor, conditioning: Conditioning
    ) -> tuple[list[Tensor], Tensor]:
        """Sketches, one (B, k) for each probe, and residual RMS (B,) of B pairs."""
        accumulator = self.sketch.accumulator(0)

        def add(name: str, gradient: Tensor, rows: slice) -> None:
            self.sketch.add(accumulator[rows], name, gradient)

        sketches: dict[str, Tensor] = {}
        recording = nullcontext() if self._activations is None else self._activations.recording()
        with recording as activations, self._gradients.recording(add) as backward:
            schedule = self.model.schedule
            output = self.model.predict(schedule.add_noise(x0, noise, t), t, conditioning)
            # A prediction of one channel for three would be stretched over them without a word.
            if output.shape != x0.shape:
                raise ModelError(
                    f"The model predicts {tuple(output.shape)} at pictures of {tuple(x0.shape)}; both have to be the"
                    " same."
                )
            point = Point(output.detach(), schedule.target(x0, noise, t), self.config.seed)
            if activations is not None:
                sketches[ACTIVATION] = activations()
            for place, (name, direction) in enumerate(self._directions.items(), 1):
                accumulator = self.sketch.accumulator(len(x0))
                with registry.blamed("probe", name):
                    chosen = direction(point)
                _check(name, chosen, output)
                backward(output, chosen, last=place == len(self._directions))
                sketches[name] = self.sketch.finish(accumulator)
        residual = (point.output - point.target).flatten(1).square().mean(1).sqrt()
        return [sketches[name] for name in self.config.probes], residual


def _check(name: str, direction: Tensor, output: Tensor) -> None:
    """Raise ExtensionError unless a probe's direction has one number for each of the output."""
    if direction.shape != output.shape:
        raise ExtensionError(
            f"The probe {name!r} gave a direction of shape {tuple(direction.shape)} for an output of"
            f" {tuple(output.shape)}; both have to be the same."
        )
