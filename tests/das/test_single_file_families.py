"""Whole checkpoints of every family in one file, by the names of its first code: the pipeline they were made of."""

from pathlib import Path

import families
import pytest
import single_files
import torch
from diffusers import DiffusionPipeline, FluxTransformer2DModel
from safetensors.torch import save_file

from das.models import load_model
from das.sources import ModelSource

COMPONENTS = {
    "stable-diffusion": "unet, vae, text_encoder from it.",
    "stable-diffusion-xl": "unet, vae, text_encoder, text_encoder_2 from it.",
    "stable-diffusion-3": "transformer, vae, text_encoder, text_encoder_2, text_encoder_3 from it.",
}


@pytest.mark.parametrize("family", COMPONENTS)
def test_a_whole_checkpoint_in_one_file_is_its_pipeline(tmp_path: Path, family: str) -> None:
    """Stable Diffusion as version 2: OpenCLIP's names. What is compared are all weights, and what they compute."""
    families.FAMILIES[family](tmp_path / "pipeline")
    families.FAMILIES[family](tmp_path / "other", seed=9)
    pipeline = DiffusionPipeline.from_pretrained(tmp_path / "pipeline")
    other = DiffusionPipeline.from_pretrained(tmp_path / "other")
    scale = pipeline.vae.config.scaling_factor
    other.vae.register_to_config(scaling_factor=scale)
    other.save_pretrained(tmp_path / "other")
    save_file(single_files.original_pipeline(pipeline), tmp_path / "model.safetensors")
    told: list[str] = []
    source = ModelSource(str(tmp_path / "model.safetensors"), str(tmp_path / "other"))
    model, whole = load_model(source, tell=told.append), load_model(str(tmp_path / "pipeline"))
    assert told[-1].endswith(COMPONENTS[family])
    assert len(told) == 1
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(model.network.state_dict()[name], tensor), name
    ours, theirs = (one.condition(["a cat", None]) for one in (model, whole))
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    assert model.identity["digest"] == whole.identity["digest"]


def test_what_a_flux_file_has_besides_its_transformer_is_read(tmp_path: Path) -> None:
    """CLIP, T5 and the VAE by ComfyUI's names; the transformer by diffusers', in tiny size."""
    families.make_flux(tmp_path / "pipeline")
    families.make_flux(tmp_path / "other", seed=9)
    pipeline = DiffusionPipeline.from_pretrained(tmp_path / "pipeline")
    state = single_files.text_and_vae(pipeline)
    state |= {f"model.diffusion_model.{n}": t.clone() for n, t in pipeline.transformer.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    told: list[str] = []
    source = ModelSource(str(tmp_path / "model.safetensors"), str(tmp_path / "other"))
    model, whole = load_model(source, tell=told.append), load_model(str(tmp_path / "pipeline"))
    assert told == [
        "model.safetensors is a checkpoint of FLUX.1: transformer, vae, text_encoder, text_encoder_2 from it."
    ]
    ours, theirs = (one.condition(["a cat", None]) for one in (model, whole))
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


@pytest.mark.slow
def test_a_flux_checkpoint_of_the_published_width_is_its_transformer(tmp_path: Path) -> None:
    """One block of both kinds, half a billion numbers: diffusers' converter knows no other width than 3,072."""
    families.make_flux(tmp_path / "tiny")
    pipeline = DiffusionPipeline.from_pretrained(tmp_path / "tiny")
    sizes = {"attention_head_dim": 128, "num_attention_heads": 24, "axes_dims_rope": (16, 56, 56)}
    wide = FluxTransformer2DModel.from_config(dict(pipeline.transformer.config) | sizes).to(torch.float16)
    pipeline.transformer = wide
    pipeline.save_pretrained(tmp_path / "wide")
    original = single_files.original_transformer(wide, blocks=1)
    assert "double_blocks.0.img_attn.norm.query_norm.scale" in original
    save_file({n: t.contiguous() for n, t in original.items()}, tmp_path / "model.safetensors")
    expected = dict(wide.state_dict())
    del original, wide, pipeline
    model = load_model(ModelSource(str(tmp_path / "model.safetensors"), str(tmp_path / "wide")))
    found = model.network.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name].half(), tensor) for name, tensor in expected.items())
