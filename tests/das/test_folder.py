"""Folders of works with what isn't a file of one's own in them: pipes, sockets, devices, links, bad names."""

import os
import socket
from pathlib import Path

import pytest

from das.errors import WorksError
from das.folder import Folder, open_file
from das.works import SourceWorks, file_digest, read_works


def put(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def names(source: SourceWorks) -> list[str]:
    return source.table["file"].to_pylist()


def codes(source: SourceWorks) -> dict[str, str]:
    return {remark.file: remark.code for remark in source.left_out}


def test_only_regular_files_are_read_and_nothing_waits(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "deep/b.png")
    os.mkfifo(tmp_path / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket.png"))
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "to-pipe.png").symlink_to("pipe.png")
    (tmp_path / "gone.png").symlink_to("nowhere")
    (tmp_path / "self.png").symlink_to("self.png")
    source = read_works(tmp_path)
    assert names(source) == ["a.png", "deep/b.png"]
    assert codes(source) == {
        "pipe.png": "not-a-file",
        "socket.png": "not-a-file",
        "zero.png": "not-a-file",
        "to-pipe.png": "not-a-file",
        "gone.png": "broken-link",
        "self.png": "broken-link",
    }


def test_metadata_that_is_a_pipe_or_names_one_waits_for_nothing(tmp_path: Path) -> None:
    put(tmp_path, "a.png")
    os.mkfifo(tmp_path / "pipe.bin")
    (tmp_path / "metadata.csv").write_text("file_name\na.png\npipe.bin\n")
    assert codes(read_works(tmp_path)) == {"pipe.bin": "not-a-file"}
    (tmp_path / "metadata.csv").unlink()
    os.mkfifo(tmp_path / "metadata.csv")
    assert codes(read_works(tmp_path))["metadata.csv"] == "not-a-file"


def test_links_that_lead_out_are_followed_on_demand_only(tmp_path: Path) -> None:
    outside, works = tmp_path / "outside", tmp_path / "works"
    put(outside, "secret.png", "more/c.png", "more/deep/d.png")
    put(works, "a.png", "sub/b.png")
    (works / "inside.png").symlink_to("sub/b.png")
    (works / "up-and-back.png").symlink_to("../works/sub/b.png")
    (works / "secret.png").symlink_to(outside / "secret.png")
    (works / "more").symlink_to(outside / "more")
    (works / "loop").symlink_to(".")
    (outside / "more" / "back").symlink_to(works)
    own = ["a.png", "inside.png", "sub/b.png", "up-and-back.png"]

    source = read_works(works)
    assert names(source) == own
    assert codes(source) == {
        "secret.png": "outside-link",
        "more": "linked-folder",
        "loop": "linked-folder",
    }
    assert {r.file for r in source.left_out if "--follow-links" in r.message} == {"secret.png", "more"}

    followed = read_works(works, follow_links=True)
    assert names(followed) == sorted([*own, "more/c.png", "more/deep/d.png", "secret.png"])
    secret = followed.paths[names(followed).index("secret.png")]
    assert file_digest(secret) == file_digest(outside / "secret.png")


def test_metadata_reaches_nothing_outside_through_linked_folders(tmp_path: Path) -> None:
    put(tmp_path / "outside", "secret.png")
    put(tmp_path / "works", "a.png")
    (tmp_path / "works/more").symlink_to(tmp_path / "outside")
    (tmp_path / "works/metadata.csv").write_text("file_name\na.png\nmore/secret.png\n")
    source = read_works(tmp_path / "works")
    assert names(source) == ["a.png"]
    assert codes(source)["more/secret.png"] == "outside-link"


def test_a_hub_cache_of_links_alone_says_which_option_reads_it(tmp_path: Path) -> None:
    put(tmp_path / "blobs", "1", "2")
    snapshot = tmp_path / "snapshots/rev"
    snapshot.mkdir(parents=True)
    for number in "12":
        (snapshot / f"{number}.png").symlink_to(f"../../blobs/{number}")
    with pytest.raises(WorksError, match=r"2 links, as a model hub's cache does\. Give --follow-links"):
        read_works(snapshot)
    assert names(read_works(snapshot, follow_links=True)) == ["1.png", "2.png"]


def test_names_that_are_no_text_are_listed_readably_and_left_out(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "é.png")
    bad = os.fsdecode(b"caf\xe9.png")
    (tmp_path / bad).write_bytes(b"x")
    (tmp_path / os.fsdecode(b"dir\xff")).mkdir()
    source = read_works(tmp_path)
    assert names(source) == ["a.png", "é.png"]
    assert codes(source) == {"caf\\xe9.png": "name-not-utf-8", "dir\\xff": "name-not-utf-8"}


def test_folders_that_cant_be_looked_into_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a folder of another user; tests may run as root, whom no rights stop."""
    put(tmp_path, "a.png", "closed/b.png")
    scandir = os.scandir

    def refusing(path: Path) -> object:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    source = read_works(tmp_path)
    assert names(source) == ["a.png"]
    assert codes(source) == {"closed": "unreadable-folder"}
    monkeypatch.setattr(
        os, "scandir", lambda path: (_ for _ in ()).throw(PermissionError(13, "Permission denied"))
    )
    with pytest.raises(WorksError, match="can't be read: Permission denied"):
        read_works(tmp_path)


def test_a_file_that_becomes_a_pipe_after_it_was_found_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "a.png")
    folder = Folder(tmp_path)
    folder.look_through()
    (tmp_path / "a.png").unlink()
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(OSError, match="isn't a regular file"):
        open_file(tmp_path / folder.files[0])
    with pytest.raises(OSError, match="isn't a regular file"):
        file_digest(tmp_path)
