"""`das index approximate`: what it makes answers nearly as the exact index does, and is whole."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import das.scoring
import index_build.approximating
from das.approximate import ApproximateSearch
from das.approximation import SAMPLE_NAME, search_name
from das.attribution import Attributor
from das.cli import build_app
from das.errors import BuildError, IndexFormatError, SettingsError
from das.index import AttributionIndex
from index_build.approximating import approximate
from index_build.changing import remove
from index_build.progress import QuietReporter
from tests.conftest import make_picture
from tests.rankings import assert_same_ranking

ManyWorks = Callable[[str], Path]
QUERIES = [make_picture(number) for number in (3, 7, 100, 101)]


@pytest.fixture(scope="module")
def searched(
    many_works: ManyWorks, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], AttributionIndex]:
    made: dict[str, AttributionIndex] = {}

    def searched(dtype: str) -> AttributionIndex:
        if dtype not in made:
            out = tmp_path_factory.mktemp("searched") / "index"
            approximate(AttributionIndex.open(many_works(dtype)), out, size=8, depth=400, sample=800)
            made[dtype] = AttributionIndex.open(out)
        return made[dtype]

    return searched


@pytest.mark.parametrize("dtype", ["int8", "float16"])
@pytest.mark.parametrize("mapped", [False, True])
def test_the_highest_works_are_found_with_their_exact_shares(
    searched: Callable[[str], AttributionIndex], dtype: str, mapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if mapped:
        monkeypatch.setattr(das.scoring, "IN_MEMORY_BYTES", 0)
    index = searched(dtype)
    assert index.verify().ok
    attributor = Attributor(index, threads=1)
    answers = attributor.attribute_batch(QUERIES)
    exact = attributor.attribute_batch(QUERIES, exact=True)
    hits = []
    for near, true in zip(answers, exact, strict=True):
        assert true.candidates.as_result() == {"mode": "all", "count": 3000}
        assert near.candidates.mode == "approximate"
        assert near.candidates.count == 3000
        assert 800 < (near.candidates.scored or 0) < 3000
        shares = {work.row: work.share for work in true.works}
        found = {work.row: work for work in near.works}
        hits.append(len(shares.keys() & found.keys()) / 20)
        for row in shares.keys() & found.keys():
            assert found[row].share == pytest.approx(shares[row], rel=1e-3)
        assert near.works[0].percentile == pytest.approx(true.works[0].percentile, abs=0.3)
        assert any("approximate search" in caveat for caveat in near.caveats)
        assert not any("approximate search" in caveat for caveat in true.caveats)
        for kind in ("creator", "rights_holder"):
            truth = {group.name: group for group in true.groups[kind]}
            assert sum(group.share for group in near.groups[kind]) == pytest.approx(1, abs=1e-6)
            for group in near.groups[kind]:
                same = truth[group.name]
                assert (group.works, group.share_of_index) == (same.works, same.share_of_index)
                assert group.low is not None
                assert group.high is not None
                assert group.low <= group.share <= group.high
    assert np.mean(hits) >= 0.95
    record = index.manifest.approximate
    assert record is not None
    assert record.recall >= 0.9
    assert (record.queries, record.asked) == (50, "works")


def test_the_sum_of_all_scores_needs_none_of_them(searched: Callable[[str], AttributionIndex]) -> None:
    index = searched("int8")
    record = index.manifest.approximate
    assert record is not None
    attributor = Attributor(index, threads=1)
    averages = attributor.averaged_features(QUERIES, "das-block")
    kernels = index.manifest.kernels_of("das-block")
    units = [kernel.mean_square or 1.0 for kernel in kernels]
    totals = ApproximateSearch.open(index, record).totals(attributor.mapped(averages, "das-block"), units)
    assert totals == pytest.approx(attributor.scores(QUERIES, "das-block").sum(1), rel=1e-4)


def test_of_all_works_in_the_sample_the_answer_is_the_exact_one(
    many_works: ManyWorks, tmp_path: Path
) -> None:
    approximate(AttributionIndex.open(many_works("float16")), tmp_path / "index", size=8, depth=400)
    attributor = Attributor(AttributionIndex.open(tmp_path / "index"), threads=1)
    near, true = attributor.attribute(QUERIES[0]), attributor.attribute(QUERIES[0], exact=True)
    assert_same_ranking(near.works, true.works)
    assert near.works[0].percentile == pytest.approx(true.works[0].percentile)
    shares = {group.name: group.share for group in true.groups["creator"]}
    for group in near.groups["creator"]:
        assert group.share == pytest.approx(shares[group.name], rel=1e-3)
        assert group.high - group.low < 1e-4  # type: ignore[operator]


def test_it_is_another_index_beside_its_parent(
    searched: Callable[[str], AttributionIndex], many_works: ManyWorks, tmp_path: Path
) -> None:
    parent, index = AttributionIndex.open(many_works("int8")), searched("int8")
    assert index.id != parent.id
    assert index.manifest.name == parent.manifest.name
    assert parent.verify().ok
    assert parent.manifest.approximate is None
    assert "## How works are found" in index.card
    assert "## How works are found" not in parent.card
    again = approximate(parent, index.path, size=8, depth=400, sample=800)
    assert (again.state, again.index_id) == ("present", index.id)
    with pytest.raises(BuildError, match="holds another index"):
        approximate(parent, index.path, size=8, depth=401, sample=800)
    with pytest.raises(SettingsError, match="has an approximate search already"):
        approximate(index, tmp_path / "twice")
    deeper = approximate(parent, tmp_path / "deeper", size=8, depth=401, sample=800)
    assert deeper.index_id not in (index.id, parent.id)


def test_damage_is_found_and_told(searched: Callable[[str], AttributionIndex], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(searched("int8").path, copy)
    path = copy / search_name("loss.unit" if (copy / "approximate/loss.unit").is_dir() else "loss")
    bytes_ = bytearray(path.read_bytes())
    bytes_[-1] ^= 1
    path.write_bytes(bytes_)
    assert [damage.file for damage in AttributionIndex.open(copy).verify().damages] == [
        path.relative_to(copy).as_posix()
    ]
    path.unlink()
    with pytest.raises(IndexFormatError, match=r"lacks approximate/.*search\.faiss"):
        AttributionIndex.open(copy)


def test_too_few_works_and_other_methods_are_refused(tiny_index: Path, tmp_path: Path) -> None:
    index = AttributionIndex.open(tiny_index)
    with pytest.raises(SettingsError, match="below 1,000"):
        approximate(index, tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_a_version_has_no_search_and_says_so(
    tiny_index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_build.approximating, "FEWEST_WORKS", 30)
    approximate(AttributionIndex.open(tiny_index), tmp_path / "searched", size=8)
    index = AttributionIndex.open(tmp_path / "searched")
    assert Attributor(index, threads=1).attribute(QUERIES[0]).candidates.mode == "approximate"
    assert Attributor(index, threads=1).attribute(QUERIES[0], method="das").candidates.mode == "all"
    some = Attributor(index, threads=1).attribute(QUERIES[0], candidates=[1, 5, 9])
    assert some.candidates.as_result() == {"mode": "screened", "count": 3}

    class Told(QuietReporter):
        said: tuple[str, ...] = ()

        def warn(self, message: str) -> None:
            self.said += (message,)

    told = Told()
    remove(index, np.array([5]), tmp_path / "version", reporter=told)
    version = AttributionIndex.open(tmp_path / "version")
    assert any("das index approximate makes one" in message for message in told.said)
    assert version.manifest.approximate is None
    assert not (version.path / "approximate").exists()
    assert version.verify().ok
    answer = Attributor(version, threads=1).attribute(QUERIES[0])
    assert answer.candidates.as_result() == {"mode": "all", "count": 39}
    # Features of a version keep the whitening of the build.
    approximate(version, tmp_path / "again", size=16)
    near = Attributor(AttributionIndex.open(tmp_path / "again"), threads=1).attribute(QUERIES[0])
    assert_same_ranking(near.works, answer.works)
    assert near.works[0].share == pytest.approx(answer.works[0].share, rel=1e-3)


def test_what_is_killed_leaves_the_index_and_begins_anew(
    many_works: ManyWorks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent, out = AttributionIndex.open(many_works("int8")), tmp_path / "index"

    class KilledError(BaseException):
        pass

    def die(*_: object) -> None:
        raise KilledError

    options = {"size": 4, "depth": 100, "sample": 500}
    with monkeypatch.context() as patched:
        patched.setattr(index_build.approximating, "sum_of_squares", die)
        with pytest.raises(KilledError):
            approximate(parent, out, **options)
    assert not out.exists()
    assert parent.verify().ok
    assert approximate(parent, out, **options).state == "made"
    assert AttributionIndex.open(out).verify().ok


def test_the_command_tells_what_was_found(many_works: ManyWorks, tmp_path: Path) -> None:
    out = tmp_path / "index"
    words = ["index", "approximate", many_works("int8"), "--out", out, "--bytes", 4, "--depth", 100]
    done = CliRunner().invoke(build_app(), [*map(str, words), "--sample", "500", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout.splitlines()[-1])
    assert (told["state"], told["bytes"], told["depth"], told["sample"]) == ("made", 4, 100, 500)
    assert 0 < told["recall"] <= 1
    assert np.load(out / SAMPLE_NAME).shape == (500,)
