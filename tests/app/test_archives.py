"""A zip of pictures, friendly and hostile: each file ends for itself, and nothing is unpacked without bounds."""

import io
import json
import stat
import struct
import time
import tracemalloc
import zipfile
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from app.archives import MAX_ENTRIES, Entry, unpack
from app.problems import Problem
from das.images import encode_png

EACH, IN_ALL = 2_000_000, 5_000_000


def packed(*files: tuple[Any, bytes], how: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", how) as archive:
        for name, data in files:
            archive.writestr(name, data)
    return out.getvalue()


def opened(archive: bytes) -> tuple[list[Entry], dict[str, dict[str, Any]]]:
    return unpack(archive, 100, EACH, IN_ALL)


def why(archive: bytes) -> str:
    with pytest.raises(Problem) as refused:
        opened(archive)
    assert (refused.value.code, (refused.value.errors or [])[0].pointer) == ("invalid-request", "/archive")
    return refused.value.detail


def refused(archive: bytes) -> list[str | None]:
    return [None if entry.refused is None else entry.refused[0] for entry in opened(archive)[0]]


def special(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


def test_files_come_in_their_order_with_what_the_manifest_says() -> None:
    lines = '{"file": "b/two.png", "prompt": "", "client_tag": null}\n\n{"file": "one.png", "seed": 7}\n'
    entries, said = opened(
        packed(
            ("one.png", b"1"), ("b/", b""), ("b/two.png", b"2"), ("__MACOSX/._one.png", b"x"), ("b/.DS_Store", b"x"),
            ("manifest.jsonl", lines.encode()),
        )
    )  # fmt: skip
    assert entries == [Entry("one.png", b"1"), Entry("b/two.png", b"2")]
    assert said == {"b/two.png": {"prompt": ""}, "one.png": {"seed": 7}}
    table = b'\xef\xbb\xbffile,prompt,client_tag\r\none.png,"a, b",\r\n'
    assert opened(packed(("one.png", b"1"), ("manifest.csv", table)))[1] == {"one.png": {"prompt": "a, b"}}


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (b"not json", "manifest.jsonl can't be read"),
        (b"7\n", "entry 1, has to say which file"),
        (b'{"file": "gone.png"}', "names 'gone.png', which isn't in it"),
        (b'{"file": "a.png"}\n{"file": "a.png"}', "once more"),
        (b"\xff\xfe", "can't be read"),
        (b"[" * 100_000, "can't be read"),
        (b" " * 1_100_000, "more than 1.04858 MB"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_refused(manifest: bytes, said: str) -> None:
    assert said in why(packed(("a.png", b"1"), ("manifest.jsonl", manifest), how=zipfile.ZIP_STORED))


def test_what_cannot_be_used_fails_by_itself() -> None:
    noise = np.random.default_rng(1).bytes(1000)
    archive = packed(
        ("good.png", noise),
        (special("link", stat.S_IFLNK | 0o777), b"/etc/passwd"),
        (special("device", stat.S_IFCHR | 0o666), b""),
        ("inner.zip", packed(("a", b"1"))),
        ("bomb.tif", bytes(1_900_000)),
        ("large.tif", bytes(2_100_000)),
        (special("regular.png", stat.S_IFREG | 0o644), noise),
    )
    assert refused(archive) == [
        None, "not-a-file", "not-a-file", "nested-archive", "decompression-bomb", "too-large", None,
    ]  # fmt: skip
    for how in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        assert refused(packed(("a.png", noise), how=how)) == ["compression"]


def test_of_two_of_one_name_the_second_fails() -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        archive = packed(("a.png", b"1"), ("a.png", b"2"))
    assert refused(archive) == [None, "duplicate"]


def test_an_encrypted_file_fails() -> None:
    archive = bytearray(packed(("a.png", b"12345"), how=zipfile.ZIP_STORED))
    archive[6] |= 1
    archive[archive.index(b"PK\x01\x02") + 8] |= 1
    assert refused(bytes(archive)) == ["encrypted"]


def test_damaged_and_lying_files_fail() -> None:
    archive = bytearray(packed(("a.png", b"12345"), ("b.png", b"67890"), how=zipfile.ZIP_STORED))
    archive[archive.index(b"12345")] ^= 1
    assert refused(bytes(archive)) == ["damaged", None]
    # It says that it is smaller than it is, in the directory.
    lying = bytearray(packed(("a.tif", bytes(900_000))))
    place = lying.index(b"PK\x01\x02") + 24
    lying[place : place + 4] = struct.pack("<I", 10)
    assert refused(bytes(lying)) == ["damaged"]


def test_names_are_texts_and_never_paths() -> None:
    names = ["../../etc/passwd", "/absolute.png", "c:\\windows.png", "\u202egnp.exe", "x" * 5000]
    entries, _ = opened(packed(*((name, b"1") for name in names)))
    assert len(entries) == len(names)
    broken = packed(("nämé.png", b"1")).replace("nämé".encode(), b"n\xff\xfem\xff\xfe")
    assert "can't be read as a zip" in why(broken)
    # A name in another encoding, which a zip without the flag for UTF-8 may have.
    plain = bytearray(packed(("abcd.png", b"1"), how=zipfile.ZIP_STORED)).replace(b"abcd", b"\x83e\x83X")
    assert len(opened(bytes(plain))[0]) == 1


@pytest.mark.parametrize("cut", [10, 40, 90])
def test_what_is_no_whole_zip_is_refused(cut: int) -> None:
    assert "can't be read as a zip" in why(packed(("a.png", b"12345"))[:cut])


def test_no_zip_at_all_is_refused() -> None:
    for data in (b"", b"PK", b"no zip", bytes(1000)):
        assert "can't be read as a zip" in why(data)


def test_many_entries_are_refused_before_the_directory_is_read() -> None:
    assert f"more than {MAX_ENTRIES}" in why(packed(*((f"{n}/", b"") for n in range(MAX_ENTRIES + 1))))
    assert "more than 100 files" in why(packed(*((f"{n}", b"") for n in range(101))))


def test_what_unpacks_to_too_much_in_all_is_refused_in_bounded_memory() -> None:
    page = np.random.default_rng(2).bytes(20_000)
    archive = packed(*((f"{n}", page * 95) for n in range(90)))
    assert len(archive) < IN_ALL
    tracemalloc.start()
    try:
        assert "unpacks to more than 5 MB" in why(archive)
        assert tracemalloc.get_traced_memory()[1] < IN_ALL + 4 * EACH
    finally:
        tracemalloc.stop()


def test_zip64_is_read() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive, archive.open("a.png", "w", force_zip64=True) as file:
        file.write(b"12345")
    assert opened(out.getvalue())[0] == [Entry("a.png", b"12345")]


def test_an_archive_becomes_a_batch(client: TestClient, store: Any) -> None:
    picture = encode_png(np.random.default_rng(9).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    lines = [{"file": "in/a.png", "prompt": "a harbour", "client_tag": "7"}, {"file": "b.png", "prompt": ""}]
    manifest = "\n".join(map(json.dumps, lines)).encode()
    archive = packed(
        ("in/a.png", picture), ("b.png", picture), ("notes.txt", b"no picture"), ("c.zip", packed(("x", b"1"))),
        ("manifest.jsonl", manifest),
    )  # fmt: skip
    posted = client.post(
        "/v1/attribution-batches",
        files={"archive": ("p.zip", archive)},
        data={"client_tag": "all", "prompt": "a lighthouse"},
        headers={"Idempotency-Key": "a zip"},
    )
    assert posted.status_code == 202, posted.text
    path = posted.json()["links"]["self"]
    deadline = time.monotonic() + 60
    while (told := client.get(path).json())["counts"]["waiting"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    shown = [(item["name"], item["state"], item["client_tag"]) for item in told["items"]]
    assert shown == [
        ("in/a.png", "queued", "7"), ("b.png", "queued", "all"),
        ("notes.txt", "failed", "all"), ("c.zip", "failed", "all"),
    ]  # fmt: skip
    assert told["items"][3]["problem"]["reason"] == "nested-archive"
    asked = [client.get(item["attribution"]["links"]["self"]).json() for item in told["items"][:2]]
    assert [one["prompt"] for one in asked] == ["a harbour", ""]
    both = {"archive": ("p.zip", archive), "image": ("p.png", picture)}
    assert client.post("/v1/attribution-batches", files=both).json()["errors"][0]["pointer"] == "/archive"
    wrong = packed(("a.png", picture), ("manifest.jsonl", b'{"file": "a.png", "colour": "red"}'))
    refusal = client.post("/v1/attribution-batches", files={"archive": ("p.zip", wrong)}).json()
    assert "manifest can't be used for 'a.png'" in refusal["detail"]
    assert client.delete(path).status_code == 204
