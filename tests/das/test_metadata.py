"""Metadata of every kind that people and programs write: cut, left out or refused, and always said."""

import datetime
import json
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from das.errors import WorksError
from das.metadata import MAX_EXTRA, MAX_EXTRA_COLUMNS, MAX_NAME, MAX_PROMPT, NAME_COLUMNS
from das.works import COLUMNS, SourceWorks, Works, read_works


def source_of(folder: Path, *rows: dict[str, Any]) -> SourceWorks:
    for row in rows:
        (folder / row["file_name"]).write_bytes(b"x")
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return read_works(folder)


def said(source: SourceWorks) -> set[tuple[str, str]]:
    return {(remark.file, remark.code) for remark in source.remarks}


def test_values_that_are_too_long_are_cut_and_the_report_says_of_which_work(tmp_path: Path) -> None:
    long = "é" * 20_000
    fields = (*NAME_COLUMNS, "prompt", "camera")
    source = source_of(
        tmp_path,
        {"file_name": "a.png", **dict.fromkeys(fields, long), "tags": ["x" * 50] * 1000},
        {
            "file_name": "b.png",
            "title": "t" * MAX_NAME,
            "prompt": "p" * MAX_PROMPT,
            "camera": "c" * MAX_EXTRA,
        },
    )
    cut, kept = source.table.to_pylist()
    for name in NAME_COLUMNS:
        assert cut[name] is None if name == "source_url" else cut[name] == "é" * (MAX_NAME - 1) + "…"
    assert len(cut["prompt"]) == MAX_PROMPT
    assert len(cut["camera"]) == len(cut["tags"]) == MAX_EXTRA
    assert (len(kept["title"]), len(kept["prompt"]), len(kept["camera"])) == (MAX_NAME, MAX_PROMPT, MAX_EXTRA)
    assert said(source) == {("a.png", "value-cut"), ("a.png", "value-left-out")}
    messages = {remark.message for remark in source.remarks}
    assert "its title has 20,000 characters; the first 1,000 are kept" in messages
    assert "its prompt has 20,000 characters; the first 10,000 are kept" in messages
    assert "its source_url has 20,000 characters and is left out; 1,000 are kept" in messages


def test_a_name_is_one_however_its_letters_are_composed(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "Zoë Müller") for form in ("NFC", "NFD"))
    rows = [
        {"file_name": f"{name}.png", "creator": who, "rights_holder": who, "group": who, "prompt": who}
        for name, who in (("a", composed), ("b", decomposed))
    ]
    table = source_of(tmp_path, *rows).table
    for column in ("creator", "rights_holder", "group"):
        assert table[column].to_pylist() == [composed, composed]
    # What the text encoder was trained on stays.
    assert table["prompt"].to_pylist() == [composed, decomposed]


def test_a_list_of_one_is_that_one_and_nan_is_nothing(tmp_path: Path) -> None:
    nan = float("nan")
    source = source_of(
        tmp_path,
        {"file_name": "a.png", "artist": ["Ann"], "text": "x", "score": nan},
        {"file_name": "b.png", "artist": "Ann", "text": ["one", "two"], "licence": [None, "CC0"]},
        {"file_name": "c.png", "artist": nan, "text": nan, "caption": "a cat", "group": []},
        {"file_name": "d.png", "artist": [nan], "text": [nan]},
        {"file_name": "e.png", "artist": [7]},
    )
    rows = source.table.to_pylist()
    assert [row["creator"] for row in rows] == ["Ann", "Ann", None, None, "7"]
    assert [row["prompt"] for row in rows] == ["x", "one", "a cat", None, None]
    assert (rows[1]["licence"], rows[2]["group"]) == ("CC0", None)
    assert "score" not in rows[0]
    assert said(source) == {("b.png", "caption-chosen"), ("e.png", "number-as-name")}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"artist": ["Ann", "Bob"]},
            r"line 1 has 2 values of creator, \['Ann', 'Bob'\]; one .* 'Ann and Bob'\.$",
        ),
        ({"rights_holder": ["Ann", "Bob"]}, "2 values of rights_holder, .* 60%; Eve Sample 40%"),
        ({"title": [1, {}]}, r"2 values of title, .* Give one text\.$"),
        ({"author": {"name": "Ann"}}, "line 1 has creator = {'name': 'Ann'}, which isn't text"),
        ({"text": {"caption": "d"}}, "has prompt = {'caption': 'd'}, which isn't text"),
        ({"creator": True}, "has creator = True, which isn't text"),
        ({"creator": [["Ann"]]}, r"has creator = \['Ann'\], which isn't text"),
    ],
)
def test_what_is_no_text_is_refused_and_not_spelled_out(
    tmp_path: Path, row: dict[str, Any], message: str
) -> None:
    with pytest.raises(WorksError, match=message):
        source_of(tmp_path, {"file_name": "a.png", **row})


def test_classes_of_hugging_face_are_taken_by_their_names(tmp_path: Path) -> None:
    label = {"names": ["durer", "kustodiev"], "_type": "ClassLabel"}
    features = {"artist": label, "tags": {"feature": label, "_type": "Sequence"}, "image": {"_type": "Image"}}
    written = pa.table(
        {
            "image": [b"x"] * 5,
            "artist": pa.array([1, 0, -1, None, 2]),
            "tags": pa.array([[0, 1], [], [1], None, [0]]),
        }
    )
    about = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    pq.write_table(written.replace_schema_metadata(about), tmp_path / "a.parquet")
    source = read_works(tmp_path / "a.parquet")
    assert source.table["creator"].to_pylist() == ["kustodiev", "durer", None, None, "2"]
    assert source.table["tags"].to_pylist()[0] == '["durer", "kustodiev"]'
    assert said(source) == {("a.parquet/000004", "number-as-name")}
    pq.write_table(
        written.replace_schema_metadata({b"huggingface": b'{"info": [1]}'}), tmp_path / "a.parquet"
    )
    plain = read_works(tmp_path / "a.parquet")
    assert plain.table["creator"].to_pylist() == ["1", "0", "-1", None, "2"]
    assert {remark.code for remark in plain.remarks} == {"number-as-name"}


def test_further_columns_have_a_number_and_short_names(tmp_path: Path) -> None:
    row = {"file_name": "a.png", "n" * 500: 1, **{f"column {number}": number for number in range(100)}}
    source = source_of(tmp_path, row)
    further = [name for name in source.table.column_names if name not in COLUMNS]
    assert len(further) == MAX_EXTRA_COLUMNS
    assert max(len(name) for name in further) == 100
    assert [remark.message for remark in source.remarks] == ["51 further columns are left out, 50 are kept"]


def test_characters_that_no_database_takes_are_replaced(tmp_path: Path) -> None:
    source = source_of(tmp_path, {"file_name": "a.png", "title": "a\0b\ud800c", "\ud800": "\0"})
    (row,) = source.table.to_pylist()
    assert row["title"] == "a\ufffdb?c"
    assert row["?"] == "\ufffd"
    assert said(source) == {("a.png", "value-cleaned")}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"file_name": "a\\u0000.png"}', "can't be the name of a file"),
        ('{"file_name": "\\ud800.png"}', "can't be the name of a file"),
        ('{"file_name": 7}', "has no file_name"),
        ('{"file_name": ["a.png"]}', "has no file_name"),
        ('{"file_name": "a.png", "repeats": 1e400}', "repeats inf"),
        ('{"file_name": "a.png", "repeats": NaN}', "repeats nan"),
        ('{"file_name": "a.png", "repeats": [1]}', r"repeats \[1\]"),
        ('{"file_name": "a.png", "repeats": -1}', "repeats -1"),
        ('{"file_name": "a.png", "repeats": 1180591620717411303424}', "at most 1,000,000"),
        ('{"file_name": "a.png", "year": ' + "9" * 5000 + "}", "isn't JSON"),
        ("[" * 200_000, "isn't JSON"),
        ("[]", "isn't a JSON object"),
    ],
)
def test_json_lines_that_say_nothing_usable_are_refused(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / "metadata.jsonl").write_text(line)
    with pytest.raises(WorksError, match=message):
        read_works(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file_name\na.png\n".encode("utf-16"), "isn't UTF-8 text"),
        (b"file_name,title\na.png," + b"x" * 11_000_000 + b"\n", "can't be read as CSV"),
        (b"file_name,title\na\0.png,x\n", "can't be the name of a file"),
        (b"file_name,file_name\na.png,b.png\n", "column file_name twice"),
        (b"", "no column file_name"),
    ],
)
def test_csv_of_all_kinds_is_refused_with_a_sentence(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / "metadata.csv").write_bytes(content)
    with pytest.raises(WorksError, match=message):
        read_works(tmp_path)


def test_a_table_of_any_types_is_read_or_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")

    def read(**columns: pa.Array) -> SourceWorks:
        pq.write_table(pa.table({"file_name": pa.array(["a.png"]), **columns}), tmp_path / "works.parquet")
        return read_works(tmp_path / "works.parquet")

    day = datetime.date(2026, 1, 2)
    source = read(
        title=pa.array([7]),
        creator=pa.array([["Ada"]]),
        day=pa.array([day]),
        blob=pa.array([b"\xff" * 10]),
        nothing=pa.nulls(1),
        flag=pa.array([True]),
    )
    (row,) = source.table.to_pylist()
    assert (row["title"], row["creator"], row["flag"]) == ("7", "Ada", True)
    assert "2026-01-02" in row["day"]
    for column in (pa.array([2.5]), pa.array(["x"]), pa.array([[1]]), pa.array([-3])):
        with pytest.raises(WorksError, match="how often the work was trained on"):
            read(repeats=column)
    twice = pa.Table.from_arrays([pa.array(["a.png"])] * 2, ["file_name", "file_name"])
    pq.write_table(twice, tmp_path / "works.parquet")
    with pytest.raises(WorksError, match=r"can't be read as parquet|column file_name twice"):
        read_works(tmp_path / "works.parquet")


def test_an_index_whose_table_has_other_types_is_refused(tmp_path: Path) -> None:
    columns = {name: pa.array(["x"]) for name in COLUMNS} | {"repeats": pa.array([1])}
    Works(pa.table(columns))
    for name, wrong in (("id", pa.array([1])), ("repeats", pa.array(["1"])), ("title", pa.array([["a"]]))):
        pq.write_table(pa.table(columns | {name: wrong}), tmp_path / "works.parquet")
        with pytest.raises(WorksError, match=f"a column {name} that isn't one of"):
            Works.open(tmp_path / "works.parquet")
