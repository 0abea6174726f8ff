"""Works that come to an index and go from it: the same as building, what is refused, what is told."""

import csv
import json
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from das import durable
from das.attribution import Attributor
from das.changes import digest_of_id
from das.cli import build_app
from das.config import PRESETS, BuildConfig, ClipSpec
from das.errors import BuildError, DasError, IndexFormatError, SettingsError
from das.images import ImageLimits
from das.index import AttributionIndex
from das.manifest import list_files
from das.screening import Screen
from das.versions import versions_in
from das.works import file_digest
from index_build.build import build
from index_build.changing import add, remove
from index_build.chosen import choose
from index_build.workspace import building_path
from tests.conftest import make_picture, make_works
from tests.index_build.synthetic import dampings_of, fix_dampings

WORKS = 14
GONE = [2, 7, 12]
PRESETS_AND_MORE: dict[str, dict[str, Any]] = {
    "default": PRESETS["default"] | {"dimension": 64},
    "economical": PRESETS["economical"] | {"dimension": 64},
    "estimators": {
        "methods": (
            "das-block",
            "das",
            "trak",
            "relative-influence",
            "gradient-cosine",
            "clip-dot",
            "pixel-cosine",
        ),
        "probes": ("loss",),
        "timesteps": (100, 500),
        "dimension": 48,
    },
}
# Of the largest score; eight bits keep about two digits.
ROUNDING = {"default": 0.01, "economical": 0.1, "estimators": 0.01}
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def works(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("changing") / "works"
    make_works(path, WORKS)
    return path


@pytest.fixture(scope="module")
def options(works: Path, tiny_model: Path, tiny_clip: Path) -> dict[str, Any]:
    return {
        "name": "shelf",
        "model": str(tiny_model),
        "works": works,
        "shard_size": 4,
        "clip": ClipSpec(directory=tiny_clip),
    }


@pytest.fixture(scope="module")
def built(
    options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], AttributionIndex]:
    """The index of all works with the options of a name of `PRESETS_AND_MORE`; made once."""
    found: dict[str, AttributionIndex] = {}

    def built(name: str) -> AttributionIndex:
        if name not in found:
            out = tmp_path_factory.mktemp("built") / "index"
            build(BuildConfig(**(options | PRESETS_AND_MORE[name])), out)
            found[name] = AttributionIndex.open(out)
        return found[name]

    return built


@pytest.fixture(scope="module")
def run() -> Run:
    def run(*words: object, **given: Any) -> Result:
        result = CliRunner().invoke(build_app(), [str(word) for word in words], **given)
        if isinstance(result.exception, DasError):
            raise result.exception
        return result

    return run


def part(works: Path, out: Path, rows: list[int]) -> Path:
    """A folder of some of the works, with their metadata."""
    out.mkdir()
    names = {f"work-{row:03d}.png" for row in rows}
    with (
        (works / "metadata.csv").open(newline="") as stream,
        (out / "metadata.csv").open("w", newline="") as told,
    ):
        reader = csv.DictReader(stream)
        writer = csv.DictWriter(told, reader.fieldnames or [])
        writer.writeheader()
        writer.writerows(row for row in reader if row["file_name"] in names)
    for name in names:
        shutil.copy(works / name, out / name)
    return out


def opened(out: Path) -> AttributionIndex:
    index = AttributionIndex.open(out)
    assert index.verify().ok
    return index


def ids(index: AttributionIndex, rows: list[int]) -> list[str]:
    return [index.works.id_of(row) for row in rows]


def removed(index: AttributionIndex, rows: list[int], out: Path, **options: Any) -> AttributionIndex:
    assert remove(index, np.array(rows), out, **options).state == "made"
    return opened(out)


def rebuilt(
    options: dict[str, Any], out: Path, like: AttributionIndex, monkeypatch: pytest.MonkeyPatch
) -> AttributionIndex:
    """A build at the λ of `like`."""
    config = BuildConfig(**options)
    with monkeypatch.context() as patched:
        fix_dampings(patched, config, dampings_of(like.manifest.kernels))
        build(config, out)
    return AttributionIndex.open(out)


def compare(version: AttributionIndex, fresh: AttributionIndex, rounding: float) -> None:
    """Scores of every method, and all else that is told of works."""
    pictures = [make_picture(number) for number in (0, 2, 5, 100, 101)]
    asked, expected = Attributor(version), Attributor(fresh)
    rows = [fresh.works.row_of(work_id) for work_id in version.works.column("id")]
    assert sorted(rows) == list(range(len(fresh)))
    for method in version.methods:
        found, theirs = asked.scores(pictures, method), expected.scores(pictures, method)[:, rows]
        for ours, other in zip(found, theirs, strict=True):
            scale = np.abs(other).max()
            np.testing.assert_allclose(ours, other, atol=rounding * scale)
            # Works whose scores are apart by more than rounding are in the same order.
            order = other.argsort()[::-1]
            apart = np.diff(other[order]) < -2 * rounding * scale
            assert (np.diff(ours[order])[apart] < 0).all()
    for row, other in enumerate(rows):
        about = version.works.row(row)
        assert about == fresh.works.row(other)
        assert version.thumbnail(row) == fresh.thumbnail(other)
    np.testing.assert_array_equal(version.hashes, np.asarray(fresh.hashes)[rows])
    np.testing.assert_allclose(version.embeddings, fresh.embeddings[rows], atol=1e-5)
    np.testing.assert_allclose(version.embedding_norms, fresh.embedding_norms[rows], rtol=1e-4)
    nearest, _ = Screen.open(version.path).nearest(np.asarray(fresh.embeddings[rows[-1]]), 1)
    assert nearest.tolist() == [len(version) - 1]


@pytest.mark.parametrize("name", PRESETS_AND_MORE)
def test_removing_and_adding_agree_with_a_build(
    name: str,
    built: Callable[[str], AttributionIndex],
    options: dict[str, Any],
    works: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One of those that go was trained on three times; what comes back is behind the others, and all is as it was."""
    index, rounding = built(name), ROUNDING[name]
    before = {file: file_digest(index.path / file) for file in list_files(index.path)}
    without = removed(index, GONE, tmp_path / "without")
    rest = part(works, tmp_path / "rest", [row for row in range(WORKS) if row not in GONE])
    chosen = options | PRESETS_AND_MORE[name]
    compare(without, rebuilt(chosen | {"works": rest}, tmp_path / "fresh", index, monkeypatch), rounding)
    assert without.manifest.works.trained == index.manifest.works.trained - 5
    told = Told()
    # What was removed stays out of a version to which its whole folder is added, unless that is said.
    assert add(without, works, tmp_path / "none", reporter=told).changed == 0
    assert any("were removed from" in said and "--again" in said for said in told.said), told.said
    assert not (tmp_path / "none").exists()
    assert add(without, works, tmp_path / "back", again=True).changed == len(GONE)
    back = opened(tmp_path / "back")
    compare(back, index, rounding)
    assert back.manifest.removed == 0
    assert [change.kind for change in back.manifest.changes] == ["removed", "added"]
    assert back.manifest.changes[1].parent == without.id != index.id
    # An index never changes.
    assert {file: file_digest(index.path / file) for file in list_files(index.path)} == before


def test_a_version_of_a_version_finds_pictures_that_came_from_elsewhere(
    built: Callable[[str], AttributionIndex], tmp_path: Path
) -> None:
    """Added from a second folder, then removed again; other works of the first folder with it."""
    index = built("economical")
    folder = tmp_path / "further"
    folder.mkdir()
    for number in (50, 51, 52):
        Image.fromarray(make_picture(number)).save(folder / f"further-{number}.png")
    add(index, folder, tmp_path / "more")
    more = opened(tmp_path / "more")
    assert len(more) == WORKS + 3
    assert more.works.column("creator")[-1] is None
    without = removed(more, [0, WORKS + 1], tmp_path / "without")
    assert without.works.column("file")[-2:] == ["further-50.png", "further-52.png"]
    answer = Attributor(without).attribute(make_picture(52))
    assert answer.works[0].work_id == without.works.id_of(len(without) - 1)


def test_a_removal_can_be_shown_and_names_nobody(
    built: Callable[[str], AttributionIndex], run: Run, works: Path, tmp_path: Path
) -> None:
    index, out = built("economical"), tmp_path / "without"
    creator = "Anna Atkins"
    gone = [row for row in range(WORKS) if index.works.creators[row] == creator]
    result = run("index", "remove", index.path, "--creator", creator.upper(), "--out", out, "--json")
    assert result.exit_code == 0
    said = json.loads(result.stdout.splitlines()[-1])
    assert (said["state"], said["removed"], said["works"]) == ("made", len(gone), WORKS - len(gone))
    version = opened(out)
    assert said["index"] == version.id
    digests = (out / "removed.txt").read_text().split()
    assert digests == sorted(digest_of_id(work_id) for work_id in ids(index, gone))
    for file in list_files(out):
        data = (out / file).read_bytes()
        assert creator.encode() not in data, file
        assert not any(index.works.id_of(row).encode() in data for row in gone), file
        assert not any(index.thumbnail(row) in data for row in gone), file
    shown = run(
        "index", "removed", out, index.works.id_of(gone[0]), works / f"work-{gone[1]:03d}.png", "--json"
    )
    assert list(json.loads(shown.stdout)["works"].values()) == ["removed", "removed"]
    assert shown.exit_code == 0
    still = run("index", "removed", out, index.works.id_of(0), "w_0000000000000000")
    assert still.exit_code == 1
    assert f"{index.works.id_of(0)} is in {version.id}" in still.stdout
    assert f"w_0000000000000000 isn't in, and wasn't removed from, {version.id}" in still.stdout
    assert f"of {index.id}" in run("index", "removed", out).stdout


def test_answers_and_card_say_what_is_left_out(
    built: Callable[[str], AttributionIndex], run: Run, tmp_path: Path
) -> None:
    without = removed(built("economical"), GONE, tmp_path / "without")
    caveats = Attributor(without).attribute(make_picture(2)).caveats
    assert any("left out of this index (3)" in said for said in caveats)
    assert "Left out, though the model was trained on them: 3 works" in without.card
    assert "3 works removed, of the 14" in without.card
    for command in ("info", "card", "summary", "verify"):
        assert run("index", command, without.path).exit_code == 0
    assert "3 works left out" in run("index", "info", without.path).stdout
    assert "though the model was trained on them: 3 pictures" in run("index", "summary", without.path).stdout
    assert without.manifest.quality is None


def test_lists_of_works_are_read_as_they_are_written(
    built: Callable[[str], AttributionIndex], tmp_path: Path
) -> None:
    """What `das opt-outs export` writes, JSON, and ids alone; named twice, or of another index, or gone before."""
    index = built("economical")
    first, second = ids(index, [3, 4])
    table = tmp_path / "list.csv"
    table.write_text(
        "index,work_id,file,sha256,creator,opt_out\r\n"
        f"shelf,{first},work-003.png,00,Ada,opt_1\r\n"
        f"other,w_ffffffffffffffff,x.png,00,,opt_1\r\n"
        f'{index.id},{first},work-003.png,00,"Ada, the",opt_2\r\n'
    )
    chosen = choose(index, [table, table])
    assert (chosen.rows.tolist(), chosen.elsewhere, chosen.gone) == ([3], 2, 0)
    lines = tmp_path / "list.jsonl"
    lines.write_text(json.dumps({"index": "shelf", "work_id": second}) + "\n\n")
    plain = tmp_path / "list.txt"
    plain.write_text(f"\ufeff{second}\n\n  {first}\n")
    assert choose(index, [lines]).rows.tolist() == [4]
    assert choose(index, [plain, lines]).rows.tolist() == [3, 4]
    assert choose(index, groups=["Group  1"], creators=["hokusai"]).rows.tolist() == [1, 2, 5, 8, 9, 11, 13]
    # In another of Unicode's forms.
    assert (
        choose(index, creators=["Ｈｏｋｕｓａｉ"]).rows.tolist()
        == choose(index, creators=["hokusai"]).rows.tolist()
    )
    # As spreadsheets write it, and with what people leave around it.
    for text in (f'"work_id","index"\n"{first}","shelf"\n', f"\n\nindex , work_id \nshelf,{first}\n"):
        quoted = tmp_path / "quoted.csv"
        quoted.write_text(text)
        assert choose(index, [quoted]).rows.tolist() == [3]
    without = removed(index, [3], tmp_path / "without")
    again = choose(without, [table])
    assert (again.rows.tolist(), again.elsewhere, again.gone) == ([], 1, 2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("w_0123456789abcdef\nw_1123456789abcdef\n", r"no work w_0123456789abcdef \(.* line 1\), and 1 more"),
        ("a,b\n1,2\n", "line 1 isn't one id of a work"),
        ("w_0123456789abcdef;shelf\n", "line 1 isn't one id of a work"),
        ('"index";"work_id"\n"shelf";"w_1"\n', "separated by semicolons.* by commas"),
        ("work_id\tindex\nw_1\tshelf\n", "separated by tabs.* by commas"),
        ("", "is empty: it names no work"),
        ("\n \n", "is empty: it names no work"),
        ("work_id\n\n,\n", "has no work_id"),
        ('{"work": 1}\n', "isn't a JSON object with a work_id"),
        ("{oh\n", "isn't JSON"),
        (b"\xff\xfe\x00", "isn't UTF-8"),
        ('work_id,index\n"w_1', "can't be read as CSV"),
    ],
)
def test_lists_that_make_no_sense_are_refused(
    text: str | bytes, said: str, built: Callable[[str], AttributionIndex], tmp_path: Path
) -> None:
    file = tmp_path / "list"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SettingsError, match=said):
        choose(built("economical"), [file])


def test_what_cant_go_is_refused(built: Callable[[str], AttributionIndex], tmp_path: Path) -> None:
    index = built("economical")
    everything = tmp_path / "list"
    everything.write_text("\n".join(ids(index, list(range(WORKS - 1)))))
    with pytest.raises(SettingsError, match=r"leave 1 of the 14 works"):
        choose(index, [everything])
    with pytest.raises(SettingsError, match=r"leave 0 of the 14 works"):
        remove(index, np.arange(WORKS), tmp_path / "out")
    with pytest.raises(SettingsError, match="--creator 'Nobody'"):
        choose(index, creators=["Nobody"])
    with pytest.raises(SettingsError, match="--group ''"):
        choose(index, groups=[""])
    with pytest.raises(SettingsError, match="say which works shall go"):
        choose(index)
    with pytest.raises(SettingsError, match="can't be read: No such file"):
        choose(index, [tmp_path / "nowhere"])


def test_nothing_to_do_makes_nothing(
    built: Callable[[str], AttributionIndex], run: Run, works: Path, tmp_path: Path
) -> None:
    index, out = built("economical"), tmp_path / "out"
    empty = "index,work_id,file,sha256,creator,opt_out\r\n"
    result = run("index", "remove", index.path, "--works", "-", "--out", out, input=empty)
    assert result.exit_code == 0
    assert "there is no work to be removed" in result.stdout
    assert (
        "there is no work to be added"
        in run("index", "add", index.path, "--works", works, "--out", out).stdout
    )
    assert not out.exists()
    assert not building_path(out).exists()


def test_the_same_command_finds_its_version_and_another_is_refused(
    built: Callable[[str], AttributionIndex], tmp_path: Path
) -> None:
    index, out = built("economical"), tmp_path / "out"
    made = remove(index, np.array([1]), out)
    assert remove(index, np.array([1]), out) == made.__class__(
        out.resolve(), made.index_id, index.id, "present", WORKS - 1, 1
    )
    with pytest.raises(BuildError, match="holds another index"):
        remove(index, np.array([2]), out)
    with pytest.raises(BuildError, match="an index never changes"):
        remove(index, np.array([2]), index.path)
    with pytest.raises(BuildError, match="an index never changes"):
        remove(index, np.array([2]), index.path / "inside")


def test_pictures_are_found_by_their_bytes_or_asked_for(
    built: Callable[[str], AttributionIndex], works: Path, tmp_path: Path
) -> None:
    index = built("economical")
    moved = tmp_path / "moved"
    moved.mkdir()
    shutil.copy(works / "work-005.png", moved / "another name.png")
    without = removed(index, [5], tmp_path / "without", pictures=moved)
    assert len(without) == WORKS - 1
    with pytest.raises(
        BuildError, match=r"(?s)pictures of 1 of the 2 works.*--pictures DIR.*can only be hidden"
    ):
        remove(index, np.array([5, 6]), tmp_path / "other", pictures=moved)
    assert not (tmp_path / "other").exists()
    # Of a work that came and whose picture went, the folder is named once, though it was read twice.
    folder = tmp_path / "further"
    for number in (63, 64):
        folder.mkdir(exist_ok=True)
        Image.fromarray(make_picture(number)).save(folder / f"{number}.png")
        add(index, folder, tmp_path / f"with-{number}")
        index = opened(tmp_path / f"with-{number}")
    shutil.rmtree(folder)
    with pytest.raises(BuildError, match=f"aren't in {works} or {folder}, such as"):
        remove(index, np.array([len(index) - 1]), tmp_path / "other")


def test_without_the_model_works_can_only_be_hidden(
    options: dict[str, Any], tiny_model: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    chosen = options | PRESETS["economical"] | {"dimension": 16, "model": str(model), "clip": None}
    build(BuildConfig(**chosen), tmp_path / "index")
    shutil.rmtree(model)
    with pytest.raises(BuildError, match=r"(?s)no longer at .*can only be hidden"):
        remove(AttributionIndex.open(tmp_path / "index"), np.array([1]), tmp_path / "out")


def test_inner_products_alone_need_neither_picture_nor_model(
    options: dict[str, Any], works: Path, tiny_model: Path, tmp_path: Path
) -> None:
    model, source = tmp_path / "model", tmp_path / "works"
    shutil.copytree(tiny_model, model)
    shutil.copytree(works, source)
    chosen = options | {"model": str(model), "works": source, "methods": ("gradient-dot",), "clip": None}
    build(BuildConfig(**chosen, timesteps=(100,), dimension=16), tmp_path / "index")
    index = AttributionIndex.open(tmp_path / "index")
    before = Attributor(index).scores([make_picture(3)])
    shutil.rmtree(source)
    model.rename(tmp_path / "moved")
    without = removed(index, [0], tmp_path / "out")
    found = Attributor(without, model=str(tmp_path / "moved")).scores([make_picture(3)])
    np.testing.assert_allclose(found, before[:, 1:], rtol=1e-6)


def test_copies_that_stay_are_told_of_and_keep_their_ids(
    options: dict[str, Any], works: Path, tmp_path: Path
) -> None:
    source = tmp_path / "works"
    shutil.copytree(works, source)
    shutil.copy(source / "work-000.png", source / "x.png")
    shutil.copy(source / "work-000.png", source / "y.png")
    chosen = options | PRESETS["economical"] | {"dimension": 16, "works": source, "clip": None}
    build(BuildConfig(**chosen), tmp_path / "index")
    index = AttributionIndex.open(tmp_path / "index")
    stem = index.works.id_of(0)
    assert index.works.column("id")[-2:] == [f"{stem}-2", f"{stem}-3"]
    told = Told()
    without = removed(index, [0, WORKS + 1], tmp_path / "without", reporter=told)
    assert without.works.column("id")[-1] == f"{stem}-2"
    assert any("1 works that stay have the same bytes" in said for said in told.said)
    # The folder has three of them, the version one: two come back, under the ids that are free.
    assert add(without, source, tmp_path / "back").changed == 0
    assert add(without, source, tmp_path / "back", again=True).changed == 2
    assert sorted(opened(tmp_path / "back").works.column("id")) == sorted(index.works.column("id"))


def test_a_version_of_an_older_one_tells_what_it_takes_the_place_of(
    built: Callable[[str], AttributionIndex], run: Run, tmp_path: Path
) -> None:
    first = tmp_path / "shelf"
    shutil.copytree(built("economical").path, first)
    index = AttributionIndex.open(first)
    told = Told()
    newer = remove(index, np.array([1, 2]), tmp_path / "shelf-2", reporter=told)
    assert newer.later == ()
    assert not any("newer than" in said for said in told.said)
    # Of the first again: what left is back, but for what leaves here too.
    result = run(
        *("index", "remove", first, "--works", "-", "--out", tmp_path / "shelf-3", "--json"),
        input=ids(index, [2])[0],
    )
    answer = json.loads(result.stdout)
    assert (answer["state"], answer["in_place_of"]) == ("made", [newer.index_id])
    assert f"shelf-2 is {newer.index_id}, which is newer than {index.id}" in result.stderr
    assert "undone, 1 work removed there included" in result.stderr
    assert versions_in([tmp_path / "shelf-2", tmp_path / "shelf-3"]).newest[0].id == answer["index"]
    # Elsewhere it takes no place, and neither does one that is made of the newest.
    folder = tmp_path / "further"
    folder.mkdir()
    Image.fromarray(make_picture(62)).save(folder / "one.png")
    assert add(index, folder, tmp_path / "elsewhere" / "shelf").later == ()
    newest = AttributionIndex.open(tmp_path / "shelf-3")
    assert add(newest, folder, tmp_path / "shelf-4", reporter=told).later == ()
    said = run("index", "add", tmp_path / "shelf-2", "--works", folder, "--out", tmp_path / "shelf-5").stdout
    assert f"served in the place of {AttributionIndex.open(tmp_path / 'shelf-4').id}, {newest.id}" in said


def test_works_that_cant_be_read_dont_come(
    built: Callable[[str], AttributionIndex], run: Run, tmp_path: Path
) -> None:
    index = built("economical")
    folder = tmp_path / "further"
    folder.mkdir()
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    Image.fromarray(make_picture(60)).save(folder / "whole.png")
    with pytest.raises(BuildError, match="--strict is on"):
        add(index, folder, tmp_path / "strict", strict=True)
    result = run("index", "add", index.path, "--works", folder, "--out", tmp_path / "some")
    assert "broken.png" in result.stdout
    assert f"{WORKS + 1} works, 1 added" in result.stdout
    with pytest.raises(BuildError, match="is there already, without 1 of these works"):
        add(index, folder, tmp_path / "some", strict=True)
    report = json.loads((tmp_path / "some" / "build-report.json").read_bytes())
    assert [entry["file"] for entry in report["unreadable"]] == ["broken.png"]
    assert report["taken"]["works"] == WORKS + 1


def test_a_folder_with_nothing_new_but_what_cant_be_read_is_no_error(
    built: Callable[[str], AttributionIndex], run: Run, works: Path, tmp_path: Path
) -> None:
    index, out = built("economical"), tmp_path / "out"
    folder = tmp_path / "further"
    shutil.copytree(works, folder)
    (folder / "z.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    result = run("index", "add", index.path, "--works", folder, "--out", out)
    assert result.exit_code == 0
    assert "z.png: " in result.stdout
    assert "there is no work to be added" in result.stdout
    answer = json.loads(run("index", "add", index.path, "--works", folder, "--out", out, "--json").stdout)
    assert (answer["state"], answer["path"]) == ("unchanged", None)
    assert [entry["file"] for entry in answer["unreadable"]] == ["z.png"]
    assert not building_path(out).exists()
    with pytest.raises(BuildError, match="--strict is on"):
        add(index, folder, out, strict=True)
    # Copied again, as told, it comes.
    Image.fromarray(make_picture(60)).save(folder / "z.png")
    assert add(index, folder, out, strict=True).changed == 1


def test_what_cant_go_may_be_left_off_the_list_and_the_rest_goes(
    options: dict[str, Any], works: Path, tmp_path: Path
) -> None:
    source, out = tmp_path / "works", tmp_path / "out"
    shutil.copytree(works, source)
    chosen = options | PRESETS["economical"] | {"dimension": 16, "works": source, "clip": None}
    build(BuildConfig(**chosen), tmp_path / "index")
    index = AttributionIndex.open(tmp_path / "index")
    with pytest.MonkeyPatch.context() as patched:
        # A picture that das could read once: the limits of a later version are others.
        patched.setattr("index_build.pictures.WORK_LIMITS", ImageLimits(max_pixels=1))
        with pytest.raises(BuildError, match="leave it off the list"):
            remove(index, np.array([1, 2]), out)
    assert len(removed(index, [2], out)) == WORKS - 1


def test_further_columns_of_another_type_become_text(
    built: Callable[[str], AttributionIndex], tmp_path: Path
) -> None:
    index = built("economical")
    folder = tmp_path / "further"
    folder.mkdir()
    Image.fromarray(make_picture(61)).save(folder / "one.png")
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "one.png", "camera": 7, "lens": 35}))
    add(index, folder, tmp_path / "more")
    table = opened(tmp_path / "more").works.table
    assert table["camera"].to_pylist()[-2:] == ["box", "7"]
    assert table["lens"].to_pylist()[-2:] == [None, 35]


def test_a_damaged_index_is_refused(built: Callable[[str], AttributionIndex], tmp_path: Path) -> None:
    path = tmp_path / "index"
    shutil.copytree(built("economical").path, path)
    file = path / "features" / "activation" / "shard-00001.npy"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(IndexFormatError, match=r"shard-00001\.npy is damaged"):
        remove(AttributionIndex.open(path), np.array([1]), tmp_path / "out")


def test_an_interrupted_version_goes_on(
    built: Callable[[str], AttributionIndex], works: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped before each of its writes in turn, twice at some, and while it is published: nothing is broken."""
    index, out = built("economical"), tmp_path / "out"
    replace, rename = Path.replace, Path.rename
    left = 0

    class Stopped(Exception):
        pass

    def stopping(path: Path, target: Path) -> Path:
        nonlocal left
        left -= 1
        if left < 0:
            raise Stopped
        return replace(path, target)

    def never(path: Path, target: Path) -> Path:
        raise Stopped

    expected = removed(index, GONE, tmp_path / "whole")
    stopped = 0
    monkeypatch.setattr(Path, "replace", stopping)
    for moment in (0, 1, 3, 3, 5, 8, 11, 14, 14, 17):
        left = moment
        with pytest.raises(Stopped):
            remove(index, np.array(GONE), out)
        assert not out.exists()
        stopped += 1
    monkeypatch.setattr(Path, "replace", replace)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", never)
        with pytest.raises(Stopped):
            remove(index, np.array(GONE), out)
    assert not out.exists()
    assert Path.rename is rename
    assert stopped == 10
    result = remove(index, np.array(GONE), out)
    assert result.state == "present"
    assert result.index_id == expected.id == opened(out).id
    assert not building_path(out).exists()
    assert not out.with_name("out.lock").exists()


def test_a_full_disk_is_said(built: Callable[[str], AttributionIndex], tmp_path: Path) -> None:
    """Files may not grow beyond a limit, as on a full disk; afterwards the same command goes on."""
    index, out = built("economical"), tmp_path / "out"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (100, 9_000, 33_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            with pytest.raises(BuildError, match=r"is full|couldn't be written") as refused:
                remove(index, np.array([1]), out)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert "run the same command again" in str(refused.value)
        assert not out.exists()
    assert len(removed(index, [1], out)) == WORKS - 1


def test_two_at_once_at_one_place_are_one_after_the_other(
    built: Callable[[str], AttributionIndex], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with (
        durable.lock(out.with_name("out.lock")),
        pytest.raises(BuildError, match="another build is writing here"),
    ):
        remove(built("economical"), np.array([1]), out)


class Told:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        from index_build.progress import QuietReporter

        self.said: list[str] = []
        self.stage = QuietReporter().stage

    def say(self, message: str) -> None:
        self.said.append(message)

    def warn(self, message: str) -> None:
        self.said.append(message)
