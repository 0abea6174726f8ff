"""Training sets of every convention, made here: what is taken, what is left out, and that it is said."""

import io
import json
import tarfile
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from das.errors import WorksError
from das.works import SourceWorks, read_works


def png(seed: int = 0) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def write(folder: Path, files: dict[str, Any]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(content) if isinstance(content, int) else content.encode())


def table(source: SourceWorks, *names: str) -> list[tuple[Any, ...]]:
    return [tuple(row[name] for name in ("file", *names)) for row in source.table.to_pylist()]


def codes(source: SourceWorks) -> dict[str, str]:
    return {remark.file: remark.code for remark in (*source.left_out, *source.remarks)}


def test_text_and_caption_are_prompts_and_it_is_said_which(tmp_path: Path) -> None:
    rows = [
        {"file_name": "a.png", "text": "a cat", "artist": "Ada", "url": "https://x.org/a"},
        {"file_name": "b.png", "caption": "a dog"},
        {"file_name": "c.png", "text": "one", "caption": "two"},
        {"file_name": "d.png", "prompt": ["first", "second"]},
    ]
    write(tmp_path, {"a.png": 1, "b.png": 2, "c.png": 3, "d.png": 4})
    write(tmp_path, {"metadata.jsonl": "\n".join(map(json.dumps, rows))})
    source = read_works(tmp_path)
    prompts = [row[1] for row in table(source, "prompt")]
    assert prompts == ["a cat", "a dog", "one", "first"]
    assert source.captions == {"column text": 2, "column caption": 1, "column prompt": 1}
    assert table(source, "creator", "source_url")[0] == ("a.png", "Ada", "https://x.org/a")
    assert codes(source) == {"c.png": "caption-chosen", "d.png": "caption-chosen"}
    assert "prompts: 2 from column text; 1 from column caption; 1 from column prompt" in source.describe()


@pytest.mark.parametrize("repeats", ["10", "10.0", '"10"', " 10 ", "1e1"])
def test_repeats_and_headers_mean_the_same_however_they_are_written(tmp_path: Path, repeats: str) -> None:
    write(
        tmp_path,
        {
            "a.png": 1,
            "metadata.csv": f"file_name, Title ,\ufeff prompt, repeats\na.png, T, a cat, {repeats}\n",
        },
    )
    assert table(read_works(tmp_path), "title", "prompt", "repeats") == [("a.png", "T", "a cat", 10)]


def test_metadata_that_fits_no_picture_ends_the_reading(tmp_path: Path) -> None:
    write(tmp_path, {"train/0.png": 1, "train/metadata.jsonl": '{"file_name": "train/0.png", "text": "x"}'})
    with pytest.raises(WorksError, match=r"none of the 1 rows .* 0\.png lies beside the metadata itself"):
        read_works(tmp_path / "train")


def test_kohya_folders_with_captions_words_and_regularisation(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "img/10_sks cat/a.png": 1,
            "img/10_sks cat/a.txt": "sks cat on a mat\nmore\n",
            "img/10_sks cat/b.png": 2,
            "img/10_sks cat/b.npz": "latents",
            "img/3_dog/c.png": 3,
            "img/3_dog/c.caption": "a dog",
            "img/spare/d.png": 4,
            "reg/1_cat/r.png": 5,
        },
    )
    source = read_works(tmp_path, creator_from="folder")
    assert table(source, "prompt", "repeats", "group", "creator") == [
        ("img/10_sks cat/a.png", "sks cat on a mat", 10, None, "sks cat"),
        ("img/10_sks cat/b.png", "sks cat", 10, None, "sks cat"),
        ("img/3_dog/c.png", "a dog", 3, None, "dog"),
        ("reg/1_cat/r.png", "cat", 23, "regularisation", None),
    ]
    assert codes(source)["img/spare/d.png"] == "not-numbered"
    assert codes(source)["img/10_sks cat/a.png"] == "caption-of-lines"
    plain = read_works(tmp_path, format="imagefolder")
    assert {row[1] for row in table(plain, "repeats")} == {1}
    assert len(plain) == 5


def test_folders_of_years_are_not_taken_for_repeats(tmp_path: Path) -> None:
    write(tmp_path, {"2019_rome/a.png": 1})
    assert table(read_works(tmp_path), "repeats") == [("2019_rome/a.png", 1)]
    assert table(read_works(tmp_path, format="kohya"), "repeats", "prompt") == [
        ("2019_rome/a.png", 2019, "rome")
    ]


def test_folders_of_classes_are_not_taken_for_repeats(tmp_path: Path) -> None:
    write(tmp_path, {"00/a.png": 1, "01/b.png": 2, "9/c.png": 3})
    found = read_works(tmp_path)
    assert found.format == "imagefolder"
    assert table(found, "repeats") == [("00/a.png", 1), ("01/b.png", 1), ("9/c.png", 1)]
    assert table(read_works(tmp_path, format="kohya"), "repeats") == [("01/b.png", 1), ("9/c.png", 9)]
    # Beside one that has words, a number is what sd-scripts takes it for.
    write(tmp_path, {"2_cats/d.png": 4})
    assert ("9/c.png", 9) in table(read_works(tmp_path), "repeats")


@pytest.mark.parametrize("files", [{"10_/a.png": 1}, {"img/10/a.png": 1, "reg/1/b.png": 2}])
def test_folders_without_words_are_kohyas_where_something_says_so(
    tmp_path: Path, files: dict[str, int]
) -> None:
    write(tmp_path, dict(files))
    found = read_works(tmp_path)
    assert found.format == "kohya"
    assert next(row for row in table(found, "repeats") if "10" in row[0])[1] == 10


def test_metadata_goes_before_captions_and_they_before_folders(tmp_path: Path) -> None:
    write(tmp_path, {"5_x/a.png": 1, "5_x/a.txt": "by file", "5_x/b.png": 2, "5_x/b.txt": "by file"})
    write(tmp_path, {"metadata.csv": "file_name,prompt,repeats\n5_x/a.png,by row,7\n5_x/b.png,,\n"})
    assert table(read_works(tmp_path), "prompt", "repeats") == [
        ("5_x/a.png", "by row", 7),
        ("5_x/b.png", "by file", 5),
    ]


def test_names_as_other_systems_write_them_reach_their_pictures(tmp_path: Path) -> None:
    apart, whole = (unicodedata.normalize(form, "zo\u00eb") for form in ("NFD", "NFC"))
    write(tmp_path / "captions", {f"{apart}.png": 1, f"{whole}.txt": "a cat", "b.png": 2, "b.TXT": "a dog"})
    assert [row[1] for row in table(read_works(tmp_path / "captions"), "prompt")] == ["a dog", "a cat"]
    rows = f"file_name,creator\n{whole}.png,Zoe\nsub\\0.png,Ann\n"
    write(tmp_path / "rows", {f"{apart}.png": 1, "sub/0.png": 2, "metadata.csv": rows})
    source = read_works(tmp_path / "rows")
    assert table(source, "creator") == [("sub/0.png", "Ann"), (f"{apart}.png", "Zoe")]
    assert codes(source) == {}
    # Of two pictures it may be either's.
    write(tmp_path / "two", {f"{apart}.png": 1, "a.png": 2, "a.jpg": 3, "a.TXT": "a dog"})
    assert codes(read_works(tmp_path / "two"))["a.TXT"] == "not-an-image"


def test_a_mark_before_a_text_in_a_tar_is_no_part_of_it(tmp_path: Path) -> None:
    tar_of(tmp_path / "a.tar", [("0.png", png(1)), ("0.txt", "\ufeffa cat".encode())])
    assert table(read_works(tmp_path), "prompt") == [("a.tar/0.png", "a cat")]


def test_droppings_are_left_out_and_linked_folders_read_once(tmp_path: Path) -> None:
    works = tmp_path / "works"
    write(works, {"a.png": 1, "@eaDir/a.png/T.jpg": 2, "._a.png": "x", "__MACOSX/a.png": 3, ".kept/z.png": 4})
    write(works, {"Thumbs.db": "x"})
    (works / "more").symlink_to(".kept")
    (works / "loop").symlink_to(".")
    write(tmp_path / "outside", {"o.png": 5})
    (works / "out").symlink_to("../outside")
    source = read_works(works)
    assert [row[0] for row in table(source)] == ["a.png", "more/z.png"]
    assert codes(source) == {
        "._a.png": "dropping",
        "@eaDir": "dropping",
        "Thumbs.db": "dropping",
        "__MACOSX": "dropping",
        ".kept": "hidden",
        "loop": "linked-folder",
        "out": "linked-folder",
    }
    assert [row[0] for row in table(read_works(works, follow_links=True))][-1] == "out/o.png"


def test_kohya_toml_takes_what_each_subset_says(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "99_cats/a.png": 1,
            "99_cats/a.txt": "a cat;;;mat",
            "99_cats/b.png": 2,
            "reg/r.png": 3,
            "ft/f.png": 4,
        },
    )
    write(tmp_path, {"ft.json": json.dumps({"f.png": {"caption": "fine", "tags": "x, y"}, "gone.png": {}})})
    write(
        tmp_path,
        {
            "set.toml": "[general]\nnum_repeats = 4\ncaption_extension = '.txt'\n[[datasets]]\n[[datasets.subsets]]\n"
            "image_dir = '99_cats'\nclass_tokens = 'cat'\ncaption_prefix = 'pre'\nsecondary_separator = ';;;'\n"
            "[[datasets.subsets]]\nimage_dir = 'reg'\nis_reg = true\nnum_repeats = 1\nclass_tokens = 'thing'\n"
            "[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'ft'\nmetadata_file = 'ft.json'\nnum_repeats = 2\n"
        },
    )
    source = read_works(tmp_path / "set.toml")
    assert table(source, "prompt", "repeats", "group") == [
        ("99_cats/a.png", "pre a cat,mat", 4, None),
        ("99_cats/b.png", "pre cat", 4, None),
        ("reg/r.png", "thing", 8, "regularisation"),
        ("ft/f.png", "fine,x, y", 2, None),
    ]
    assert codes(source)["gone.png"] == "missing-file"


def test_ai_toolkit_takes_defaults_triggers_and_resolutions(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"in/a.png": 1, "in/a.txt": "a [trigger]\non a mat", "in/sub/b.jpg": 2, "in/_controls/c.png": 3},
    )
    write(
        tmp_path,
        {
            "job.yaml": "job: extension\nconfig:\n  process:\n  - trigger_word: sks\n    datasets:\n"
            "    - folder_path: in\n      caption_ext: txt\n      default_caption: a thing\n      num_repeats: 2\n"
            "      resolution: [512, 768]\n"
        },
    )
    source = read_works(tmp_path / "job.yaml")
    assert table(source, "prompt", "repeats") == [
        ("in/a.png", "a sks\non a mat", 4),
        ("in/sub/b.jpg", "sks a thing", 4),
    ]


def test_onetrainer_takes_enabled_concepts(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"one/a.png": 1, "one/a.txt": "\nfirst\nsecond", "one/a-masklabel.png": 2, "one/sub/b.png": 3},
    )
    write(tmp_path, {"two/my cat.png": 4, "off/x.png": 5})
    concepts = [
        {"path": "one", "balancing": 1.5, "balancing_strategy": "REPEATS"},
        {
            "path": "two",
            "balancing": 4,
            "balancing_strategy": "SAMPLES",
            "text": {"prompt_source": "filename"},
        },
        {"path": "off", "enabled": False},
        {"path": "off", "type": "VALIDATION"},
    ]
    write(tmp_path, {"concepts.json": json.dumps(concepts)})
    source = read_works(tmp_path / "concepts.json")
    assert table(source, "prompt", "repeats") == [("one/a.png", "first", 3), ("two/my cat.png", "my cat", 8)]
    assert {remark.code for remark in source.left_out} == {
        "mask",
        "in-a-subfolder",
        "not-enabled",
        "validation",
    }


def test_parquets_with_pictures_inside_are_read_also_a_folder_of_them(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for number, split in enumerate(("train-00000", "train-00001", "test-00000")):
        pictures = [{"bytes": png(2 * number + row), "path": f"{row}.png"} for row in range(2)]
        columns = {"image": [*pictures, None], "caption": [f"{split} {row}" for row in range(3)]}
        pq.write_table(pa.table(columns), tmp_path / f"data/{split}.parquet", row_group_size=2)
    source = read_works(tmp_path)
    assert [row[1] for row in table(source, "prompt")] == [
        f"train-0000{n} {row}" for n in range(2) for row in range(2)
    ]
    assert [source.read(row) for row in (3, 0, 2, 1)] == [png(3), png(0), png(2), png(1)]
    assert codes(source)["data/test-00000.parquet"] == "other-split"
    assert codes(source)["data/train-00000.parquet/000002"] == "no-bytes"
    pq.write_table(pa.table({"image": [png(7)], "text": ["plain"]}), tmp_path / "plain.parquet")
    plain = read_works(tmp_path / "plain.parquet")
    assert (plain.read(0), plain.captions) == (png(7), {"column text": 1})


def tar_of(path: Path, members: list[tuple[str, bytes | str]]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


def test_tars_are_read_by_key_and_lead_nowhere(tmp_path: Path) -> None:
    said = json.dumps({"url": "https://x.org/1", "caption": "by json", "status": "success"}).encode()
    tar_of(
        tmp_path / "00000.tar",
        [
            ("0001.jpg", png(1)),
            ("0001.json", said),
            ("d/0002.png", png(2)),
            ("d/0002.txt", b"by txt"),
            ("../0003.png", png(3)),
            ("0004.png", "/etc/passwd"),
            ("0005.txt", b"alone"),
        ],
    )
    for place in (tmp_path, tmp_path / "00000.tar"):
        source = read_works(place)
        assert table(source, "prompt", "source_url") == [
            ("00000.tar/0001.jpg", "by json", "https://x.org/1"),
            ("00000.tar/d/0002.png", "by txt", None),
        ]
        assert [source.read(row) for row in range(2)] == [png(1), png(2)]
        assert {r.code for r in source.left_out} == {"leads-out", "not-a-file", "no-picture"}


@pytest.mark.parametrize("ending", ["parquet", "tar"])
@pytest.mark.parametrize(
    ("train", "other"),
    [
        ("default/train/0000", "default/test/0000"),
        ("default/partial-train/0000", "default/partial-validation/0000"),
        ("train/0000", "test/0000"),
        ("cifar10-train", "cifar10-test"),
        ("set-train-000000", "set-val-000000"),
        ("data/train-00000-of-00001", "data/dev-00000-of-00001"),
        ("test_set/training", "test_set/testing"),
    ],
)
def test_a_test_split_is_told_by_folders_and_words(
    tmp_path: Path, train: str, other: str, ending: str
) -> None:
    for number, name in enumerate((train, other)):
        path = tmp_path / f"{name}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if ending == "tar":
            tar_of(path, [("a.png", png(number))])
        else:
            pq.write_table(pa.table({"image": [png(number)]}), path)
    source = read_works(tmp_path)
    assert [source.read(row) for row in range(len(source))] == [png(0)]
    assert codes(source)[f"{other}.{ending}"] == "other-split"
    # Alone it is what was meant.
    (tmp_path / f"{train}.{ending}").unlink()
    assert len(read_works(tmp_path)) == 1


def test_words_that_only_hold_the_name_of_a_split_are_none(tmp_path: Path) -> None:
    for number, name in enumerate(("train", "contest", "test-train", "devices")):
        pq.write_table(pa.table({"image": [png(number)]}), tmp_path / f"{name}.parquet")
    assert len(read_works(tmp_path)) == 4


def test_folders_of_pictures_called_train_and_test_are_remarked(tmp_path: Path) -> None:
    write(tmp_path, {"train/a.png": 1, "train/test/b.png": 2, "test/cats/c.png": 3, "test/d.png": 4})
    source = read_works(tmp_path)
    assert len(source) == 4
    assert codes(source) == {"test": "test-folder"}


def test_a_hundred_thousand_empty_members_are_passed_over(tmp_path: Path) -> None:
    empty = tarfile.TarInfo("x").tobuf()
    tar_of(tmp_path / "a.tar", [("a.png", png(1))])
    data = (tmp_path / "a.tar").read_bytes().rstrip(b"\0")
    data += bytes(-len(data) % 512)
    (tmp_path / "a.tar").write_bytes(data + empty * 100_000 + bytes(1024))
    assert len(read_works(tmp_path / "a.tar")) == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.toml", "datasets = 3", "right type"),
        ("a.toml", "[[datasets]]\n[[datasets.subsets]]\nimage_dir = 7", "right type"),
        ("a.toml", "[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'no'", "which isn't there"),
        ("a.toml", "a = 1\na = 2", "isn't TOML"),
        ("a.toml", "a = " + "[" * 20_000, "isn't TOML"),
        ("a.yaml", "datasets: [*x]", "isn't YAML"),
        ("a.yaml", "datasets: 1\ndatasets: 2", "twice"),
        ("a.yaml", "x: &a [1]\ny: [" + "*a," * 200 + "]", "aliases"),
        ("a.yaml", "!!python/object/apply:os.system [x]", "isn't YAML"),
        ("a.yaml", "[" * 20_000, "isn't YAML"),
        ("a.json", "[1]", "not a mapping"),
        ("a.json", '{"a": 1, "a": 2}', "twice"),
        ("a.json", "[]", "no works"),
        ("a.tar", "nonsense" * 100, "can't be read as a tar"),
        ("a.parquet", "PAR1nonsense", "can't be read as parquet"),
        ("a.bin", "x", "neither a folder"),
    ],
)
def test_what_cant_be_understood_is_refused_with_a_sentence(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    write(tmp_path, {name: content})
    with pytest.raises(WorksError, match=message):
        read_works(tmp_path / name)


def test_a_parquet_that_ends_the_process_that_reads_it_is_refused(tmp_path: Path) -> None:
    # pyarrow aborts on some descriptions, which no exception handler sees.
    written = pa.table({"image": pa.array([b"x", None])})
    pq.write_table(
        written, tmp_path / "a.parquet", store_schema=False, compression="none", write_statistics=False
    )
    sound = (tmp_path / "a.parquet").read_bytes()
    refused = set()
    for place in range(66, 74):
        damaged = bytearray(sound)
        damaged[place] = 41 if place % 2 == 0 else 2
        (tmp_path / "a.parquet").write_bytes(damaged)
        try:
            read_works(tmp_path / "a.parquet")
        except WorksError as error:
            refused.add(str(error).rsplit(": ", 1)[1])
    assert refused


SUBSET = "[[datasets]]\n[[datasets.subsets]]\n"


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("a.toml", f"{SUBSET}image_dir='p'\nnum_repeats={9 * 10**30}\n", "times, by all that it says of it; at most"),
        ("a.yaml", f"datasets:\n- folder_path: p\n  num_repeats: {9 * 10**30}\n", "times, by all that it says"),
        ("a.json", '[{"path": "p", "balancing": 1e300}]', "times, by all that it says of it; at most 1,000,000,000"),
        ("a.toml", f"{SUBSET}image_dir='{'x' * 5000}'\n", "image_dir = .*5,000 characters"),
        ("a.yaml", f"datasets:\n- folder_path: {'x' * 5000}\n", "folder_path = .*and no file is called so"),
        ("a.json", '[{"path": "p\\u0000"}]', "path = .*no file is called so.*no NUL"),
        ("a.toml", f"{SUBSET}image_dir='p'\ncaption_extension=\"\\u0000\"\n", "no NUL"),
    ],
)  # fmt: skip
def test_numbers_and_names_that_nothing_has_are_told_in_a_short_sentence(
    tmp_path: Path, file: str, text: str, message: str
) -> None:
    write(tmp_path, {"p/a.png": 1, file: text})
    with pytest.raises(WorksError, match=message) as refused:
        read_works(tmp_path / file)
    assert len(str(refused.value)) < 600
