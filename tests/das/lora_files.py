"""LoRA files of every kind, made beside a pipeline whose weights get the same change by hand."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import families
import torch
from lora_names import BLOCKS
from safetensors.torch import save_file
from torch import Tensor, nn

from das.gradients import attributed_parameters
from das.models import load_model
from das.models.loading import adapter_for, load_pipeline

PICTURE = "a cat"


@dataclass
class Bases:
    """A pipeline of each family, and "flux-of-two" with two blocks of both kinds, saved once."""

    folder: Path
    made: dict[str, Path] = field(default_factory=dict)

    def __getitem__(self, family: str) -> Path:
        if family not in self.made:
            self.made[family] = self.folder / family
            if family == "flux-of-two":
                families.make_flux(self.made[family], blocks=BLOCKS)
            else:
                families.FAMILIES[family](self.made[family])
        return self.made[family]


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
        self.dtype = torch.float32
        """To what the numbers of `normal` are rounded, as a file of that type has them."""

    def component(self, name: str) -> nn.Module:
        return getattr(self.pipeline, name)

    def normal(self, *shape: int) -> Tensor:
        return (torch.randn(*shape, generator=self.random) * 0.3).to(self.dtype).float()

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


def lora_parameters(model: Any) -> dict[str, Tensor]:
    return attributed_parameters(model.network, "lora")


def same_conditioning_as(model: Any, other: Any) -> None:
    ours, theirs = (one.condition([PICTURE, None]) for one in (model, other))
    for name, values in ours.items():
        torch.testing.assert_close(values, theirs[name], rtol=1e-5, atol=1e-5)


def same_conditioning(model: Any, merged: Any, plain: Any) -> None:
    same_conditioning_as(model, merged)
    ours, base = (one.condition([PICTURE])["prompt_embeds"] for one in (model, plain))
    assert float((ours - base).abs().max()) > 1e-2


def add_plain(
    made: Merging,
    component: str,
    prefix: str,
    paths: list[str],
    *,
    outer: str = "",
    rank: int = 2,
    alpha: float = 1.0,
) -> None:
    """kohya's names for a LoRA on each path, merged too."""
    for path in paths:
        weight = made.component(component).get_submodule(path).weight
        down, up = made.normal(rank, weight.shape[1]), made.normal(len(weight), rank)
        full = path if path.startswith("text_model.") else f"{outer}{path}"
        name = f"{prefix}{kohya(full)}"
        made.tensors |= {
            f"{name}.lora_down.weight": down,
            f"{name}.lora_up.weight": up,
            f"{name}.alpha": torch.tensor(alpha),
        }
        made.merge(component, path, alpha / rank * up @ down)


def add_dotted(
    made: Merging,
    component: str,
    prefix: str,
    paths: list[str],
    ends: tuple[str, str] = (".lora_A.weight", ".lora_B.weight"),
) -> None:
    """Names with dots for a LoRA of scale 1 on each path, merged too."""
    for path in paths:
        weight = made.component(component).get_submodule(path).weight
        down, up = made.normal(2, weight.shape[1]), made.normal(len(weight), 2)
        made.tensors |= {f"{prefix}{path}{ends[0]}": down, f"{prefix}{path}{ends[1]}": up}
        made.merge(component, path, up @ down)


def convolutions(unet: nn.Module) -> list[str]:
    return [
        name
        for name, layer in unet.named_modules()
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3)
    ]


def loha(made: Merging, shape: torch.Size, *, cp: bool) -> tuple[dict[str, Tensor], Tensor, int]:
    rows, columns, kernel = shape[0], shape[1:].numel(), shape[2:]
    if cp and len(kernel) == 2:
        parts = {f"hada_w{half}_{side}": made.normal(2, shape[side == "b"]) for half in "12" for side in "ab"}
        parts |= {f"hada_t{half}": made.normal(2, 2, *kernel) for half in "12"}
        halves = [
            torch.einsum(
                "xykl,xo,yi->oikl", parts[f"hada_t{h}"], parts[f"hada_w{h}_a"], parts[f"hada_w{h}_b"]
            )
            for h in "12"
        ]
        return parts, halves[0] * halves[1], 2
    parts = {}
    for half in "12":
        parts |= {f"hada_w{half}_a": made.normal(rows, 2), f"hada_w{half}_b": made.normal(2, columns)}
    product = (parts["hada_w1_a"] @ parts["hada_w1_b"]) * (parts["hada_w2_a"] @ parts["hada_w2_b"])
    return parts, product.reshape(shape), 2


def lokr(made: Merging, shape: torch.Size, *, cp: bool) -> tuple[dict[str, Tensor], Tensor, int]:
    rows, columns, kernel = shape[0] // 2, shape[1] // 2, shape[2:]
    first = made.normal(2, 2)
    if cp and len(kernel) == 2:
        parts = {"lokr_w2_a": made.normal(2, rows), "lokr_w2_b": made.normal(2, columns)}
        parts["lokr_t2"] = made.normal(2, 2, *kernel)
        second = torch.einsum("xykl,xo,yi->oikl", parts["lokr_t2"], parts["lokr_w2_a"], parts["lokr_w2_b"])
    else:
        parts = {"lokr_w2_a": made.normal(rows, 2), "lokr_w2_b": made.normal(2, columns * kernel.numel())}
        second = (parts["lokr_w2_a"] @ parts["lokr_w2_b"]).reshape(rows, columns, *kernel)
    whole = torch.cat([torch.cat([first[i, j] * second for j in range(2)], 1) for i in range(2)], 0)
    return parts | {"lokr_w1": first}, whole, 2


def tucker(made: Merging, shape: torch.Size, *, cp: bool) -> tuple[dict[str, Tensor], Tensor, int]:
    if len(shape) == 2:
        down, up = made.normal(2, shape[1]), made.normal(shape[0], 2)
        return {"lora_down.weight": down, "lora_up.weight": up}, up @ down, 2
    down, up = made.normal(2, shape[1], 1, 1), made.normal(shape[0], 2, 1, 1)
    mid = made.normal(2, 2, *shape[2:])
    whole = torch.einsum("or,rskl,si->oikl", up[..., 0, 0], mid, down[..., 0, 0])
    return {"lora_down.weight": down, "lora_mid.weight": mid, "lora_up.weight": up}, whole, 2
