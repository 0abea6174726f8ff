"""`das bench changes`: what it measures is there, and what it can't measure is refused."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from das.cli import build_app
from das.errors import SettingsError
from das.index import AttributionIndex
from measure.changing import measure_changes
from measure.results.changing import changes_section


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
        assert figures[name]["cpu_s"] > 0
    assert figures["remove_to_build"] == pytest.approx(
        figures["remove"]["wall_s"] / figures["build"]["wall_s"], rel=0.01
    )
    work = {
        name: sum(seconds for stage, seconds in figures[name]["stages_s"].items() if stage != "loading")
        for name in ("build", "add")
    }
    assert figures["add_to_build_loaded"] == pytest.approx(work["add"] / work["build"], rel=0.01, abs=1e-4)


def test_what_cant_be_measured_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    options = {"size": 16, "preset": "economical", "device": "cpu"}
    with pytest.raises(SettingsError, match="too few, or too many"):
        measure_changes(str(tiny_model), tmp_path / "none", works=10, part=0.01, **options)
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="isn't empty"):
        measure_changes(str(tiny_model), tmp_path, works=10, part=0.2, **options)


def test_the_page_tells_where_the_time_goes_that_works_dont_take() -> None:
    told = {
        "works": 100,
        "changed": 1,
        "size": 16,
        "preset": "default",
        "dimension": 64,
        "command": "das bench",
    }
    told |= {"model": {"attributed": 1_000_000}, "machine": {"cores": 2, "load_average_before": 0.5}}
    told |= {"remove_to_build": 0.2, "remove_to_build_cpu": 0.1, "add_to_build": 0.3, "add_to_build_cpu": 0.1}
    stages = {"loading": 4.0, "gradients": 100.0, "finishing": 1.0}
    told["build"] = {"wall_s": 120.0, "cpu_s": 110.0, "stages_s": stages}
    changing = {"wall_s": 12.0, "cpu_s": 11.0, "stages_s": {"loading": 4.0, "gradients": 1.0, "writing": 2.0}}
    told |= {"remove": {**changing, "cpu_s": 21.0}, "add": changing}
    more = told | {"works": 4000, "changed": 40, "remove_to_build": 0.031, "add_to_build": 0.025}
    page = changes_section([more, told])
    # 10 s (20 s when removing) whatever the works are and 1 s a work: 20 + n / 100 is 5 % of 10 + n from n = 487.5.
    assert "take about 10 s of CPU time when adding and 20 s when removing" in page
    assert "At its 1000 ms a work in the build, both would meet the aim from about 500 works" in page
    assert "| removing 1 | 12 s | 20.0% | 21 s | 10.0% | 1.0 s | 2.0 s |" in page
    assert "is not met with 100 and met with 4,000." in page
    assert page.index("| building 100 |") < page.index("| building 4,000 |")
    assert changes_section([]) == ""
