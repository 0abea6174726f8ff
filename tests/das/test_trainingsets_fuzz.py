"""Damaged and hostile training sets: each is read or refused with a sentence, in time and in memory.

Run as a script it is the process that tries them: `test_trainingsets_fuzz.py FOLDER FILE COUNT`.
"""

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import fuzzing
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_trainingsets import png, tar_of, write

from das.errors import WorksError
from das.works import read_works

_SECONDS_EACH = 30.0
"""For one input; a parquet starts a process. It is generous since machines are busy: what is meant is a hang."""
_GROWN_KB = 200_000
_COUNTS = {
    "a.tar": (12, 1_800),
    "a.parquet": (5, 1_000),
    "a.toml": (20, 1_800),
    "a.yaml": (20, 1_800),
    "a.json": (20, 1_800),
    "metadata.csv": (12, 900),
    "metadata.jsonl": (12, 900),
}
"""Mutations of each kind of file: the long run makes 10,000 of them in all."""
_TEXTS = (".toml", ".yaml", ".json")
assert sum(long for _, long in _COUNTS.values()) == 10_000


def made(folder: Path, kind: str) -> bytes:
    """A sound file of a kind, and the pictures that it names."""
    inside = kind in ("a.parquet", "a.tar")
    write(folder, {} if inside else {"p/a.png": 1, "a.png": 1, "p/a.txt": "a cat\nsecond", "q/a.png": 2})
    if kind == "a.tar":
        tar_of(folder / kind, [("1.png", png(1)), ("1.json", b'{"caption": "a cat"}'), ("2.png", png(2))])
    elif kind == "a.parquet":
        rows = {"image": [{"bytes": png(n), "path": "x"} for n in range(3)], "text": ["a", None, "c"]}
        pq.write_table(pa.table(rows), folder / kind)
    elif kind == "a.toml":
        subset = (
            "image_dir = 'p'\nnum_repeats = 3\nclass_tokens = 'cat'\nis_reg = false\ncaption_prefix = 'a'\n"
        )
        write(folder, {kind: f"[general]\n[[datasets]]\n[[datasets.subsets]]\n{subset}"})
    elif kind == "a.yaml":
        one = "folder_path: p\n        caption_ext: txt\n        num_repeats: 2\n        is_reg: false"
        two = "folder_path: q\n        default_caption: a dog\n        resolution: [512, 768]"
        write(folder, {kind: f"config:\n  process:\n    - datasets:\n      - {one}\n      - {two}\n"})
    elif kind == "a.json":
        text = {"prompt_source": "sample", "prompt_path": "p/a.txt"}
        concept = {
            "path": "p",
            "enabled": True,
            "include_subdirectories": False,
            "balancing": 2.5,
            "text": text,
        }
        other = {"path": "q", "balancing": 1, "balancing_strategy": "SAMPLES", "type": "PRIOR_PREDICTION"}
        write(folder, {kind: json.dumps([concept, other], indent=1)})
    elif kind == "metadata.csv":
        write(folder, {kind: 'file_name,text,repeats\na.png,"a, cat",3\np/a.png,b,1\n'})
    else:
        row = {"file_name": "a.png", "text": "a", "repeats": 2, "tags": [1, {"x": None}]}
        write(folder, {kind: json.dumps(row)})
    return (folder / kind).read_bytes()


def try_all(folder: Path, kind: str, count: int) -> None:
    """Mutate a sound file so often, and read each."""
    folder = folder / "far" / "in" / "side"  # so that `../../..` leads to nothing but this
    folder.mkdir(parents=True)
    sound = made(folder, kind)
    path = folder / kind
    source = path if path.stem == "a" else folder
    rng = random.Random(f"{kind} {count}")

    def inputs() -> Iterator[bytes]:
        yield sound
        for _ in range(count):
            yield fuzzing.mutated(sound, rng, lines=path.suffix in _TEXTS)

    def check(data: bytes) -> str:
        path.write_bytes(data)  # what ends this process is found there
        refused: WorksError | None = None
        try:
            works = read_works(source)
        except WorksError as error:
            refused = error
        if refused is not None:
            assert "\n" not in str(refused), refused
            assert len(str(refused)) < 2_000, refused
            return "refused"
        assert len(works) == len(works.table)
        for row in range(len(works)):
            try:
                works.read(row)
            except OSError:
                continue
        return "read"

    fuzzing.tell(inputs(), check, _SECONDS_EACH)


@pytest.mark.parametrize("kind", _COUNTS)
@pytest.mark.parametrize("length", [0, pytest.param(1, marks=pytest.mark.slow)], ids=["short", "long"])
@pytest.mark.timeout(3_500)
def test_mutated_sets_are_read_or_refused(tmp_path: Path, kind: str, length: int) -> None:
    count = _COUNTS[kind][length]
    told = fuzzing.in_child(__file__, tmp_path, kind, count, timeout=3_400 if length else 250)
    outcomes = told["outcomes"]
    assert outcomes["refused"] >= count / 20
    assert outcomes["read"] >= 1  # the sound one
    assert sum(outcomes.values()) == count + 1
    assert told["grown_kb"] < _GROWN_KB, told


if __name__ == "__main__":
    try_all(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
