"""Training: resumes to the same weights, refuses other options; the committed models are what it makes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from demo.course import COOLDOWN_SHARE, DemoCourse, TrainConfig
from demo.crops import all_crops, stream
from demo.home import CLIP, PIPELINE
from demo.train import Trainer, TrainingError, new_network

MAX_WEIGHTS = 4_000_000  # bytes
MAX_CLIP = 1_500_000  # bytes
SMALL = TrainConfig(steps=8, batch_size=4)


def trained(config: TrainConfig, to: int) -> Trainer:
    trainer = Trainer(config)
    while trainer.step < to:
        trainer.run_step()
    return trainer


def test_a_resumed_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole = trained(SMALL, 3)
    trained(SMALL, 2).save_checkpoint(tmp_path / "checkpoint.pt")
    resumed = Trainer(SMALL)
    resumed.resume(tmp_path / "checkpoint.pt")
    assert resumed.step == 2
    resumed.run_step()
    for name, value in whole.ema.items():
        torch.testing.assert_close(resumed.ema[name], value, rtol=1e-5, atol=1e-7)


def test_other_options_are_refused_and_more_steps_are_not(tmp_path: Path) -> None:
    trained(SMALL, 1).save_checkpoint(tmp_path / "checkpoint.pt")
    with pytest.raises(TrainingError, match=r"seed"):
        Trainer(TrainConfig(steps=8, batch_size=4, seed=21)).resume(tmp_path / "checkpoint.pt")
    longer = Trainer(TrainConfig(steps=80, batch_size=4))
    longer.resume(tmp_path / "checkpoint.pt")
    assert longer.step == 1
    with pytest.raises(TrainingError, match=r"steps"):
        Trainer(TrainConfig(steps=1, batch_size=4)).resume(tmp_path / "checkpoint.pt")


def test_the_rate_warms_up_stays_and_cools_down() -> None:
    config = TrainConfig(steps=1000, warmup_steps=100)
    assert config.rate(0) == pytest.approx(config.learning_rate / 100)
    assert config.rate(500) == config.learning_rate
    assert config.rate(int(1000 * (1 - COOLDOWN_SHARE / 2))) == pytest.approx(config.learning_rate / 2)
    assert config.rate(999) == pytest.approx(config.learning_rate / 250)


def test_an_epoch_shows_every_entry_of_the_stream_once() -> None:
    course = DemoCourse(TrainConfig(batch_size=31), torch.from_numpy(stream()))
    length = len(stream())
    rows = torch.cat([course.rows(step) for step in range(2 * length // 31 + 1)])
    for epoch in range(2):
        assert sorted(rows[epoch * length : (epoch + 1) * length].tolist()) == stream().tolist()
    assert rows[:length].tolist() != rows[length : 2 * length].tolist()


def test_the_command_trains_and_goes_on(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-c",
        "from das.cli import main; main()",
        "demo",
        "train",
        "--out",
        str(tmp_path),
    ]
    command += ["--clip-steps", "1", "--steps", "3"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for _ in range(2):  # the second run finds everything done
        subprocess.run(command, check=True, env=environment, capture_output=True, timeout=240)
        record = json.loads((tmp_path / "pipeline" / "train.json").read_text())
        assert record["steps_done"] == record["steps"] == 3
        assert record["works"] == len(all_crops())
    assert loads_as_a_pipeline(tmp_path / "pipeline")
    assert loads_in_open_clip(tmp_path / "clip")


def loads_as_a_pipeline(path: Path) -> bool:
    """Whether diffusers loads it as it is, with float32 weights that half precision holds exactly."""
    from diffusers import DDPMPipeline

    pipeline = DDPMPipeline.from_pretrained(path)
    assert pipeline.scheduler.config.prediction_type == "epsilon"
    assert pipeline.scheduler.config.num_train_timesteps == 1000
    state = pipeline.unet.state_dict()
    assert {name: value.shape for name, value in state.items()} == {
        name: value.shape for name, value in new_network().state_dict().items()
    }
    return all(
        value.dtype == torch.float32 and torch.equal(value.half().float(), value) for value in state.values()
    )


def loads_in_open_clip(path: Path) -> bool:
    """Whether open_clip loads both towers and its tokenizer from the directory, as local-dir."""
    import open_clip

    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{path}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{path}")
    tokens = tokenizer([crop.caption for crop in all_crops()[:3]])
    assert tokens.max() == model.vocab_size - 1  # the end sign
    from PIL import Image

    pictures = torch.stack([preprocess(Image.fromarray(crop.pixels)) for crop in all_crops()[:3]])
    with torch.inference_mode():
        return model.encode_image(pictures).shape == model.encode_text(tokens).shape == (3, 64)


def test_the_committed_pipeline_is_small_and_loads() -> None:
    weights = list((PIPELINE / "unet").glob("*.safetensors"))
    assert sum(file.stat().st_size for file in weights) <= MAX_WEIGHTS
    assert loads_as_a_pipeline(PIPELINE)
    record = json.loads((PIPELINE / "train.json").read_text())
    assert record["steps_done"] == record["steps"]
    assert {"seed", "steps", "seconds", "versions"} <= set(record)


def test_the_committed_clip_is_small_and_finds_the_photograph() -> None:
    import numpy as np

    from das.screening import Embedder

    assert sum(file.stat().st_size for file in CLIP.iterdir()) <= MAX_CLIP
    assert loads_in_open_clip(CLIP)
    crops = all_crops()
    embeddings = Embedder.load({"directory": CLIP}).embed([crop.pixels for crop in crops])
    similarity = embeddings @ embeddings.T
    np.fill_diagonal(similarity, -1)
    names = np.array([crop.photograph.name for crop in crops])
    # Of the other works, the most similar one is mostly another crop of the same photograph.
    assert np.mean(names[similarity.argmax(axis=1)] == names) > 0.9
