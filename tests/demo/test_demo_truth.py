"""The demo's ground truth: its parts, the design, and courses that are the committed recipe without a part."""

from pathlib import Path

import numpy as np
import torch

from demo.course import NOISY_WEIGHTS_FROM, DemoCourse, TrainConfig
from demo.crops import all_crops, crops_between, planted_rows, stream
from demo.home import SAMPLES
from demo.samples import read_samples
from demo.truth import design, make_demo_truth, part_names, parts_of_works, queries
from demo.truth import training as demo_training


def test_the_works_fall_into_photographs_and_planted_crops() -> None:
    names, parts = part_names(), parts_of_works()
    assert len(names) == 14
    for row in planted_rows():
        assert names[parts[row]] == all_crops()[row].file_name
        assert np.count_nonzero(parts == parts[row]) == 1
    for row in (0, 500, len(parts) - 1):
        assert names[parts[row]] == all_crops()[row].photograph.name


def test_crops_between_the_works_are_no_works() -> None:
    asked = crops_between(3)
    assert len(asked) == 33
    works = {crop.pixels.tobytes() for crop in all_crops()}
    assert not any(crop.pixels.tobytes() in works for crop in asked)
    assert len({crop.file_name for crop in asked}) == 33


def test_samples_and_crops_are_asked() -> None:
    images, kinds, names = queries()
    assert images.shape == (126, 3, 32, 32)
    assert names[:60] == [sample.file for sample in read_samples(SAMPLES)]
    assert kinds.tolist() == ["generated"] * 60 + ["validation"] * 66
    assert float(images.abs().max()) <= 1


def test_a_design_lacks_each_part_alone_or_all_equally_often() -> None:
    assert [lacking.tolist() for lacking in design(3, 1, 0)] == [[], [0], [1], [2]]
    several = design(14, 3, 28)
    assert [len(lacking) for lacking in several] == [0] + [3] * 28
    assert all(len(set(lacking.tolist())) == 3 for lacking in several[1:])
    assert np.bincount(np.concatenate(several[1:])).tolist() == [6] * 14


def test_a_course_is_the_recipe_of_the_demo_without_what_it_lacks() -> None:
    kept = np.flatnonzero(parts_of_works() != 3)
    course = demo_training(80).course(21, kept)
    epoch = stream()[np.isin(stream(), kept)]
    config = TrainConfig(steps=round(80 * len(epoch) / len(stream())), seed=21)
    assert len(course) == config.steps < 80
    plain = DemoCourse(config, torch.from_numpy(epoch), round(NOISY_WEIGHTS_FROM / 8000 * config.steps))
    for step in (0, 20, 30, config.steps - 1):
        assert torch.equal(course.rows[step], plain.rows(step))
        assert torch.equal(course.times[step], plain.times(step))
        assert torch.equal(course.weights[step], plain.weights(step, plain.times(step)))
        assert float(course.rates[step]) == config.rate(step)
        assert float(course.decays[step]) == config.decay(step + 1)
    assert set(parts_of_works()[course.rows.flatten().numpy()].tolist()) <= set(range(14)) - {3}
    assert torch.equal(demo_training(80).noise(21)(5), plain.noise(5))


def test_it_is_made_in_the_form_of_a_truth_of_groups(tmp_path: Path) -> None:
    made = make_demo_truth(tmp_path / "truth", steps=1, seeds=1, lacking=7, models=2)
    assert made.without.sum(1).tolist() == [0, 7, 7]
    assert made.losses.shape == (3, 1, 126)
    assert made.repeats.sum() == len(stream())
    assert (made.pipeline / "model_index.json").is_file()
