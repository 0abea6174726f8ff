"""traker, dattri and kronfluence at das's pairs, each called as its own documentation says.

None is a requirement: `pip install das-attribution[peers]`. Imports are where they are used.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from measure.peers.task import Pairs, Work


def traker(pairs: Pairs) -> Work:
    """Features of a `TRAKer` whose model output is the diffusion loss."""
    from trak import TRAKer
    from trak.modelout_functions import AbstractModelOutput

    class DiffusionLoss(AbstractModelOutput):  # type: ignore[misc]
        def __init__(self) -> None:
            pass

        def get_output(self, model: nn.Module, weights: Any, buffers: Any, *pair: Tensor) -> Tensor:
            return pairs.loss_of_one(weights, *pair)

        def get_out_to_loss_grad(self, model: nn.Module, weights: Any, buffers: Any, batch: Any) -> Tensor:
            return torch.ones(len(batch[0]), 1)

    tracer = TRAKer(
        model=pairs.network,
        task=DiffusionLoss(),
        train_set_size=len(pairs.t),
        save_dir=str(pairs.folder),
        device="cpu",
        proj_dim=pairs.dimension,
        use_half_precision=False,
    )
    tracer.load_checkpoint(pairs.network.state_dict(), model_id=0)

    def work() -> None:
        for batch in pairs.batches():
            tracer.featurize(batch=batch, num_samples=len(batch[0]))

    return work


def traker_cuda(pairs: Pairs) -> Work:
    """traker's fast projector alone, which says itself where it runs."""
    from trak.projectors import CudaProjector, ProjectionType

    count = sum(weights.numel() for weights in pairs.network.parameters())
    projector = CudaProjector(count, pairs.dimension, 0, ProjectionType.rademacher, "cpu", 32)

    def work() -> None:
        gradients = torch.func.vmap(torch.func.grad(pairs.loss_of_one), in_dims=(None, 0, 0, 0))
        for batch in pairs.batches():
            projector.project(gradients(dict(pairs.network.named_parameters()), *batch), model_id=0)

    return work


def dattri_normal(pairs: Pairs) -> Work:
    """TRAK with dattri's dense projection."""
    return _dattri_trak(pairs, "normal")


def dattri_mask(pairs: Pairs) -> Work:
    """The same with k coordinates of the gradient."""
    return _dattri_trak(pairs, "random_mask")


def dattri_sjlt(pairs: Pairs) -> Work:
    """The same with its sparse projection, which is nearest to a count sketch."""
    return _dattri_trak(pairs, "sjlt")


def _dattri_trak(pairs: Pairs, projection: str) -> Work:
    from dattri.algorithm.trak import TRAKAttributor
    from dattri.task import AttributionTask

    def loss(weights: dict[str, Tensor], pair: tuple[Tensor, ...]) -> Tensor:
        return pairs.loss_of_one(weights, *pair)

    attributor = TRAKAttributor(
        AttributionTask(loss_func=loss, model=pairs.network, checkpoints=pairs.network.state_dict()),
        # Of a classifier; a diffusion model has none, and its features don't depend on it.
        correct_probability_func=lambda weights, pair: torch.exp(-loss(weights, pair)),
        projector_kwargs={"proj_dim": pairs.dimension, "proj_type": projection, "device": "cpu"},
        regularization=1.0,
    )
    loader = DataLoader(TensorDataset(pairs.noised, pairs.t, pairs.target), batch_size=pairs.batch_size)

    def work() -> None:
        attributor.cache(loader)

    return work


class _ByNumber(nn.Module):
    """The network as a function of the pairs' numbers: LoGra tries the model on one number alone."""

    def __init__(self, pairs: Pairs) -> None:
        super().__init__()
        self.network = pairs.network
        self._pairs = pairs

    def forward(self, numbers: Tensor) -> Tensor:
        numbers = torch.atleast_1d(numbers)
        output: Tensor = self.network(self._pairs.noised[numbers], self._pairs.t[numbers]).sample
        return output


def dattri_logra(pairs: Pairs) -> Work:
    """Factorised projections of the linear layers' gradients, the only layers that it knows."""
    from dattri.algorithm.logra import LoGraAttributor
    from dattri.task import AttributionTask

    model = _ByNumber(pairs)

    def loss(model: nn.Module, batch: list[Tensor], device: str) -> Tensor:
        residual: Tensor = model(batch[0]) - pairs.target[batch[0]]
        return residual.square().flatten(1).mean(1).sum()

    attributor = LoGraAttributor(
        AttributionTask(loss_func=loss, model=model, checkpoints=model.state_dict()),
        hessian="Identity",
        proj_dim=math.isqrt(pairs.dimension) ** 2,
        cache_dir=str(pairs.folder),
    )
    loader = DataLoader(TensorDataset(torch.arange(len(pairs.t))), batch_size=pairs.batch_size)

    def work() -> None:
        attributor.cache(loader)

    return work


def _kronfluence(pairs: Pairs) -> tuple[Any, TensorDataset]:
    """An analyzer of the network with the diffusion loss as its task, and the pairs as its data set."""
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.task import Task

    class Diffusion(Task):  # type: ignore[misc]
        def compute_train_loss(self, batch: Any, model: nn.Module, sample: bool = False) -> Tensor:
            noised, t, target = batch
            output = model(noised, t).sample
            if sample:
                # The true Fisher of a regression: targets drawn around the prediction.
                target = output.detach() + torch.randn_like(output)
            loss: Tensor = (output - target).square().flatten(1).mean(1).sum()
            return loss

        def compute_measurement(self, batch: Any, model: nn.Module) -> Tensor:
            return self.compute_train_loss(batch, model)

    task = Diffusion()
    analyzer = Analyzer(
        "pairs",
        prepare_model(pairs.network, task),
        task,
        cpu=True,
        disable_tqdm=True,
        output_dir=str(pairs.folder),
    )
    return analyzer, TensorDataset(pairs.noised, pairs.t, pairs.target)


def kronfluence_scores(pairs: Pairs) -> Work:
    """Inner products of one pair's gradient with all pairs': what every question costs, as no gradient is kept."""
    from kronfluence.arguments import FactorArguments

    analyzer, data = _kronfluence(pairs)
    analyzer.fit_all_factors("none", data, factor_args=FactorArguments(strategy="identity"))

    def work() -> None:
        analyzer.compute_pairwise_scores(
            "scores",
            "none",
            query_dataset=data,
            query_indices=[0],
            train_dataset=data,
            per_device_query_batch_size=1,
            per_device_train_batch_size=pairs.batch_size,
        )

    return work


def kronfluence_ekfac(pairs: Pairs) -> Work:
    """The factors of EK-FAC from all pairs, with the eigendecompositions."""
    from kronfluence.arguments import FactorArguments

    analyzer, data = _kronfluence(pairs)

    def work() -> None:
        analyzer.fit_all_factors(
            "ekfac",
            data,
            per_device_batch_size=pairs.batch_size,
            factor_args=FactorArguments(strategy="ekfac"),
        )

    return work
