"""`das bench changes`: what it measures is there, and what it can't measure is refused."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from das.cli import build_app
from das.errors import SettingsError
from das.index import AttributionIndex
from measure.changing import measure_changes


def test_the_commands_are_timed_and_make_what_they_say(tiny_model: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "bench", tmp_path / "changes.json"
    words = ["bench", "changes", "--model", tiny_model, "--folder", folder, "--works", 10, "--part", 0.2]
    words += ["--size", 16, "--preset", "economical", "--out", out]
    result = CliRunner().invoke(build_app(), [str(word) for word in words])
    assert result.exit_code == 0, result.output
    figures = json.loads(out.read_text())
    assert (figures["works"], figures["changed"]) == (10, 2)
    assert len(AttributionIndex.open(folder / "without")) == 8
    assert len(AttributionIndex.open(folder / "more")) == 12
    for name in ("build", "remove", "add"):
        assert 0 < sum(figures[name]["stages_s"].values()) < figures[name]["wall_s"]
    assert figures["remove_to_build"] == pytest.approx(
        figures["remove"]["wall_s"] / figures["build"]["wall_s"], rel=0.01
    )


def test_what_cant_be_measured_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    options = {"size": 16, "preset": "economical", "device": "cpu"}
    with pytest.raises(SettingsError, match="too few, or too many"):
        measure_changes(str(tiny_model), tmp_path / "none", works=10, part=0.01, **options)
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="isn't empty"):
        measure_changes(str(tiny_model), tmp_path, works=10, part=0.2, **options)
