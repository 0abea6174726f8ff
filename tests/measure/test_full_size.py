"""Models of published sizes: as large as the published ones, and what is asked for amiss."""

import pytest
import torch
from diffusers import UNet2DConditionModel

from das.errors import SettingsError
from measure.full_size import SIZES, measure_build


@pytest.mark.parametrize(
    ("family", "parameters"), [("stable-diffusion", 859_520_964), ("stable-diffusion-xl", 2_567_463_684)]
)
def test_the_networks_have_the_published_numbers_of_parameters(family, parameters):
    with torch.device("meta"):
        pipeline = SIZES[family](256)
    assert isinstance(pipeline.unet, UNet2DConditionModel)
    assert sum(weights.numel() for weights in pipeline.unet.parameters()) == parameters
    assert pipeline.unet.config.sample_size == 32


def test_what_has_no_size_here_is_refused(tmp_path):
    options = {"works": 2, "size": 64, "rank": 4, "timesteps": 1, "device": "cpu"}
    with pytest.raises(SettingsError, match="families with a full size here: stable-diffusion"):
        measure_build("flux", tmp_path, **options)
    with pytest.raises(SettingsError, match="multiple of 64"):
        measure_build("stable-diffusion", tmp_path, **(options | {"size": 100}))
