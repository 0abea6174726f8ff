"""The effects that the demo's check is held to: as they are kept, and what is read from them."""

import json
from pathlib import Path

import numpy as np
import pytest

from das.errors import DasError
from demo.check import agreement_faults, agreement_with
from demo.crops import all_crops, planted_rows
from demo.effects import SampleEffects, interval, read_effects, write_effects
from demo.home import SAMPLES
from demo.samples import read_samples
from demo.truth import part_names, parts_of_works, queries
from measure.groups import GroupTruth


def effects() -> SampleEffects:
    """Three photographs, the third with a planted crop; two seeds; samples where a, c's planted crop, and b lead."""
    first = [[5.0, 0, 1], [1, 0, 2], [0, 1, 1], [0, 4, 0]]
    second = [[5.2, 0, 1], [1, 0, 1.2], [0, 1, 1.4], [0, 4.4, 0]]
    return SampleEffects(
        photographs=("a", "b", "c"),
        planted=np.array([False, False, False, True]),
        photograph_of=np.array([0, 1, 2, 2]),
        samples=("one", "two", "three"),
        by_seed=np.stack([first, second], axis=1),
    )


def test_a_photograph_has_the_effect_of_its_planted_crop_too() -> None:
    found = effects()
    assert found.of_photographs[2, :, 1].tolist() == [5.0, 5.4]
    assert [found.first(sample) for sample in found.samples] == ["a", "c", "b"]
    assert found.planted_first(["one", "two", "three"]) == 1


def test_a_lead_is_significant_where_the_seeds_agree_on_it() -> None:
    found = effects()
    assert [found.is_significant(sample) for sample in found.samples] == [True, True, False]
    spread = np.array([0.1, 0, 0]) ** 2  # variances of the first sample's three photographs
    assert found.errors[0] == pytest.approx(np.sqrt(2 * spread.mean() / 2))
    assert found.seeds_agree() == (2, 3)


def test_wilsons_interval() -> None:
    assert interval(0, 33) == pytest.approx((0, 0.1043), abs=1e-4)
    assert interval(54, 60) == pytest.approx((0.7985, 0.9534), abs=1e-4)
    assert interval(5, 5)[1] == 1


def test_what_the_package_carries_is_about_its_samples_and_parts() -> None:
    carried = read_effects()
    samples = read_samples(SAMPLES)
    assert carried.samples == tuple(sample.file for sample in samples)
    assert carried.by_seed.shape[0] == len(part_names())
    assert carried.planted.sum() == len(planted_rows())
    copies = [sample for sample in samples if sample.reproduction]
    assert carried.planted_first([sample.file for sample in copies]) == len(copies)
    for sample in copies:
        assert sample.nearest_planted.startswith(carried.first(sample.file) + "-")


def test_it_is_written_from_a_truth_and_read_again(tmp_path: Path) -> None:
    works = len(all_crops())
    _, kinds, names = queries()
    random = np.random.default_rng(0)
    without = np.vstack([np.zeros(14, bool), np.eye(14, dtype=bool)])
    losses = random.random((15, 2, len(names))).astype(np.float32)
    truth = GroupTruth(
        tmp_path,
        np.zeros((works, 3, 2, 2)),
        np.ones(works),
        np.zeros((len(names), 3, 2, 2)),
        kinds,
        parts_of_works(),
        without,
        losses,
        np.zeros((15, 2, 2, len(names))),
    )
    write_effects(tmp_path / "effects.json", truth, {"steps": 3}, names)
    again = read_effects(tmp_path / "effects.json")
    assert again.samples == tuple(names[:60])
    np.testing.assert_allclose(again.by_seed, (losses[1:] - losses[:1])[:, :, :60], atol=1e-6)
    assert json.loads((tmp_path / "effects.json").read_text())["plan"] == {"steps": 3}


@pytest.mark.parametrize("text", ["", "{}", '{"photographs": ["a"], "parts": [{}], "effects": {}}', "[1]"])
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "effects.json").write_text(text)
    with pytest.raises(DasError, match="holds no effects"):
        read_effects(tmp_path / "effects.json")


def test_answers_outside_the_truths_own_interval_are_faults() -> None:
    carried, samples = read_effects(), read_samples(SAMPLES)
    right = {sample.file: f"{carried.first(sample.file)}-040-0000-0000.png" for sample in samples}
    found = agreement_with(carried, samples, right, right)
    assert found["first_photograph_agrees"] == found["first_photograph_total"] == 60
    assert found["first_photograph_agrees_where_significant"] == found["first_photograph_significant"]
    assert found["planted_first_elsewhere"] == found["truth_planted_first_elsewhere"] == 0
    assert found["clip_first_photograph_agrees"] == 60
    assert agreement_faults(found) == []

    planted = samples[next(i for i, sample in enumerate(samples) if sample.reproduction)].nearest_planted
    swallowed = dict.fromkeys(right, planted)
    found = agreement_with(carried, samples, swallowed, right)
    assert found["planted_first_elsewhere"] == found["planted_first_elsewhere_total"] == 33
    told = agreement_faults(found)
    assert "absence changes most" in told[0]
    assert "planted work is first for 100%" in told[1]


def test_answers_and_look_alikes_are_counted_where_only_one_of_them_is_right() -> None:
    carried, samples = read_effects(), read_samples(SAMPLES)
    certain = [sample for sample in samples if carried.is_significant(sample.file)]
    right = {sample.file: f"{carried.first(sample.file)}-040-0000-0000.png" for sample in samples}
    wrong = dict.fromkeys(right, "nothing-040-0000-0000.png")
    firsts = right | {certain[0].file: wrong[certain[0].file]}
    looks = right | {sample.file: wrong[sample.file] for sample in certain[1:4]}
    found = agreement_with(carried, samples, firsts, looks)
    assert found["first_photograph_agrees"] == 59
    assert found["clip_first_photograph_agrees"] == 57
    assert found["clip_first_photograph_agrees_where_significant"] == len(certain) - 3
    assert found["das_alone_agrees_where_significant"] == 3
    assert found["clip_alone_agrees_where_significant"] == 1
