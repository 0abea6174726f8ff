"""Damaged and hostile training sets: each is read or refused with a sentence, whatever bytes were changed."""

import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from das.errors import WorksError
from das.works import read_works
from tests.das.test_trainingsets import png, tar_of, write

_SHORT, _LONG = 12, 2_000
"""Mutations of each kind of file: the long run makes 10,000 of them in all."""
_KINDS = ("a.tar", "a.parquet", "a.toml", "metadata.csv", "metadata.jsonl")


def made(folder: Path, kind: str) -> bytes:
    """A sound file of a kind, and the pictures that it names."""
    write(folder, {"p/a.png": 1, "a.png": 1} if kind != "a.parquet" and kind != "a.tar" else {})
    if kind == "a.tar":
        tar_of(folder / kind, [("1.png", png(1)), ("1.json", b'{"caption": "a cat"}'), ("2.png", png(2))])
    elif kind == "a.parquet":
        rows = {"image": [{"bytes": png(n), "path": "x"} for n in range(3)], "text": ["a", None, "c"]}
        pq.write_table(pa.table(rows), folder / kind)
    elif kind == "a.toml":
        subset = "image_dir = 'p'\nnum_repeats = 3\nclass_tokens = 'cat'\nis_reg = false\n"
        write(folder, {kind: f"[general]\n[[datasets]]\n[[datasets.subsets]]\n{subset}"})
    elif kind == "metadata.csv":
        write(folder, {kind: 'file_name,text,repeats\na.png,"a, cat",3\np/a.png,b,1\n'})
    else:
        write(
            folder,
            {kind: json.dumps({"file_name": "a.png", "text": "a", "repeats": 2, "tags": [1, {"x": None}]})},
        )
    return (folder / kind).read_bytes()


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The bytes with some changed, doubled, cut out or cut off."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(max(1, len(changed)))
        match rng.randrange(5):
            case 0:
                changed[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del changed[at : at + rng.randint(1, 40)]
            case 2:
                changed[at:at] = changed[at : at + rng.randint(1, 40)]
            case 3:
                changed[at:at] = rng.choice(
                    [b"[" * 500, b"{", b'"', b"\0", b"-1", b"9" * 30, b"\xff\xfe", b"1e999"]
                )
            case _:
                del changed[rng.randrange(len(data)) :]
    return bytes(changed)


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize("count", [_SHORT, pytest.param(_LONG, marks=pytest.mark.slow)])
def test_mutated_sets_are_read_or_refused(tmp_path: Path, kind: str, count: int) -> None:
    sound = made(tmp_path, kind)
    path = tmp_path / kind
    source = path if path.stem == "a" else tmp_path
    rng = random.Random(f"{kind} {count}")
    read = 0
    refused: list[str] = []
    for _ in range(count):
        path.write_bytes(mutated(sound, rng))
        try:
            works = read_works(source)
        except WorksError as error:
            refused.append(str(error))
            continue
        read += 1
        for row in range(len(works)):
            try:
                works.read(row)
            except OSError:
                continue
    path.write_bytes(sound)
    assert len(read_works(source)) >= 1
    assert len(refused) + read == count
    assert refused
    assert all("\n" not in said and len(said) < 2_000 for said in refused)
