"""LoRAs of every kind and naming: what they compute is what their weights, merged by hand, compute."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import families
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from das.models import load_model
from das.models.loading import adapter_for, load_pipeline

PICTURE = "a cat"


@dataclass
class Bases:
    """A pipeline of each family, saved once."""

    folder: Path
    made: dict[str, Path] = field(default_factory=dict)

    def __getitem__(self, family: str) -> Path:
        if family not in self.made:
            self.made[family] = self.folder / family
            families.FAMILIES[family](self.made[family])
        return self.made[family]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Bases:
    return Bases(tmp_path_factory.mktemp("bases"))


def pipeline_of(base: Path) -> Any:
    return load_pipeline(str(base), adapter_for(str(base)))


def output(model: Any) -> Tensor:
    x = torch.randn(2, *model.sample_shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model.predict(x, torch.tensor([10, 700]), model.condition([PICTURE, None]))


class Merging:
    """A pipeline whose weights are changed by hand, and the file that should do the same."""

    def __init__(self, base: Path) -> None:
        self.pipeline = pipeline_of(base)
        self.tensors: dict[str, Tensor] = {}
        self.random = torch.Generator().manual_seed(5)

    def component(self, name: str) -> nn.Module:
        return getattr(self.pipeline, name)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.random) * 0.3

    def merge(self, component: str, path: str, delta: Tensor) -> None:
        layer = self.component(component).get_submodule(path)
        with torch.no_grad():
            layer.weight += delta.reshape(layer.weight.shape)

    def compare(self, base: Path, file: Path, tolerance: float = 1e-5, **options: Any) -> Any:
        """Save the file, load it, and hold both models against each other; returns the loaded one."""
        save_file({name: tensor.contiguous() for name, tensor in self.tensors.items()}, file)
        model = load_model(str(base), lora=str(file), **options)
        merged, plain = families.adapter_of(self.pipeline).of(self.pipeline), load_model(str(base))
        agree(model, merged, plain, tolerance)
        return model


def agree(model: Any, merged: Any, plain: Any, tolerance: float = 1e-5) -> None:
    """Both compute the same, and not what the base computes."""
    expected = output(merged)
    assert float((expected - output(plain)).norm()) > 0.01 * float(expected.norm())
    assert float((output(model) - expected).abs().max()) <= tolerance * max(1.0, float(expected.abs().max()))


def attention_layers(module: nn.Module) -> list[str]:
    return [
        name
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear) and name.endswith((*families.ATTENTION, "q_proj", "v_proj", "fc1"))
    ]


def kohya(name: str) -> str:
    return name.replace(".", "_")


@pytest.mark.parametrize("family", ["stable-diffusion", "stable-diffusion-xl"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 1e-3), (torch.bfloat16, 1e-3)]
)
def test_every_layer_of_a_resized_lora_has_the_scale_that_the_file_gives(
    bases, tmp_path, family, dtype, tolerance
):
    """kohya's resize gives each layer a rank and an alpha of its own; diffusers makes one of them all."""
    made = Merging(bases[family])
    expected = {}
    for number, path in enumerate(attention_layers(made.component("unet"))):
        rank, alpha = 1 + number % 4, (0.5, 1.0, 3.0, 8.0, 2.5)[number % 5]
        weight = made.component("unet").get_submodule(path).weight
        down, up = (made.normal(*shape).to(dtype) for shape in ((rank, weight.shape[1]), (len(weight), rank)))
        layer = f"lora_unet_{kohya(path)}"
        made.tensors |= {
            f"{layer}.lora_down.weight": down,
            f"{layer}.lora_up.weight": up,
            f"{layer}.alpha": torch.tensor(alpha).to(dtype),
        }
        made.merge("unet", path, alpha / rank * up.float() @ down.float())
        expected[path] = alpha / rank
    model = made.compare(bases[family], tmp_path / "resized.safetensors", tolerance)
    found = {
        name: layer.scaling for name, layer in model.network.named_modules() if hasattr(layer, "scaling")
    }
    assert found == {path: {"default": scale} for path, scale in expected.items()}
    assert len(set(expected.values())) > 10
