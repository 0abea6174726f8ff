"""Pipelines whose configuration says nothing usable: refused with a sentence, never with a traceback."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from das.errors import ModelError
from das.models import load_model


def changed(pipeline: Path, folder: Path, file: str, **values: Any) -> Path:
    copy = Path(shutil.copytree(pipeline, folder / "changed"))
    config = json.loads((copy / file).read_text())
    (copy / file).write_text(json.dumps(config | values))
    return copy


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("unet/config.json", {"sample_size": None}),
        ("unet/config.json", {"sample_size": -8}),
        ("unet/config.json", {"sample_size": 0}),
        ("unet/config.json", {"sample_size": "8"}),
        ("unet/config.json", {"sample_size": [8]}),
        ("unet/config.json", {"sample_size": [8, None]}),
        ("unet/config.json", {"sample_size": 8.5}),
        ("unet/config.json", {"sample_size": True}),
        ("unet/config.json", {"in_channels": None}),
        ("unet/config.json", {"out_channels": "3"}),
        ("unet/config.json", {"in_channels": -3}),
        ("unet/config.json", {"block_out_channels": 7}),
        ("unet/config.json", {"layers_per_block": []}),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": None}),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": -1}),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 0}),
        ("scheduler/scheduler_config.json", {"beta_schedule": [1]}),
        ("scheduler/scheduler_config.json", {"prediction_type": None}),
        ("scheduler/scheduler_config.json", {"prediction_type": ["epsilon"]}),
        ("model_index.json", {"unet": None}),
        ("model_index.json", {"unet": "UNet2DModel"}),
        ("model_index.json", {"unet": ["diffusers"]}),
        ("model_index.json", {"_class_name": None}),
        ("model_index.json", {"_class_name": ["DDPMPipeline"]}),
    ],
)
def test_a_configuration_that_says_nothing_usable_is_refused(
    tiny_model: Path, tmp_path: Path, file: str, values: dict[str, Any]
) -> None:
    with pytest.raises(ModelError) as caught:
        load_model(str(changed(tiny_model, tmp_path, file, **values)))
    assert str(caught.value)[-1] in ".'"


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"\xff", b'{"sample_size": ' + b"[" * 5000])
@pytest.mark.parametrize("file", ["unet/config.json", "model_index.json", "scheduler/scheduler_config.json"])
def test_a_configuration_that_is_none_is_refused(
    tiny_model: Path, tmp_path: Path, file: str, content: bytes
) -> None:
    copy = Path(shutil.copytree(tiny_model, tmp_path / "changed"))
    (copy / file).write_bytes(content)
    with pytest.raises(ModelError):
        load_model(str(copy))
