"""Training networks: one after another on a CPU; on a GPU side by side, each step a captured graph.

A small network's step is hundreds of kernels of a few microseconds each, which leave most of a GPU idle and keep the
process busy that launches them. So every network of a fleet has its step captured once as a CUDA graph, on a stream
of its own, and a step of the fleet is one launch for each network.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor, nn

from das.schedules import VariancePreserving
from measure.courses import Course, Noise, course_of, noise_of, stream_of
from measure.training import Recipe, new_scheduler, seed_of, start_of

Start = Callable[[], tuple[nn.Module, list[nn.Parameter]]]
"""Makes a network, and says what of it is trained."""
Report = Callable[[int, nn.Module], None]

_WARM_UP = 3  # steps before a capture, in which libraries choose their kernels and take their memory
# Launches that may wait on the GPU: enough to keep it busy, few enough to stop soon.
_AHEAD = 50


class Fleet:
    """Networks of one kind that are trained by AdamW on the error of the predicted noise.

    What each of them learns doesn't depend on the others.
    """

    def __init__(
        self,
        start: Start,
        images: Tensor,
        *,
        size: int = 1,
        device: str = "cpu",
        weight_decay: float,
        largest_gradient: float | None = None,
    ) -> None:
        """Make `size` networks.

        Args:
            images: (N, C, H, W) in [-1, 1], of which courses name rows.
            largest_gradient: norm to which a longer gradient is cut.
        """
        self._device = torch.device(device)
        self._images = images.to(self._device)
        alphas = new_scheduler().alphas_cumprod.to(self._device)
        self._schedule = VariancePreserving(alphas, "epsilon")
        self._start = start
        with torch.random.fork_rng(devices=[]):
            self._trainees = [
                _Trainee(*start(), self._device, weight_decay, largest_gradient) for _ in range(size)
            ]
        self._captured: list[_Captured] = []
        self._noises: Tensor | None = None

    def __len__(self) -> int:
        return len(self._trainees)

    def train(
        self, seed: int, courses: Sequence[Course], noise: Noise, report: Report | None = None
    ) -> list[nn.Module]:
        """Train a network on each course, from fresh weights; those networks, until the next training.

        Args:
            seed: of the weights that all start from.
            noise: of every step; all courses share it.
            report: told the number of steps done and the network, after every step of each. Only on a CPU.
        """
        chosen = self._trainees[: len(courses)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            fresh, _ = self._start()
        for trainee, course in zip(chosen, courses, strict=True):
            trainee.begin(fresh, averaged=course.decays is not None)
        if self._device.type == "cuda" and report is None:
            self._train_side_by_side(chosen, courses, noise)
        else:
            for trainee, course in zip(chosen, courses, strict=True):
                self._train_alone(trainee, course, noise, report)
        return [trainee.finished() for trainee in chosen]

    def _train_alone(self, trainee: "_Trainee", course: Course, noise: Noise, report: Report | None) -> None:
        for step in range(len(course)):
            weights = None if course.weights is None else course.weights[step].to(self._device)
            self._update(
                trainee,
                course.rows[step].to(self._device),
                course.times[step].to(self._device),
                noise(step).to(self._device),
                weights,
                course.rates[step],
                None if course.decays is None else course.decays[step],
            )
            if report is not None:
                report(step + 1, trainee.network)

    def _train_side_by_side(
        self, trainees: list["_Trainee"], courses: Sequence[Course], noise: Noise
    ) -> None:
        steps = max(map(len, courses))
        drawn = torch.stack([noise(step) for step in range(steps)])
        if self._noises is None or len(self._noises) < steps:
            self._noises = torch.empty_like(drawn, device=self._device)
            self._captured.clear()
        self._noises[:steps].copy_(drawn)
        for place, (trainee, course) in enumerate(zip(trainees, courses, strict=True)):
            if place == len(self._captured):
                self._captured.append(self._capture(trainee, course))
            self._captured[place].take(course)
        torch.cuda.synchronize(self._device)
        marks: list[torch.cuda.Event] = []
        for step in range(steps):
            for captured, course in zip(self._captured, courses, strict=False):
                if step < len(course):
                    with torch.cuda.stream(captured.stream):
                        captured.graph.replay()
            marks.append(self._captured[0].stream.record_event())
            if step >= _AHEAD:
                marks[step - _AHEAD].synchronize()
        torch.cuda.synchronize(self._device)

    def _capture(self, trainee: "_Trainee", course: Course) -> "_Captured":
        """A graph of the trainee's next step, which counts its steps itself."""
        noises = self._noises
        assert noises is not None
        captured = _Captured.with_room_for(course, len(noises), self._device)

        def step() -> None:
            given = captured.inputs()
            noise = noises.index_select(0, captured.counter)[0]
            self._update(trainee, given.rows, given.times, noise, given.weights, given.rates, given.decays)
            captured.counter.add_(1)

        captured.take(course)
        before = trainee.snapshot()
        captured.stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(captured.stream):
            for _ in range(min(_WARM_UP, len(course))):
                step()
            trainee.restore(before)
        captured.stream.synchronize()
        with torch.cuda.graph(captured.graph, stream=captured.stream):
            step()
        return captured

    def _update(
        self,
        trainee: "_Trainee",
        rows: Tensor,
        times: Tensor,
        noise: Tensor,
        weights: Tensor | None,
        rate: Tensor,
        decay: Tensor | None,
    ) -> None:
        """One step: `loss = mean_b w_b mean (ε_θ(x_t) - ε)²`."""
        x_t = self._schedule.add_noise(self._images[rows], noise, times)
        errors = (trainee.network(x_t, times, return_dict=False)[0] - noise).square().flatten(1).mean(1)
        loss = errors.mean() if weights is None else (errors * weights).mean()
        trainee.descend(loss, rate, decay)


@dataclass(frozen=True)
class _Captured:
    """A captured step with the memory that it reads: a course, and the number of the next step."""

    course: Course
    counter: Tensor
    graph: "torch.cuda.CUDAGraph"
    stream: "torch.cuda.Stream"

    @classmethod
    def with_room_for(cls, course: Course, steps: int, device: torch.device) -> "_Captured":
        """Room for courses like this one, of up to `steps`."""

        def room(array: Tensor | None) -> Tensor | None:
            return None if array is None else array.new_zeros((steps, *array.shape[1:]), device=device)

        taken = {field.name: room(getattr(course, field.name)) for field in fields(Course)}
        counter = torch.zeros(1, dtype=torch.int64, device=device)
        return cls(Course(**taken), counter, torch.cuda.CUDAGraph(), torch.cuda.Stream(device))  # type: ignore[arg-type]

    def take(self, course: Course) -> None:
        """Begin another course."""
        self.counter.zero_()
        for field in fields(Course):
            array = getattr(course, field.name)
            if array is not None:
                getattr(self.course, field.name)[: len(array)].copy_(array)

    def inputs(self) -> Course:
        """What the next step takes, picked by the counter on the device."""
        picked = {
            field.name: None if array is None else array.index_select(0, self.counter)[0]
            for field in fields(Course)
            for array in [getattr(self.course, field.name)]
        }
        return Course(**picked)  # type: ignore[arg-type]


class _Trainee:
    """A network with its optimiser and, where one is kept, the moving average of its weights."""

    def __init__(
        self,
        network: nn.Module,
        trained: list[nn.Parameter],
        device: torch.device,
        weight_decay: float,
        largest_gradient: float | None,
    ) -> None:
        self.network = network.to(device)
        self._trained = trained
        self._largest_gradient = largest_gradient
        self._averages: list[Tensor] | None = None
        on_gpu = device.type == "cuda"
        # A captured step reads the rate from the device; a plain one takes the number.
        self._rate = torch.zeros((), device=device) if on_gpu else None
        self._optimizer = torch.optim.AdamW(
            trained,
            lr=0.0 if self._rate is None else self._rate,
            weight_decay=weight_decay,
            capturable=on_gpu,
            fused=on_gpu,
        )

    def begin(self, fresh: nn.Module, averaged: bool) -> None:
        """Take the weights of a fresh network, and forget what was learnt before."""
        self.network.load_state_dict(fresh.state_dict())
        self.network.train()
        for state in self._optimizer.state.values():
            for value in state.values():
                value.zero_()
        if not averaged:
            self._averages = None
            return
        # In place where they exist: a captured step knows them by their memory.
        self._averages = self._averages or [torch.empty_like(weights) for weights in self._trained]
        with torch.no_grad():
            for average, weights in zip(self._averages, self._trained, strict=True):
                average.copy_(weights)

    def descend(self, loss: Tensor, rate: Tensor, decay: Tensor | None) -> None:
        """One step of AdamW, and of the moving average."""
        gradients = torch.autograd.grad(loss, self._trained)
        for weights, gradient in zip(self._trained, gradients, strict=True):
            weights.grad = gradient
        if self._largest_gradient is not None:
            nn.utils.clip_grad_norm_(self._trained, self._largest_gradient)
        if self._rate is not None:
            self._rate.copy_(rate)
        else:
            for group in self._optimizer.param_groups:
                group["lr"] = float(rate)
        self._optimizer.step()
        if self._averages is not None and decay is not None:
            with torch.no_grad():
                steps = torch._foreach_sub([weights.detach() for weights in self._trained], self._averages)
                torch._foreach_mul_(steps, (1 - decay).to(steps[0]))
                torch._foreach_add_(self._averages, steps)

    def snapshot(self) -> list[Tensor]:
        """Copies of the weights and their averages."""
        return [tensor.detach().clone() for tensor in (*self._trained, *(self._averages or []))]

    def restore(self, before: list[Tensor]) -> None:
        """Back to a snapshot, with the optimiser as new."""
        with torch.no_grad():
            for tensor, value in zip((*self._trained, *(self._averages or [])), before, strict=True):
                tensor.copy_(value)
            for state in self._optimizer.state.values():
                for value in state.values():
                    value.zero_()

    def finished(self) -> nn.Module:
        """The network as it is used: with the averaged weights where they were kept."""
        if self._averages is not None:
            with torch.no_grad():
                for weights, average in zip(self._trained, self._averages, strict=True):
                    weights.copy_(average)
        return self.network.eval()


def train(
    images: Tensor,
    recipe: Recipe,
    *,
    seed: int,
    steps: int | None = None,
    stream: Tensor | None = None,
    device: str = "cpu",
    base: Path | None = None,
    report: Report | None = None,
) -> nn.Module:
    """Train a fresh network, or a fresh LoRA on a base, on pictures (n, C, H, W) in [-1, 1].

    A pure function of its arguments on one machine.

    Args:
        stream: (L,) rows of the pictures in one epoch; each once if left out.
        base: the pipeline whose network the LoRA of a recipe with a rank is put on.
        report: called after every step with the number of steps done and the network.
    """
    if stream is None:
        stream = stream_of(torch.arange(len(images)).numpy())
    course = course_of(recipe, stream, seed=seed, steps=recipe.steps if steps is None else steps)
    fleet = Fleet(
        lambda: start_of(images.shape[1:], recipe, base),
        images,
        device=device,
        weight_decay=recipe.weight_decay,
    )
    noise = noise_of((recipe.batch_size, *images.shape[1:]), seed=seed)
    return fleet.train(seed_of(seed, "weights"), [course], noise, report)[0]
