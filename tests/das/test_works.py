import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from das.errors import WorksError
from das.works import COLUMNS, Works, assign_ids, file_digest, read_works


def put(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def codes(source) -> dict[str, str]:
    return {remark.file: remark.code for remark in (*source.left_out, *source.remarks)}


def test_a_folder_without_metadata_is_read_recursively_in_the_order_of_paths(tmp_path: Path) -> None:
    put(tmp_path, "b.png", "a/z.JPEG", "a/deeper/x.webp", ".hidden.png", ".cache/y.png", "notes.txt")
    source = read_works(tmp_path)
    assert source.table["file"].to_pylist() == ["a/deeper/x.webp", "a/z.JPEG", "b.png"]
    assert source.table["repeats"].to_pylist() == [1, 1, 1]
    assert source.table["title"].to_pylist() == [None] * 3
    assert codes(source) == {"notes.txt": "not-an-image", ".hidden.png": "hidden", ".cache": "hidden"}
    assert source.paths[1] == tmp_path / "a/z.JPEG"


def test_csv_with_a_byte_order_mark_aliases_and_further_columns(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "b.png", "c.png")
    (tmp_path / "metadata.csv").write_text(
        'file_name,title,creator,license,repeats,camera,id\r\na.png,"One, two",Ada,CC0,3,box,77\r\nb.png,,,,,,\r\n',
        encoding="utf-8-sig",
    )
    source = read_works(tmp_path)
    first, second, third = source.table.to_pylist()
    assert first["title"] == "One, two"
    assert first["licence"] == "CC0"
    assert "license" not in first
    assert (first["repeats"], second["repeats"], third["repeats"]) == (3, 1, 1)
    assert (first["camera"], first["source_id"]) == ("box", "77")
    assert second["creator"] is None
    assert codes(source) == {"c.png": "no-metadata"}


def test_jsonl_keeps_types_of_further_columns(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "b.png")
    rows = [
        {"file_name": "a.png", "year": 1843, "tags": ["x", "y"], "score": 0.5, "title": 7, "huge": 2**70},
        {"file_name": "./b.png", "year": None, "prompt": "a cat", "repeats": 2.0},
    ]
    (tmp_path / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    table = read_works(tmp_path).table
    assert table["year"].to_pylist() == [1843, None]
    assert table["tags"].to_pylist() == ['["x", "y"]', None]
    assert table["score"].to_pylist() == [0.5, None]
    assert table["title"].to_pylist() == ["7", None]
    assert table["huge"].to_pylist() == [str(2**70), None]
    assert table["repeats"].to_pylist() == [1, 2]
    assert table["prompt"].to_pylist() == [None, "a cat"]


def test_metadata_in_subfolders_is_relative_to_itself(tmp_path: Path) -> None:
    put(tmp_path, "top.png", "set/a.png", "set/deep/b.png")
    (tmp_path / "metadata.csv").write_text("file_name,title\ntop.png,Top\n")
    (tmp_path / "set/metadata.jsonl").write_text(
        '{"file_name": "a.png", "title": "A"}\n{"file_name": "deep/b.png", "title": "B"}\n'
    )
    table = read_works(tmp_path).table
    assert dict(zip(table["file"].to_pylist(), table["title"].to_pylist(), strict=True)) == {
        "set/a.png": "A",
        "set/deep/b.png": "B",
        "top.png": "Top",
    }


def test_rows_without_files_are_reported(tmp_path: Path) -> None:
    put(tmp_path, "a.png")
    (tmp_path / "metadata.csv").write_text("file_name\na.png\ngone.png\n")
    source = read_works(tmp_path)
    assert len(source) == 1
    assert codes(source) == {"gone.png": "missing-file"}
    assert "metadata.csv line 3" in source.left_out[0].message


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ("file_name;title\na.png;A\n", "comma-separated"),
        ("name,title\na.png,A\n", "no column file_name; its columns are name, title"),
        ("file_name,title\na.png,A\na.png,B\n", r"line 3 names a\.png, which .*line 2 named already"),
        ("file_name,title\na.png,A\n./a.png,B\n", "named already"),
        ("file_name,title\n../a.png,A\n", "stay inside"),
        ("file_name,title\nx/../../a.png,A\n", "stay inside"),
        ("file_name,title\n/etc/passwd,A\n", "stay inside"),
        ("file_name,title\n,A\n", "has no file_name"),
        ("file_name,title\na.png,A,extra\n", "quote the fields"),
        ("file_name,title\na.png\n", "quote the fields"),
        ("file_name,title,title\na.png,A,B\n", "column title twice"),
        ("file_name,repeats\na.png,0\n", "1 or more"),
        ("file_name,repeats\na.png,2.5\n", "1 or more"),
        ("file_name,repeats\na.png,often\n", "1 or more"),
        ("file_name,license,licence\na.png,CC0,MIT\n", "differ"),
        ('file_name,title\na.png,"A\n', "can't be read as CSV"),
    ],
)
def test_metadata_that_cant_be_understood_is_refused(tmp_path: Path, metadata: str, message: str) -> None:
    put(tmp_path, "a.png")
    (tmp_path / "metadata.csv").write_text(metadata)
    with pytest.raises(WorksError, match=message):
        read_works(tmp_path)


def test_other_refusals_name_the_place(tmp_path: Path) -> None:
    with pytest.raises(WorksError, match="don't exist"):
        read_works(tmp_path / "nowhere")
    with pytest.raises(WorksError, match="holds no images"):
        read_works(tmp_path)
    put(tmp_path, "a.png")
    with pytest.raises(WorksError, match="neither a folder"):
        read_works(tmp_path / "a.png")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png"}\n{oops\n')
    with pytest.raises(WorksError, match=r"metadata\.jsonl line 2 isn't JSON"):
        read_works(tmp_path)
    (tmp_path / "metadata.csv").write_text("file_name\na.png\n")
    with pytest.raises(WorksError, match=r"both metadata\.csv and metadata\.jsonl"):
        read_works(tmp_path)
    (tmp_path / "metadata.jsonl").unlink()
    (tmp_path / "metadata.csv").write_bytes("file_name,title\na.png,Caf\xe9\n".encode("latin-1"))
    with pytest.raises(WorksError, match="save it as UTF-8"):
        read_works(tmp_path)


@pytest.mark.parametrize("column", ["file_name", "path"])
def test_a_parquet_of_paths_keeps_its_order(tmp_path: Path, column: str) -> None:
    put(tmp_path, "pictures/b.png", "pictures/a.png")
    table = pa.table(
        {
            column: ["pictures/b.png", "pictures/a.png", "gone.png"],
            "creator": ["B", None, "C"],
            "license": ["MIT", "CC0", None],
            "year": [1, 2, 3],
        }
    )
    pq.write_table(table, tmp_path / "works.parquet")
    source = read_works(tmp_path / "works.parquet")
    assert source.table["file"].to_pylist() == ["pictures/b.png", "pictures/a.png"]
    assert source.table["creator"].to_pylist() == ["B", None]
    assert source.table["licence"].to_pylist() == ["MIT", "CC0"]
    assert source.table["year"].to_pylist() == [1, 2]
    assert codes(source) == {"gone.png": "missing-file"}


def test_a_parquet_may_not_lead_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    put(tmp_path, "secret.png")
    pq.write_table(pa.table({"path": ["../secret.png"]}), tmp_path / "in/works.parquet")
    with pytest.raises(WorksError, match="stay inside"):
        read_works(tmp_path / "in/works.parquet")
    pq.write_table(pa.table({"where": ["a.png"]}), tmp_path / "in/works.parquet")
    with pytest.raises(WorksError, match=r"neither a column file_name nor path, .*; it has where"):
        read_works(tmp_path / "in/works.parquet")


def test_ids_come_from_the_bytes_and_duplicates_are_numbered(tmp_path: Path) -> None:
    put(tmp_path, "a.png")
    digest = file_digest(tmp_path / "a.png")
    assert digest == hashlib.sha256(b"a.png").hexdigest()
    other = "0" * 64
    assert assign_ids([digest, other, digest, digest]) == [
        f"w_{digest[:16]}",
        "w_0000000000000000",
        f"w_{digest[:16]}-2",
        f"w_{digest[:16]}-3",
    ]


def test_copies_of_a_file_are_found_by_any_of_their_ids() -> None:
    stem = "w_" + "0f" * 8
    ids = [f"{stem}-10", "w_" + "0e" * 8, stem, "w_" + "0f" * 7 + "10", f"{stem}-2"]
    columns = {name: pa.array([None] * len(ids), pa.string()) for name in COLUMNS}
    works = Works(pa.table(columns | {"id": pa.array(ids), "repeats": pa.array([1] * len(ids))}))
    for asked in (stem, f"{stem}-2", f"{stem}-7"):
        assert sorted(works.copies_of(asked)) == [0, 2, 4]
    assert works.copies_of(ids[1]) == [1]
    assert works.copies_of("w_" + "ff" * 8) == works.copies_of("w") == []


def test_works_look_up_rows_both_ways() -> None:
    columns = {name: pa.array([None, None], pa.string()) for name in COLUMNS}
    columns |= {
        "id": pa.array(["w_1", "w_2"]),
        "repeats": pa.array([1, 4]),
        "camera": pa.array(["box", None]),
    }
    works = Works(pa.table(columns))
    assert len(works) == 2
    assert works.row_of("w_2") == 1
    assert works.row(1)["repeats"] == 4
    assert works.row(0)["camera"] == "box"
    with pytest.raises(KeyError):
        works.row_of("w_3")
    with pytest.raises(IndexError):
        works.row(-1)
    with pytest.raises(WorksError, match="lacks the column"):
        Works(pa.table({"id": ["w_1"]}))
