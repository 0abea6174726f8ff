"""TorchScript models in place of SSCD's own."""

from pathlib import Path

import torch


class Turnable(torch.nn.Module):
    """An embedding of 48 numbers that a turn by 180 degrees doesn't change."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(scale))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        cells = torch.nn.functional.adaptive_avg_pool2d(x, (4, 4))
        both = (cells + cells.flip(2, 3)).flatten(1)
        return self.scale * (both - both.mean(1, keepdim=True))


def save(path: Path, scale: float = 1.0) -> Path:
    torch.jit.script(Turnable(scale)).save(str(path))
    return path
