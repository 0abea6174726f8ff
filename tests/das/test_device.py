"""Devices that aren't there are said before anything is loaded, in every command, with exit code 2."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from das.cli import EXIT_USER_ERROR, build_app
from das.device import check_device
from das.errors import SettingsError

ROOT = Path(__file__).parents[2]
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


def test_the_processor_is_always_there() -> None:
    assert check_device("cpu") == "cpu"


@pytest.mark.parametrize(
    "device", ["gpu", "cuda:", "cuda:x", "CUDA", "cuda:1:2", "", "cpu:0", "meta", "cuda:-1"]
)
def test_names_of_no_device_are_refused(device: str) -> None:
    with pytest.raises(SettingsError, match="there are cpu, cuda, cuda:N"):
        check_device(device)


@without_gpu
def test_a_gpu_that_isnt_there_is_said() -> None:
    for device in ("cuda", "cuda:9"):
        with pytest.raises(
            SettingsError, match=f"the device is {device}, but PyTorch finds no NVIDIA GPU here"
        ):
            check_device(device)


@pytest.mark.parametrize(
    "arguments",
    [
        ["build", "--model", "m", "--works", "w", "--out", "o"],
        ["query", "picture.png", "--index", "i"],
        ["evaluate", "lds", "--truth", "t"],
        ["evaluate", "index", "i", "--truth", "t"],
        ["bench", "features", "--model", "m"],
    ],
)
def test_every_command_refuses_it_first(arguments: list[str], tmp_path: Path) -> None:
    result = CliRunner().invoke(build_app(), [*arguments, "--device", "gpu"])
    assert isinstance(result.exception, SettingsError), result.output
    assert "the device is 'gpu'" in str(result.exception)


@pytest.mark.parametrize("command", ["serve", "worker"])
@without_gpu
def test_the_service_refuses_it_at_its_start(command: str, tiny_index: Path, tmp_path: Path) -> None:
    settings = {
        "DAS_DEVICE": "cuda",
        "DAS_INDEX_DIR": str(tiny_index),
        "DAS_DATA_DIR": str(tmp_path / "data"),
    }
    ended = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys; sys.argv = ['das', '{command}']; from das.cli import main; main()",
        ],
        env=os.environ | settings,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == EXIT_USER_ERROR, ended.stderr
    assert "error: the device is cuda, but PyTorch finds no NVIDIA GPU here" in ended.stderr
    assert "Traceback" not in ended.stderr
