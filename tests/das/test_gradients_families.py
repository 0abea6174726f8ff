"""Rules for layers that are diffusers' own."""

import pytest
import torch
from diffusers.models.normalization import RMSNorm
from torch import nn

from das.gradients import PerExampleGradients


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-7)])
def test_the_rule_for_diffusers_rms_norm_equals_a_loop_over_examples(dtype, tolerance):
    """It takes the mean square in single precision, also of doubles."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 8), RMSNorm(8, eps=1e-6, bias=True), nn.Linear(8, 3)).to(dtype)
    with torch.no_grad():
        for parameter in network[1].parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    x, direction = torch.randn(4, 5, 6, dtype=dtype), torch.randn(4, 5, 3, dtype=dtype)
    gradients = PerExampleGradients(network, dict(network.named_parameters()))
    gradients.settle(lambda: network(x[:2]))
    assert not gradients.fallback
    found: dict[str, torch.Tensor] = {}
    with gradients.recording(lambda name, g, rows: found.update({name: g})) as backward:
        backward(network(x), direction)
    assert found["1.weight"].shape == found["1.bias"].shape == (4, 8)
    for b in range(4):
        scalar = (network(x[b : b + 1]) * direction[b]).sum()
        for name, expected in zip(
            found, torch.autograd.grad(scalar, [network.get_parameter(n) for n in found]), strict=True
        ):
            assert float((found[name][b] - expected).norm()) <= tolerance * float(expected.norm()), name


def test_a_subclass_of_it_keeps_the_exact_path():
    class Doubled(RMSNorm):
        def forward(self, hidden_states):
            return 2 * super().forward(hidden_states)

    network = nn.Sequential(nn.Linear(6, 8), Doubled(8, eps=1e-6))
    gradients = PerExampleGradients(network, dict(network.named_parameters()))
    gradients.settle(lambda: network(torch.ones(2, 6)))
    assert set(gradients.fallback) == {"1.weight"}
