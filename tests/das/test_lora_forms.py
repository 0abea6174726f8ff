"""Every form of LoRA on every family, on network and text encoders: as weights that were merged by hand."""

from pathlib import Path
from typing import Any

import families
import pytest
import torch
from lora_files import PICTURE, Bases, Merging, agree, kohya, lora_parameters
from lora_forms import CP_FORMS, FORMS, Layer
from lora_names import SGM, flux, sd3, swapped
from peft import LoHaConfig, LoKrConfig, LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch import Tensor

from das.models import load_model
from das.models.lora import as_base, loras_of

U_NET = {path: [path] for name, path in SGM.items() if not name.startswith("label_emb")}
NETWORKS: dict[str, tuple[str, str, dict[str, list[str]]]] = {
    "stable-diffusion": ("stable-diffusion", "unet", U_NET),
    "stable-diffusion-xl": ("stable-diffusion-xl", "unet", {name: [path] for name, path in SGM.items()}),
    "stable-diffusion-3": ("stable-diffusion-3", "transformer", sd3()),
    "flux": ("flux-of-two", "transformer", flux()),
}
"""By family the pipeline, its network, and the layers: as kohya's files call them, and diffusers' in their order."""

CLIP = [
    f"encoder.layers.{n}.{layer}"
    for n in (0, 1)
    for layer in ("self_attn.q_proj", "self_attn.out_proj", "mlp.fc1")
]
T5 = [f"encoder.block.{n}.layer.0.SelfAttention.{part}" for n in (0, 1) for part in "qvo"]
ENCODERS: dict[str, dict[str, tuple[list[str], str, str, str]]] = {
    "stable-diffusion": {
        "text_encoder": (CLIP, "lora_te_", "text_encoder.", "text_encoders.clip_l.transformer.")
    },
    "stable-diffusion-xl": {
        "text_encoder": (CLIP, "lora_te1_", "text_encoder.", "text_encoders.clip_l.transformer."),
        "text_encoder_2": (CLIP, "lora_te2_", "text_encoder_2.", "text_encoders.clip_g.transformer."),
    },
    "stable-diffusion-3": {
        "text_encoder": (CLIP, "lora_te1_", "text_encoder.", "clip_l."),
        "text_encoder_2": (CLIP, "lora_te2_", "text_encoder_2.", "clip_g."),
        "text_encoder_3": (T5, "lora_te3_", "text_encoder_3.", "text_encoders.t5xxl.transformer."),
    },
    "flux": {
        "text_encoder": (CLIP, "lora_te1_", "text_encoder.", "clip_l."),
        "text_encoder_2": (T5, "lora_te2_", "text_encoder_2.", "t5."),
    },
}
"""By family and encoder its layers, and what stands before them in files of kohya, diffusers, and ComfyUI or OMI."""

KOHYA, DIFFUSERS, COMFYUI = range(3)
FIRST = {KOHYA: "lora_unet_", DIFFUSERS: "{component}.", COMFYUI: "diffusion_model."}
PEFT_ENDS = {
    "lora_down.weight": "lora_A.weight",
    "lora_up.weight": "lora_B.weight",
    "dora_scale": "lora_magnitude_vector",
}


class Filled(Merging):
    """A file with adapters of one form on all layers of a family's table, network and text encoders alike."""

    def __init__(self, base: Path, form: str, naming: int, dtype: torch.dtype) -> None:
        super().__init__(base)
        self.form, self.naming, self.file_dtype, self.count = form, naming, dtype, 0

    def fill(self, family: str) -> None:
        _, component, table = NETWORKS[family]
        whole = {path: [path] for paths in table.values() for path in paths}
        for name, paths in (whole if self.naming == DIFFUSERS else table).items():
            self.put(component, FIRST[self.naming].format(component=component), name, paths)
        for encoder, (paths, *prefixes) in ENCODERS[family].items():
            for path in paths:
                outer = "text_model." if paths is CLIP else ""
                inner = (
                    path if path in dict(self.component(encoder).named_modules()) else f"text_model.{path}"
                )
                self.put(encoder, prefixes[self.naming], f"{outer}{path}", [inner])

    def put(self, component: str, prefix: str, name: str, paths: list[str]) -> None:
        layers = [self.component(component).get_submodule(path) for path in paths]
        turned = self.naming != DIFFUSERS and swapped(name)
        weights = [halves_swapped(one.weight) if turned else one.weight for one in layers]
        weight = torch.cat(weights).detach()
        makers = FORMS | CP_FORMS
        form = (
            self.form
            if weight.dim() == 4 and weight.shape[2] > 1
            else self.form.removesuffix(" in the CP form")
        )
        tensors, difference = makers[form](Layer(self, weight, self.count, self.file_dtype))
        self.count += 1
        written = f"{prefix}{kohya(name) if prefix.startswith('lora_') else name}"
        for end, tensor in tensors.items():
            own = PEFT_ENDS.get(end, end) if self.naming == DIFFUSERS else end
            flat = tensor.flatten() if own == "lora_magnitude_vector" else tensor
            self.tensors[f"{written}.{own}"] = flat.to(self.file_dtype)
        start = 0
        for path, one in zip(paths, weights, strict=True):
            rows = difference[start : start + len(one)]
            self.merge(component, path, halves_swapped(rows) if turned else rows)
            start += len(one)


def halves_swapped(rows: Tensor) -> Tensor:
    first, second = rows.chunk(2)
    return torch.cat([second, first])


def conditions_agree(model: Any, merged: Any, plain: Any) -> None:
    """What the text encoders say is what the merged ones say, and each tensor that texts decide is changed."""
    for name, ours in model.condition([PICTURE, None]).items():
        torch.testing.assert_close(ours, merged.condition([PICTURE, None])[name], rtol=1e-5, atol=1e-5)
        if "embeds" in name:
            assert float((ours - plain.condition([PICTURE, None])[name]).abs().max()) > 1e-3, name


CASES = [
    (form, family, naming, dtype)
    for form in FORMS | CP_FORMS
    for family in NETWORKS
    for naming, dtype in ((KOHYA, torch.float32), (DIFFUSERS, torch.float16), (COMFYUI, torch.float32))
    # peft has no magnitudes of inputs; a FLUX transformer no convolutions; ComfyUI's are kohya's names with dots.
    if not (form == "DoRA of inputs" and naming == DIFFUSERS)
    and not (form in CP_FORMS and family == "flux")
    and (naming != COMFYUI or form in ("DoRA", "LoKr"))
]
WORDS = ("kohya", "diffusers", "comfyui")


@pytest.mark.parametrize(
    ("form", "family", "naming", "dtype"), CASES, ids=[f"{c[0]}-{c[1]}-{WORDS[c[2]]}" for c in CASES]
)
def test_every_form_equals_its_merged_weights(
    bases: Bases, tmp_path: Path, form: str, family: str, naming: int, dtype: torch.dtype
) -> None:
    base = bases[NETWORKS[family][0]]
    made = Filled(base, form, naming, dtype)
    made.fill(family)
    save_file(
        {name: tensor.contiguous() for name, tensor in made.tensors.items()}, tmp_path / "a.safetensors"
    )
    model = load_model(str(base), lora=str(tmp_path / "a.safetensors"))
    merged, untouched = families.adapter_of(made.pipeline).of(made.pipeline), load_model(str(base))
    agree(model, merged, untouched, 1e-5 if dtype == torch.float32 else 1e-3)
    conditions_agree(model, merged, untouched)
    (loaded,) = loras_of(model.network)
    assert set(loaded.text_encoders) == set(ENCODERS[family])
    assert sum(loaded.kinds.values()) + sum(loaded.text_encoders.values()) == made.count
    if naming == KOHYA:  # what is attributed is what the file has, each number once
        of_network = [
            t for n, t in made.tensors.items() if n.startswith("lora_unet_") and not n.endswith(".alpha")
        ]
        assert sum(p.numel() for p in lora_parameters(model).values()) == sum(t.numel() for t in of_network)


@pytest.mark.parametrize("family", ["stable-diffusion-xl", "stable-diffusion-3", "flux"])
@pytest.mark.parametrize("kind", ["LoRA", "DoRA", "LoHa", "LoKr"])
def test_adapters_of_peft_compute_as_in_peft(bases: Bases, tmp_path: Path, family: str, kind: str) -> None:
    name, component, table = NETWORKS[family]
    made = Merging(bases[name])
    targets = [path for paths in table.values() for path in paths]
    config = {
        "LoRA": lambda: LoraConfig(r=2, lora_alpha=3, target_modules=targets, init_lora_weights=False),
        "DoRA": lambda: LoraConfig(
            r=2, lora_alpha=3, target_modules=targets, init_lora_weights=False, use_dora=True
        ),
        "LoHa": lambda: LoHaConfig(r=2, alpha=3, target_modules=targets, init_weights=False),
        "LoKr": lambda: LoKrConfig(r=2, alpha=3, target_modules=targets, init_weights=False),
    }[kind]()
    torch.manual_seed(8)
    wrapped = get_peft_model(made.component(component), config)
    wrapped.save_pretrained(tmp_path)
    model, untouched = load_model(str(bases[name]), lora=str(tmp_path)), load_model(str(bases[name]))
    agree(model, families.adapter_of(made.pipeline).of(made.pipeline), untouched)
    assert loras_of(model.network)[0].kinds == {kind: len(targets)}
    with as_base(model):
        agree(model, untouched, load_model(str(bases[name]), lora=str(tmp_path)))
