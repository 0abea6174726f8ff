"""Mapped files say the same as numpy and safetensors do, hold no file open, and are refused where damaged."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from das.errors import IndexFormatError
from das.index import AttributionIndex
from das.mapped import Tensors, enough_mappings, map_array, open_array


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.float16).reshape(3, 4),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.zeros((0, 5), np.float32),
        np.array(7, np.int64),
    ],
)
def test_an_array_is_what_numpy_reads(tmp_path: Path, array: np.ndarray) -> None:
    path = tmp_path / "array.npy"
    np.save(path, array)
    before = len([*Path("/proc/self/fd").iterdir()])
    mapped = map_array(path)
    assert len([*Path("/proc/self/fd").iterdir()]) == before
    assert (mapped.dtype, mapped.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(mapped, array)
    assert not mapped.flags.writeable
    path.unlink()
    np.testing.assert_array_equal(mapped, array)


def test_an_array_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "array.npy"
    np.save(path, np.arange(40.0))
    whole = path.read_bytes()
    for data in (b"", b"\x93NUMPY", whole[:100], whole[:-1], whole + b"\0", b"nothing" * 99, whole[::-1]):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"."):
            map_array(path)
    np.save(path, np.array([{}], object), allow_pickle=True)
    with pytest.raises(ValueError, match="objects"):
        map_array(path)
    with pytest.raises(FileNotFoundError):
        map_array(tmp_path / "none.npy")


def test_tensors_are_what_safetensors_reads(tmp_path: Path) -> None:
    path = tmp_path / "numbers.safetensors"
    rng = np.random.default_rng(0)
    tensors = {
        "odd": np.array([1, 2, 3], np.int8),
        "factor": rng.normal(size=(5, 5)),
        "scale": rng.normal(size=7).astype(np.float32),
        "none": np.empty((0, 2)),
    }
    save_file(tensors, path, metadata={"of": "a test"})
    mapped = Tensors(path)
    assert {*mapped} == {*tensors}
    for name, array in load_file(path).items():
        np.testing.assert_array_equal(mapped[name], array)
        assert mapped[name].dtype == array.dtype
        assert not mapped[name].flags.writeable


def test_tensors_that_lie_elsewhere_than_their_header_says_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "numbers.safetensors"
    save_file({"a": np.arange(4.0), "b": np.arange(3, dtype=np.int64)}, path)
    whole = path.read_bytes()
    size = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + size])

    def with_header(**changes: object) -> bytes:
        text = json.dumps(header | changes).encode()
        return len(text).to_bytes(8, "little") + text + whole[8 + size :]

    first = header["a"]
    damaged = [
        b"",
        whole[:-1],
        whole + b"\0",
        whole[:20],
        b"\xff" * 8 + whole[8:],
        with_header(a=first | {"shape": [5]}),
        with_header(a=first | {"dtype": "F32"}),
        with_header(a=first | {"dtype": "X9"}),
        with_header(a=first | {"data_offsets": [8, 40]}),
        with_header(a=first | {"shape": [-2, -2]}),
        with_header(a=3),
        with_header(c=first),
    ]
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"."):
            Tensors(path)


def told(script: str, *arguments: object) -> str:
    """What a process of its own prints, which may use up what a process has."""
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


NO_MAPPINGS_LEFT = """
import sys
from das.errors import IndexFormatError
from das.index import AttributionIndex
from das.mapped import map_array

_, path, array = sys.argv
AttributionIndex.open(path)
held = []
try:
    while True:
        held.append(map_array(array))
except OSError:
    # Python itself needs some.
    del held[-3:]
try:
    AttributionIndex.open(path)
except IndexFormatError as error:
    print(error)
"""


def test_an_index_that_can_t_be_mapped_any_more_says_what_to_raise(tmp_path: Path, tiny_index: Path) -> None:
    most = int(Path("/proc/sys/vm/max_map_count").read_text())
    np.save(tmp_path / "array.npy", np.zeros(1))
    files = len(AttributionIndex.open(tiny_index).manifest.files)
    said = told(NO_MAPPINGS_LEFT, tiny_index, tmp_path / "array.npy")
    assert said.startswith(
        f"{tiny_index}, an index of {files:,} files, can't be mapped into memory: this process"
    )
    assert f"(sysctl -w vm.max_map_count={4 * most}), or build with a larger --shard-size" in said
    (count,) = re.findall(r"this process has ([0-9,]+) mappings", said)
    assert most - 100 <= int(count.replace(",", "")) <= most + 10


NO_ADDRESSES_LEFT = """
import resource, sys
from pathlib import Path
import psutil
from das.errors import IndexFormatError
from das.mapped import enough_mappings, open_array

room = psutil.Process().memory_info().vms + (64 << 20)
resource.setrlimit(resource.RLIMIT_AS, (room, room))
path = Path(sys.argv[1])
try:
    with enough_mappings(path.parent, 7):
        open_array(path)
except IndexFormatError as error:
    print(error)
"""


def test_where_addresses_run_out_first_that_is_said(tmp_path: Path) -> None:
    path = tmp_path / "array.npy"
    np.lib.format.open_memmap(path, "w+", np.float64, ((1 << 30) // 8,)).flush()
    said = told(NO_ADDRESSES_LEFT, path)
    assert said.startswith(
        f"{tmp_path}, an index of 7 files, can't be mapped into memory: memory or address space is"
    )


def test_another_fault_is_told_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "array.npy").write_bytes(b"nothing")
    with (
        pytest.raises(IndexFormatError, match=r"array\.npy can't be read as an array"),
        enough_mappings(tmp_path, 7),
    ):
        open_array(tmp_path / "array.npy")
