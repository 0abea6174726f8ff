"""The contenders by name: what each is, and how it is made ready to go through the pairs."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from das.methods import ACTIVATION
from measure.peers import libraries
from measure.peers.task import Pairs, Work


@dataclass(frozen=True)
class Contender:
    """One way to the pairs' gradients.

    Attributes:
        what: a few words for the table.
        prepare: what is done once, before any pair.
        library: the distribution that has to be installed, of others' libraries.
        probes: that das's extractor is made with; none where neither it nor its sketch is used.
    """

    what: str
    prepare: Callable[[Pairs], Work]
    library: str | None = None
    probes: tuple[str, ...] = ()


def _das(pairs: Pairs) -> Work:
    return lambda: pairs.extractor.features(pairs.x0).by_probe["loss"].flatten(0, 1)


def _loop(pairs: Pairs) -> Work:
    parameters, sketch = pairs.extractor.parameters, pairs.extractor.sketch

    def work() -> Tensor:
        rows = []
        for noised, t, target in zip(pairs.noised, pairs.t, pairs.target, strict=True):
            scalar = pairs.losses(noised[None], t[None], target[None]).sum()
            found = torch.autograd.grad(scalar, list(parameters.values()))
            rows.append(sketch.sketch({name: g[None] for name, g in zip(parameters, found, strict=True)}))
        return torch.cat(rows)

    return work


def _vmap(pairs: Pairs) -> Work:
    weights = {name: weight.detach() for name, weight in pairs.network.named_parameters()}
    gradients = torch.func.vmap(torch.func.grad(pairs.loss_of_one), in_dims=(None, 0, 0, 0))
    return lambda: torch.cat(
        [pairs.extractor.sketch.sketch(gradients(weights, *batch)) for batch in pairs.batches()]
    )


CONTENDERS: dict[str, Contender] = {
    "das": Contender("sketched gradients, k buckets", _das, probes=("loss",)),
    "das-default": Contender("the same, and activations", _das, probes=("loss", ACTIVATION)),
    "loop": Contender("a backward pass for each pair, das's sketch", _loop, probes=("loss",)),
    "vmap": Contender("`vmap(grad)`, das's sketch", _vmap, probes=("loss",)),
    "traker": Contender("`TRAKer.featurize`, its projector for a CPU", libraries.traker, "traker"),
    "traker-cuda": Contender("its `CudaProjector`", libraries.traker_cuda, "traker"),
    "dattri-normal": Contender(
        "`TRAKAttributor.cache`, normal projection", libraries.dattri_normal, "dattri"
    ),
    "dattri-mask": Contender(
        "the same, k coordinates of the gradient at random", libraries.dattri_mask, "dattri"
    ),
    "dattri-sjlt": Contender("the same, a sparse projection (SJLT)", libraries.dattri_sjlt, "dattri"),
    "dattri-logra": Contender("`LoGraAttributor.cache`", libraries.dattri_logra, "dattri"),
    "kronfluence-scores": Contender(
        "scores of one question without factors", libraries.kronfluence_scores, "kronfluence"
    ),
    "kronfluence-ekfac": Contender("fitting its EK-FAC factors", libraries.kronfluence_ekfac, "kronfluence"),
}
