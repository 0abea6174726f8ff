"""Works that are mapped and works that are read answer the same, and the files are the same bytes if made again."""

import random
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from das import lookups
from das.errors import IndexFormatError, WorksError
from das.index import WORKS_NAME, AttributionIndex
from das.lookups import Grouping, contents_of, write_table
from das.manifest import list_files
from das.works import COLUMNS, Works

COUNT = 150_000


def many_works(count: int = COUNT) -> pa.Table:
    """Works of more than one batch, with texts of every kind."""
    rng = random.Random(0)
    creators = [rng.choice(["Ada", "Eve", "", None, "Zoë", "ada"]) for _ in range(count)]
    holders = [rng.choice([None, "Ada 60%; Eve 40%", "Eve"]) for _ in range(count)]
    ids = [f"w_{number:08x}" for number in rng.sample(range(2**32), count - 2)]
    columns = {name: pa.nulls(count, pa.string()) for name in COLUMNS} | {
        "id": pa.array([*ids, "w_ö", "w_𝄞"]),
        "digest": pa.array([f"{number % (count - 5):064x}" for number in range(count)]),
        "creator": pa.array(creators, pa.string()),
        "rights_holder": pa.array(holders, pa.string()),
        "repeats": pa.array(range(count), pa.int64()),
        "camera": pa.array([rng.choice(["box", "phone"]) for _ in range(count)]).dictionary_encode(),
    }
    return pa.table(columns)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Works, Works]:
    """The same works, mapped and read."""
    folder = tmp_path_factory.mktemp("lookups")
    write_table(folder / WORKS_NAME, many_works())
    mapped = Works.open(folder / WORKS_NAME)
    (folder / "old").mkdir()
    shutil.copy(folder / WORKS_NAME, folder / "old")
    return mapped, Works.open(folder / "old" / WORKS_NAME)


def test_mapped_works_are_those_of_the_parquet(both: tuple[Works, Works]) -> None:
    mapped, read = both
    assert mapped.table["creator"].num_chunks > 1
    assert len(mapped) == len(read) == COUNT
    for row in (0, 65_535, 65_536, COUNT - 1):
        assert mapped.row(row) == read.row(row)
    assert mapped.creators == read.creators
    assert mapped.row(5)["camera"] in ("box", "phone")


def test_works_are_found_by_id_however_it_is_spelled(both: tuple[Works, Works]) -> None:
    for works in both:
        ids = works.column("id")
        for row in (0, 1, 77_777, COUNT - 2, COUNT - 1):
            assert works.find(ids[row]) == works.row_of(ids[row]) == row
        for unknown in ("", "w_", "w_zz", "\uffff", ids[0] + "-2"):
            assert works.find(unknown) is None
            with pytest.raises(KeyError):
                works.row_of(unknown)


@pytest.mark.parametrize("column", ["creator", "rights_holder"])
def test_groups_are_the_texts_in_the_order_of_their_first_works(
    both: tuple[Works, Works], column: str
) -> None:
    mapped, read = (works.grouping(column) for works in both)
    texts = [text or None for text in both[1].column(column)]
    names = list(dict.fromkeys(texts))
    assert mapped.names() == read.names() == names
    assert [mapped[code] for code in range(len(mapped))] == names
    expected = [names.index(text) for text in texts]
    np.testing.assert_array_equal(mapped.codes, expected)
    np.testing.assert_array_equal(read.codes, expected)
    assert isinstance(mapped.codes, np.memmap)


def test_contents_are_counted_alike(both: tuple[Works, Works]) -> None:
    mapped, read = both
    np.testing.assert_array_equal(mapped.contents, read.contents)
    assert mapped.contents.max() + 1 == COUNT - 5
    assert mapped.contents[0] == mapped.contents[COUNT - 5]


def test_a_column_of_numbers_or_of_nothing_has_groups_too() -> None:
    numbers = Grouping.of(pa.chunked_array([[3, None], [3, 5]]))
    assert (numbers.names(), numbers.codes.tolist()) == ([3, None, 5], [0, 1, 0, 2])
    nothing = Grouping.of(pa.chunked_array([pa.nulls(3, pa.string())]))
    assert (nothing.names(), nothing.codes.tolist()) == ([None], [0, 0, 0])
    assert len(Grouping.of(pa.chunked_array([], pa.string()))) == 0


def test_the_files_follow_from_the_parquet_alone(tmp_path: Path) -> None:
    table = many_works(1000)
    write_table(tmp_path / "one" / WORKS_NAME, table)
    again = pq.read_table(tmp_path / "one" / WORKS_NAME)
    write_table(tmp_path / "two" / WORKS_NAME, again)
    for name in list_files(tmp_path / "one" / lookups.FOLDER):
        first, second = (tmp_path / side / lookups.FOLDER / name for side in ("one", "two"))
        assert first.read_bytes() == second.read_bytes(), name


def test_what_doesnt_fit_is_said(tmp_path: Path) -> None:
    path = tmp_path / WORKS_NAME
    write_table(path, many_works(100))
    folder = tmp_path / lookups.FOLDER
    np.save(folder / "creator.npy", np.zeros(99, np.int32))
    with pytest.raises(WorksError, match=r"creator\.npy isn't of 100 works"):
        Works.open(path)
    (folder / "by-id.npy").unlink()
    with pytest.raises(WorksError, match="can't be read"):
        Works.open(path)
    for damaged in (b"", b"ARROW1\0\0", (folder / "table.arrow").read_bytes()[:-40]):
        (folder / "table.arrow").write_bytes(damaged)
        with pytest.raises(WorksError, match="can't be read as a table of works"):
            Works.open(path)


def test_an_index_from_before_opens_and_answers_the_same(tiny_index: Path, tmp_path: Path) -> None:
    new = AttributionIndex.open(tiny_index)
    assert {f"works/{name}" for name in ("table.arrow", "by-id.npy", "creator.npy")} < set(new.manifest.files)
    (tmp_path / "works.parquet").write_bytes((tiny_index / WORKS_NAME).read_bytes())
    old = AttributionIndex(tiny_index, new.manifest, Works.open(tmp_path / "works.parquet"))
    np.testing.assert_array_equal(old.content_repeats(), new.content_repeats())
    assert [old.works.row(row) for row in range(40)] == [new.works.row(row) for row in range(40)]
    assert contents_of(old.works.table).tolist() == new.works.contents.tolist()


def test_an_index_that_lost_a_look_up_isnt_opened(tiny_index: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_index, tmp_path / "copy"))
    (copy / lookups.FOLDER / "creator.npy").unlink()
    with pytest.raises(IndexFormatError, match=r"lacks works/creator\.npy"):
        AttributionIndex.open(copy)
