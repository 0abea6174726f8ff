"""What a batch keeps, and what it finds in folders and archives."""

import json
import zipfile
from pathlib import Path

import pytest

from das_client import UsageError, table
from das_client.ledger import Ledger
from das_client.models import Attribution
from das_client.sources import MOST_BYTES, sources

ASKED = ("a.png", "0" * 64)
DOCUMENT = json.loads((Path(__file__).parents[2] / "docs" / "openapi.json").read_text(encoding="utf-8"))
ANSWER = DOCUMENT["components"]["examples"]["succeeded"]["value"]


def test_a_key_is_kept_until_all_is_answered(tmp_path: Path) -> None:
    out = tmp_path / "new" / "results.jsonl"
    with Ledger(out) as ledger:
        key = ledger.key(ASKED)
        assert ledger.key(ASKED) == key
    with Ledger(out) as ledger:
        assert ledger.key(ASKED) == key
        assert ledger.renew(ASKED) != key
        renewed = ledger.key(ASKED)
    with Ledger(out) as ledger:
        assert ledger.key(ASKED) == renewed
        assert not ledger.answered(ASKED)
        ledger.write(ASKED, {"id": "att_1"})
        assert ledger.answered(ASKED)
        ledger.complete()
    assert [path.name for path in out.parent.iterdir()] == ["results.jsonl"]
    assert json.loads(out.read_text()) == {"picture": "a.png", "digest": "0" * 64, "answer": {"id": "att_1"}}
    with Ledger(out) as ledger:
        assert ledger.answered(ASKED)


@pytest.mark.parametrize("left", [b"{", b'{"picture": "b.p', b"\xff\xfe", b'{"picture": "b", "digest": "1"}'])
def test_half_a_line_is_cut_off(tmp_path: Path, left: bytes) -> None:
    out = tmp_path / "results.jsonl"
    with Ledger(out) as ledger:
        ledger.write(ASKED, {"id": "att_1"})
    whole = out.read_bytes()
    out.write_bytes(whole + left)
    with Ledger(out) as ledger:
        assert ledger.answered(ASKED)
        assert not ledger.answered(("b", "1"))
        ledger.write(("c", "2"), {})
    assert out.read_bytes().startswith(whole + b'{"picture": "c"')


@pytest.mark.parametrize("content", [b"title,creator\n", b"[]\n", b'{"a": 1}\n', b"\n"])
def test_another_file_is_left_alone(tmp_path: Path, content: bytes) -> None:
    out = tmp_path / "mine.csv"
    out.write_bytes(content)
    with pytest.raises(UsageError, match="another file"), Ledger(out):
        pass
    assert out.read_bytes() == content


def test_two_batches_do_not_write_one_file(tmp_path: Path) -> None:
    out = tmp_path / "results.jsonl"
    with Ledger(out), pytest.raises(UsageError, match="another batch"), Ledger(out):
        pass
    with pytest.raises(UsageError, match="can't be written"), Ledger(Path("/proc/none/results.jsonl")):
        pass


def test_pictures_of_folders_archives_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("in/b.PNG", "in/deep/a.jpg", "in/notes.txt", "in/.hidden/c.png", "in/.d.png", "odd.bin"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(name.encode())
    with zipfile.ZipFile("some.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/one.png", b"1")
        archive.writestr("../../two.png", b"2")
        archive.writestr("read.me", b"no")
        archive.writestr("large.png", bytes(MOST_BYTES + 1))
    found = sources([Path("in"), Path("some.zip"), Path("odd.bin")])
    assert [source.name for source in found] == [
        "in/b.PNG", "in/deep/a.jpg", "some.zip/../../two.png", "some.zip/large.png", "some.zip/x/one.png", "odd.bin",
    ]  # fmt: skip
    assert [found[n].read() for n in (0, 1, 2, 4, 5)] == [
        b"in/b.PNG",
        b"in/deep/a.jpg",
        b"2",
        b"1",
        b"odd.bin",
    ]
    with pytest.raises(UsageError, match="larger than 25 MB"):
        found[3].read()
    with pytest.raises(UsageError, match="doesn't exist"):
        sources([Path("nowhere")])
    with pytest.raises(UsageError, match="two pictures are called"):
        sources([Path("in"), Path("in")])


def test_a_title_cannot_command_a_terminal() -> None:
    answer = Attribution.model_validate(ANSWER)
    assert answer.works
    answer.works[0].title = "\x1b[2Jgone\r\n\x9b31m\u202ehidden\x07" + "x" * 200
    answer.works[0].creator = "北斎" * 30
    shown = table.answer(answer)
    assert not [c for c in shown if not c.isprintable() and c != "\n"]
    lines = shown.splitlines()
    assert len(lines) == 1 + 1 + len(answer.works) + len(answer.notes) + (
        answer.copied is not None and answer.copied.summary is not None
    )
    (row,) = [line for line in lines if "gone" in line]
    assert "\N{REPLACEMENT CHARACTER}[2Jgone" in row
    assert "x" * 41 not in row


@pytest.mark.parametrize(
    ("share", "told"),
    [
        (0.0, "< 0.1 %"), (0.0004, "< 0.1 %"), (0.001, "0.1 %"), (0.1234, "12.3 %"), (0.9994, "99.9 %"),
        (0.9997, "> 99.9 %"), (1 - 1e-12, "100.0 %"), (1.0, "100.0 %"),
    ],
)  # fmt: skip
def test_a_little_is_not_told_as_nothing_nor_nearly_all_as_all(share: float, told: str) -> None:
    answer = Attribution.model_validate(ANSWER)
    assert answer.works
    answer.works[0].share = share
    assert f"  {told}  " in table.answer(answer)
