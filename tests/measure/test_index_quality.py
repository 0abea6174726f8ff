"""Measuring an index: the figure against plain loops and SciPy, what is refused, and writing that may be killed."""

import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.stats import spearmanr
from typer.testing import CliRunner, Result

from das.attribution import Attributor
from das.cli import build_app
from das.config import BuildConfig, ClipSpec
from das.errors import SettingsError
from das.index import AttributionIndex
from das.manifest import QualityRecord, list_files
from das.works import file_digest
from index_build.build import build
from measure.index_quality import measure, record_quality
from measure.lds import interval
from measure.pictures import as_pixels
from measure.plan import Plan
from measure.source import Source
from measure.subsets import make_truth
from measure.training import LossConfig, Recipe
from measure.truth import GroundTruth, load_truth, read_arrays, write_arrays

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
PLAN = Plan(
    size=8,
    count=20,
    validation=3,
    generated=4,
    subsets=8,
    repeated=4,
    checkpoints=1,
    sampling_steps=3,
    recipe=Recipe(widths=(16, 32), steps=3, full_steps=6, batch_size=4),
    losses=LossConfig(timesteps=2, draws=1),
)
QUALITY = QualityRecord(
    method="das-block",
    lds=41.25,
    low=38.04,
    high=44.96,
    ceiling=55.0,
    perfect=74.2,
    subsets=36,
    queries=200,
    generated=100,
    truth="truth, 48 models trained on 36 subsets of the 20 works",
    truth_digest="ab" * 32,
    measured_at="2026-01-31T12:00:00+00:00",
    command="das evaluate index index --truth truth",
    versions={"torch": "2.6"},
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("measured")


@pytest.fixture(scope="module")
def truth(folder: Path) -> GroundTruth:
    """20 works, two of them alike, averaged down from 16 × 16 pixels to what 8 bits don't hold."""
    pictures = np.random.default_rng(0).integers(0, 256, size=(30, 16, 16, 3), dtype=np.uint8)
    pictures[5:10] = pictures[5]
    made = make_truth(Source(pictures, np.zeros(30), None, None), folder / "truth", PLAN)
    assert len(np.unique(made.works, axis=0)) < 20
    assert not np.allclose(made.works * 127.5 + 127.5, np.rint(made.works * 127.5 + 127.5), atol=0.1)
    return made


@pytest.fixture(scope="module")
def places(truth: GroundTruth, folder: Path) -> np.ndarray:
    """The works as files, written as the documentation says and renamed; the truth's place of each row."""
    snippets = re.findall(r"```python\n(.*?)```", OPERATIONS.read_text(), re.DOTALL)
    (snippet,) = (text for text in snippets if "as_pixels" in text)
    before = Path.cwd()
    os.chdir(folder)
    try:
        exec(compile(snippet, "operations.md", "exec"), {})
    finally:
        os.chdir(before)
    order = np.random.default_rng(1).permutation(len(truth.works))
    for row, place in enumerate(order):
        (folder / "works" / f"{place:05d}.png").rename(folder / "works" / f"work-{row:05d}.png")
    return order


@pytest.fixture(scope="module")
def built(folder: Path, truth: GroundTruth, places: np.ndarray, tiny_clip: Path) -> Path:
    config = BuildConfig(
        name="measured",
        model=str(truth.pipeline),
        works=folder / "works",
        timesteps=(100, 500),
        dimension=48,
        methods=("das-block", "das"),
        shard_size=8,
        clip=ClipSpec(directory=tiny_clip),
    )
    return build(config, folder / "index").path


@pytest.fixture
def index(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "index"))


@pytest.fixture
def other_truth(truth: GroundTruth, tmp_path: Path) -> Path:
    return Path(shutil.copytree(truth.directory, tmp_path / "other"))


def run(*words: object) -> Result:
    return CliRunner().invoke(build_app(), [str(word) for word in words], catch_exceptions=True)


def contents(directory: Path) -> dict[str, str]:
    return {name: file_digest(directory / name) for name in list_files(directory)}


def by_hand(path: Path, truth: GroundTruth, places: np.ndarray) -> float:
    """Mean over queries of SciPy's rank correlation, with one question and one sum at a time; times 100."""
    attributor = Attributor(AttributionIndex.open(path))
    found = []
    for query, picture in enumerate(as_pixels(truth.queries)):
        answer = attributor.attribute(picture, top_k=len(places), candidates="all")
        score_of = {int(places[work.row]): work.score for work in answer.works}
        predicted = [-sum(score_of[place] for place in np.flatnonzero(members)) for members in truth.members]
        lost = [np.nanmean(losses[:, query]) for losses in truth.losses]
        found.append(spearmanr(predicted, lost).statistic)
    return 100 * float(np.mean(found))


def test_the_figure_is_that_of_plain_loops_and_stands_on_the_card(
    index: Path, truth: GroundTruth, places: np.ndarray
) -> None:
    before, opened = contents(index), AttributionIndex.open(index)
    assert opened.manifest.quality is None
    assert "Not measured. No LDS" in opened.card
    result = run("evaluate", "index", index, "--truth", truth.directory, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    both = truth.losses[:4]
    ceiling = 100 * np.mean([spearmanr(both[:, 0, q], both[:, 1, q]).statistic for q in range(7)])

    again = AttributionIndex.open(index)
    quality = again.manifest.quality
    assert quality is not None
    assert told == {"index": opened.id, **quality.model_dump(mode="json")}
    assert again.id == opened.id
    assert quality.lds == pytest.approx(by_hand(index, truth, places), abs=1e-6)
    assert quality.lds != 0
    assert quality.low < quality.lds < quality.high
    assert quality.ceiling == pytest.approx(ceiling, abs=1e-6)
    assert quality.perfect == pytest.approx(100 * max(0.01 * ceiling, 0) ** 0.5, abs=1e-6)
    assert (quality.method, quality.subsets, quality.queries, quality.generated) == ("das-block", 8, 7, 4)
    assert quality.truth == "truth, 12 models trained on 8 subsets of the 20 works"
    assert set(quality.versions) >= {"torch", "python"}

    card = again.card
    assert "Not measured" not in card
    assert f"**LDS**: {quality.lds:.1f} %, of the method das-block" in card
    assert f"**Interval**: {quality.low:.1f} to {quality.high:.1f} %" in card
    assert f"**Ceiling**: {quality.ceiling:.1f} %" in card
    assert "all of them used" in card
    changed = {name for name, digest in contents(index).items() if before[name] != digest}
    assert changed == {"card.md", "manifest.json"}
    assert run("index", "verify", index).exit_code == 0
    assert f"LDS {quality.lds:.1f} %" in " ".join(run("index", "info", index).stdout.split())
    # The rest of the card is what the builder wrote.
    assert card.partition("## How good")[0] == opened.card.partition("## How good")[0]
    assert card.partition("## Licences")[2] == opened.card.partition("## Licences")[2]


def test_the_interval_is_of_these_predictions(built: Path, truth: GroundTruth, places: np.ndarray) -> None:
    opened = AttributionIndex.open(built)
    scores = np.empty((7, 20))
    scores[:, places] = Attributor(opened).scores(as_pixels(truth.queries))
    low, high = interval(-(scores @ truth.members.T), truth.mean_losses())
    quality = measure(opened, truth)
    assert (quality.low, quality.high) == pytest.approx((100 * low, 100 * high), abs=1e-6)
    assert AttributionIndex.open(built).manifest.quality is None


def test_a_second_measurement_replaces_the_first(index: Path, truth: GroundTruth) -> None:
    opened = AttributionIndex.open(index)
    record_quality(opened, QUALITY)
    assert "41.2 %" in opened.card
    result = run("evaluate", "index", index, "--truth", truth.directory)
    assert result.exit_code == 0
    again = AttributionIndex.open(index)
    assert again.manifest.quality is not None
    assert again.manifest.quality.describe() in result.stdout
    assert "41.2 %" not in again.card
    assert again.verify().ok
    assert again.id == opened.id


def test_a_truth_without_second_seeds_has_no_ceiling(index: Path, other_truth: Path) -> None:
    arrays = read_arrays(other_truth / "subsets.npz")
    write_arrays(other_truth / "subsets.npz", {**arrays, "losses": arrays["losses"][:, :1]})
    opened = AttributionIndex.open(index)
    quality = measure(opened, load_truth(other_truth))
    assert (quality.ceiling, quality.perfect) == (None, None)
    record_quality(opened, quality)
    assert "**Ceiling**: unknown" in AttributionIndex.open(index).card
    assert "ceiling unknown" in quality.describe()


def of_another_model(other: Path) -> None:
    shutil.rmtree(other / "pipeline")
    (other / "checkpoints" / "step-000003").rename(other / "pipeline")


def without_one_work(other: Path) -> None:
    works, subsets = read_arrays(other / "works.npz"), read_arrays(other / "subsets.npz")
    write_arrays(other / "works.npz", {name: values[1:] for name, values in works.items()})
    write_arrays(other / "subsets.npz", {**subsets, "members": subsets["members"][:, 1:]})


def with_another_work(other: Path) -> None:
    """One number differs by three levels of 8 bits."""
    works = read_arrays(other / "works.npz")
    value = works["images"][4, 1, 2, 3]
    works["images"][4, 1, 2, 3] = value - np.sign(value) * 6 / 255
    write_arrays(other / "works.npz", works)


def with_a_work_twice(other: Path) -> None:
    works = read_arrays(other / "works.npz")
    different = np.abs(works["images"] - works["images"][0]).max((1, 2, 3)) > 0.1
    works["images"][0] = works["images"][int(np.flatnonzero(different)[0])]
    write_arrays(other / "works.npz", works)


def of_another_shape(other: Path) -> None:
    for name in ("works.npz", "queries.npz"):
        arrays = read_arrays(other / name)
        write_arrays(other / name, {**arrays, "images": arrays["images"][:, :, :4]})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (of_another_model, r"ground truth of another model than measured@.*the index has"),
        (without_one_work, r"has 19 works, measured@\w+ has 20"),
        (with_another_work, r"work-\d+\.png of measured@\w+ is none of the works of .*differs by 0\.02"),
        (with_a_work_twice, r"is none of the works of"),
        (of_another_shape, r"has works of the shape \(3, 4, 8\)"),
    ],
)
def test_another_ground_truth_is_refused_and_nothing_changes(
    index: Path, other_truth: Path, change: Callable[[Path], None], message: str
) -> None:
    change(other_truth)
    before = contents(index)
    result = run("evaluate", "index", index, "--truth", other_truth)
    assert isinstance(result.exception, SettingsError)
    assert re.search(message, str(result.exception)), result.exception
    assert contents(index) == before


def test_works_that_were_trained_on_several_times_are_refused(
    folder: Path, truth: GroundTruth, built: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    works = Path(shutil.copytree(folder / "works", tmp_path / "works"))
    lines = [f"work-{row:05d}.png,{1 + (row == 3)}" for row in range(20)]
    (works / "metadata.csv").write_text("\n".join(["file_name,repeats", *lines]))
    config = AttributionIndex.open(built).manifest.config.model_copy(update={"works": works})
    build(config, tmp_path / "index")
    with pytest.raises(SettingsError, match="otherwise than"):
        measure(AttributionIndex.open(tmp_path / "index"), truth)


def test_works_that_were_moved_are_named_with_an_option_and_must_be_the_same_files(
    index: Path, folder: Path, truth: GroundTruth, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(folder / "works", tmp_path / "moved"))
    (folder / "works").rename(folder / "away")
    try:
        with pytest.raises(SettingsError, match="--works"):
            measure(AttributionIndex.open(index), truth)
        result = run("evaluate", "index", index, "--truth", truth.directory, "--works", moved)
        assert result.exit_code == 0
    finally:
        (folder / "away").rename(folder / "works")
    Image.new("RGB", (8, 8)).save(moved / "work-00007.png")
    with pytest.raises(
        SettingsError, match=r"work-00007\.png, a work of .*, isn't what the index was built from"
    ):
        measure(AttributionIndex.open(index), truth, works=moved)
    (moved / "work-00007.png").unlink()
    with pytest.raises(SettingsError, match=r"work-00007\.png, a work of .*isn't there"):
        measure(AttributionIndex.open(index), truth, works=moved)


def in_a_child(work: Callable[[], object]) -> int:
    """Run it in a forked process; the status it ended with."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:  # noqa: BLE001 - a child must not go on with the parent's tests
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


@pytest.mark.parametrize(("replaced", "damages"), [(0, []), (1, ["card.md"])])
def test_a_kill_while_writing_leaves_an_index_that_opens_and_is_mended(
    index: Path, replaced: int, damages: list[str]
) -> None:
    opened = AttributionIndex.open(index)

    def write_and_die() -> None:
        replace, done = Path.replace, 0

        def dying(path: Path, target: Path) -> Path:
            nonlocal done
            if done == replaced:
                os.kill(os.getpid(), signal.SIGKILL)
            done += 1
            return replace(path, target)

        Path.replace = dying  # type: ignore[method-assign, assignment]
        record_quality(opened, QUALITY)

    assert os.WTERMSIG(in_a_child(write_and_die)) == signal.SIGKILL
    left = AttributionIndex.open(index)
    assert (left.id, left.manifest.quality) == (opened.id, None)
    found = {damage.file for damage in left.verify().damages if not damage.file.endswith(".partial")}
    assert found == set(damages)
    record_quality(left, QUALITY)
    again = AttributionIndex.open(index)
    assert again.verify().ok
    assert again.manifest.quality == QUALITY


def test_a_disk_without_room_leaves_everything_as_it_was(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, synced = contents(index), []

    def fsync(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(SettingsError, match="No space left on device"):
        record_quality(AttributionIndex.open(index), QUALITY)
    assert contents(index) == before


def test_several_writers_take_turns_and_readers_never_notice(index: Path) -> None:
    def write(number: int) -> None:
        for turn in range(10):
            changed = QUALITY.model_copy(update={"lds": 10.0**number, "truth": "t" * (turn + 7 * number)})
            record_quality(AttributionIndex.open(index), changed)

    children = []
    for number in range(3):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                write(number)
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    opened: list[Any] = []
    while children:
        opened.append(AttributionIndex.open(index).manifest.quality)
        ended, status = os.waitpid(-1, os.WNOHANG)
        if ended:
            assert status == 0
            children.remove(ended)
    assert len({quality and quality.lds for quality in opened}) > 1
    assert AttributionIndex.open(index).verify().ok


def test_an_index_that_was_replaced_meanwhile_is_left_alone(index: Path) -> None:
    opened = AttributionIndex.open(index)
    measured = opened.manifest.model_copy(update={"content_digest": "0" * 64})
    before = contents(index)
    with pytest.raises(SettingsError, match="measure again"):
        record_quality(AttributionIndex(index, measured, opened.works), QUALITY)
    assert contents(index) == before
