"""The adapter for `DDPMPipeline`: loading, identity, encoding, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, KarrasVeScheduler, UNet2DModel

from das.errors import ModelError
from das.models import load_model
from das.models.ddpm import DDPMModel


def unet(**changes) -> UNet2DModel:
    torch.manual_seed(0)
    options = {
        "sample_size": 8,
        "in_channels": 3,
        "out_channels": 3,
        "layers_per_block": 1,
        "block_out_channels": (8, 8),
        "norm_num_groups": 4,
        "down_block_types": ("DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D"),
    }
    return UNet2DModel(**(options | changes))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    DDPMPipeline(unet(), DDPMScheduler()).save_pretrained(tmp_path / "pipeline")
    return tmp_path / "pipeline"


def test_a_saved_pipeline_loads_with_its_own_weights(directory):
    """An early implementation of the field ran on a random network because the loaded one was thrown away."""
    model = load_model(str(directory))
    saved = unet().state_dict()
    assert {n: v.tolist() for n, v in model.network.state_dict().items()} == {
        n: v.tolist() for n, v in saved.items()
    }
    assert model.sample_shape == (3, 8, 8)
    assert not model.network.training


def test_half_precision_weights_load_as_single_precision_with_the_same_values(tmp_path):
    DDPMPipeline(unet().half(), DDPMScheduler()).save_pretrained(tmp_path / "half")
    model = load_model(str(tmp_path / "half"))
    assert model.dtype == torch.float32
    torch.testing.assert_close(
        model.network.conv_in.weight, unet().half().conv_in.weight.float(), rtol=0, atol=0
    )


def test_the_digest_is_of_weights_and_configuration_not_of_the_file(directory, tmp_path):
    DDPMPipeline(unet(), DDPMScheduler()).save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    first = load_model(str(directory)).identity
    assert load_model(str(tmp_path / "shards")).identity["digest"] == first["digest"]
    other = unet()
    with torch.no_grad():
        other.conv_out.bias[0] += 1e-6
    assert DDPMModel(other, DDPMScheduler()).identity["digest"] != first["digest"]
    assert DDPMModel(unet(), DDPMScheduler(beta_end=0.03)).identity["digest"] != first["digest"]
    assert json.loads(json.dumps(first)) == first


def test_pictures_are_resized_by_the_shorter_side_and_cropped_in_the_middle():
    model = DDPMModel(unet(), DDPMScheduler())
    exact = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    encoded = model.encode([exact])
    assert encoded.shape == (1, 3, 8, 8)
    torch.testing.assert_close(
        encoded[0], torch.from_numpy(exact).permute(2, 0, 1).float() / 127.5 - 1, rtol=0, atol=1e-6
    )
    wide = np.zeros((16, 64, 3), np.uint8)
    wide[:, 24:40] = 255  # the middle square is white
    assert float(model.encode([wide])[0, :, :, 1:-1].min()) > 0.95
    grey = DDPMModel(unet(in_channels=1, out_channels=1), DDPMScheduler()).encode([exact])
    assert grey.shape == (1, 1, 8, 8)


def test_a_learned_variance_is_left_out_of_the_prediction():
    model = DDPMModel(unet(out_channels=6), DDPMScheduler())
    x = torch.zeros(2, 3, 8, 8)
    t = torch.tensor([3, 5])
    torch.testing.assert_close(model.predict(x, t, {}), model.network(x, t).sample[:, :3])


@pytest.mark.parametrize(
    ("network", "scheduler", "message"),
    [
        (lambda: unet(num_class_embeds=4), DDPMScheduler, "conditioned on classes"),
        (lambda: unet(in_channels=4, out_channels=4), DDPMScheduler, "4 channels"),
        (lambda: unet(out_channels=5), DDPMScheduler, "maps 3 channels to 5"),
        (lambda: unet(sample_size=None), DDPMScheduler, "no sample_size"),
        (unet, KarrasVeScheduler, "alphas_cumprod"),
    ],
)
def test_models_it_cannot_attribute_are_refused_with_the_reason(network, scheduler, message):
    with pytest.raises(ModelError, match=message):
        DDPMModel(network(), scheduler())


def test_a_directory_that_is_no_pipeline_is_refused(tmp_path):
    with pytest.raises(ModelError, match="No diffusion model could be loaded"):
        load_model(str(tmp_path))


def test_a_damaged_weights_file_is_refused(directory):
    weights = directory / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="is cut short: it has 1,000 bytes"):
        load_model(str(directory))
