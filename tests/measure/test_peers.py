"""`das bench peers`: contenders at the same pairs, the reasons of those that can't, and the page made of it."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from das.cli import build_app
from das.errors import SettingsError
from das.models import load_model
from measure.peers.contenders import CONTENDERS
from measure.peers.side_by_side import installed, side_by_side
from measure.peers.task import pairs_of
from measure.results.peers import LIMITS, peers_section

SMALL = {"timesteps": 2, "dimension": 16, "batch_size": 3}


def test_contenders_are_timed_at_the_same_pairs_and_one_without_its_library_is_told(
    tiny_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "peers.json"
    words = ["bench", "peers", "--model", tiny_model, "--images", 2, "--timesteps", 2, "--dimension", 16]
    words += ["--batch-size", 3, "--rounds", 1, "--out", out]
    words += [word for name in ("das", "loop", "traker-cuda") for word in ("--contender", name)]
    words += ["--note", "On a quiet machine."]
    done = CliRunner().invoke(build_app(), [str(word) for word in words])
    assert done.exit_code == 0, done.output
    told = json.loads(out.read_text())
    (network,) = told["networks"]
    weights = load_model(str(tiny_model)).network.parameters()
    assert network["parameters"] == sum(one.numel() for one in weights)
    for name in ("das", "loop"):
        one = network["contenders"][name]
        assert 0 < one["ratio_low"] <= one["ratio"] <= one["ratio_high"]
        assert one["differs"] < 1e-3
        assert one["memory_bytes"] > 1e7
    without = network["contenders"]["traker-cuda"]["failed"]
    assert without == "not installed" if installed("traker") is None else "CUDA" in without
    page = peers_section(told)
    assert "is told so. On a quiet machine.\n" in page
    assert f"A network of {network['parameters'] / 1e6:.1f} M parameters" in page
    assert f"**{network['contenders']['loop']['ratio']:.2f}**" in page
    assert LIMITS["traker-cuda"] in page
    assert LIMITS["dattri-mask"] not in page


@pytest.mark.parametrize("name", ["loop", "vmap"])
def test_other_ways_give_the_same_features(tiny_model: Path, tmp_path: Path, name: str) -> None:
    pairs = pairs_of(str(tiny_model), tmp_path, images=2, probes=("loss",), **SMALL)
    ours = CONTENDERS["das"].prepare(pairs)()
    torch.testing.assert_close(CONTENDERS[name].prepare(pairs)(), ours, rtol=1e-3, atol=1e-6)


def test_what_asks_for_too_much_memory_is_told(tiny_model: Path) -> None:
    *_, told = side_by_side(
        [str(tiny_model)],
        images=[2],
        names=["das"],
        rounds=2,
        memory=0.05,
        limit_s=120,
        progress=lambda *at: None,
        **SMALL,
    )
    assert "failed" in told["networks"][0]["contenders"]["das"]


def test_unknown_contenders_and_wrong_numbers_are_refused(tiny_model: Path) -> None:
    options = {"rounds": 1, "memory": 4, "limit_s": 60, "progress": lambda *at: None}
    with pytest.raises(SettingsError, match="no contenders nobody"):
        next(side_by_side([str(tiny_model)], names=["nobody"], images=[2], **SMALL, **options))
    with pytest.raises(SettingsError, match="1 models need as many numbers of images, not 2"):
        next(side_by_side([str(tiny_model)], names=["das"], images=[2, 2], **SMALL, **options))


def test_every_others_limits_are_told() -> None:
    assert LIMITS.keys() == CONTENDERS.keys() - {"das", "das-default"}
