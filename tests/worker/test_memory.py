"""Measuring what a process takes, and telling that there was no more."""

from pathlib import Path

import numpy as np
import pytest

from das.errors import ModelError
from worker.memory import ran_out, resident_bytes, settled

MEGABYTE = 2**20


def test_what_is_taken_grows_with_arrays_and_falls_with_them() -> None:
    before = settled("cpu")
    # Below what glibc maps apart, so that it is on the heap.
    pieces = [np.ones(32 * 1024, np.uint8) for _ in range(32 * 64)]
    assert 60 * MEGABYTE < resident_bytes() - before < 80 * MEGABYTE
    kept = pieces[:: len(pieces) - 1]
    del pieces
    assert settled("cpu") - before < 10 * MEGABYTE
    assert [int(one[0]) for one in kept] == [1, 1]


def test_weights_that_are_mapped_count_whole_and_other_files_dont(tmp_path: Path) -> None:
    (tmp_path / "apart").mkdir()
    names = ("weights.safetensors", "apart/kernel.safetensors", "features.npy")
    for name in names:
        (tmp_path / name).write_bytes(bytes(32 * MEGABYTE))
    before = settled("cpu", [tmp_path / "apart"])
    # None of their pages is in memory yet, as when the system has dropped them.
    mapped = [np.memmap(tmp_path / name, np.uint8, "r") for name in names]
    assert 32 * MEGABYTE <= settled("cpu", [tmp_path / "apart"]) - before < 40 * MEGABYTE
    assert [int(one.sum(dtype=np.int64)) for one in mapped] == [0] * 3
    assert 32 * MEGABYTE <= settled("cpu", [tmp_path / "apart"]) - before < 40 * MEGABYTE
    assert 64 * MEGABYTE <= settled("cpu") - before < 72 * MEGABYTE
    # A name that begins alike is another directory.
    assert settled("cpu", [tmp_path / "apa"]) - before >= 64 * MEGABYTE
    mapped.clear()
    assert settled("cpu") - before < 10 * MEGABYTE


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried …"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (OSError(12, "Cannot allocate memory"), True),
        (RuntimeError("the size of tensor a must match"), False),
        (None, False),
    ],
    ids=repr,
)
def test_it_is_told_where_memory_ran_out(error: BaseException | None, expected: bool) -> None:
    assert ran_out(error) is expected
    with pytest.raises(ModelError) as raised:
        raise ModelError("The model can't be loaded.") from error
    assert ran_out(raised.value) is expected
