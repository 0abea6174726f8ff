"""What every reader fills: works with their rows, and an account of what was taken and left out."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from das.errors import WorksError
from das.folder import Folder, Remark
from das.trainingsets.pictures import Place
from das.trainingsets.splits import other_splits

REGULARISATION = "regularisation"
"""The group of pictures that only kept a model from forgetting; they were trained on too."""
QUIET = frozenset({"not-an-image", "dropping", "hidden"})
"""What is left out of every folder and is no work that is missing."""
_NAMED = 5
_MOST_REPEATS = 1_000_000_000
"""Of one work, all sets in which it is and all rounds of regularisation taken together."""


@dataclass(frozen=True)
class ReadOptions:
    """How a source is read: links that lead out, and whether folders name creators."""

    follow_links: bool = False
    creator_from_folder: bool = False


@dataclass(frozen=True)
class SourceWorks:
    """Works as their source describes them, before any picture was opened.

    Attributes:
        table: the columns of `das.works.COLUMNS` without `id` and `digest`, and any further columns of the metadata;
            `file` is the path below `root`, with forward slashes, in the order that the index will keep. A picture in
            an archive or a table has the name of that and its own.
        places: where each work's bytes lie.
        left_out: what lies in the source, or is named by the metadata, and isn't read.
        remarks: what of the metadata was changed or is lacking.
        format: the convention that it was read by.
        captions: how many works have their prompt from which source.
    """

    root: Path
    table: pa.Table
    places: tuple[Place, ...]
    left_out: tuple[Remark, ...]
    remarks: tuple[Remark, ...]
    format: str
    captions: dict[str, int]

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @cached_property
    def paths(self) -> list[Path]:
        """What to call each work in messages; only where it is a file of its own can it be opened by that."""
        return [self.root / name for name in self.table["file"].to_pylist()]

    def read(self, row: int) -> bytes:
        """The bytes of a work's picture; raises OSError."""
        return self.places[row].read()

    def digest(self, row: int) -> str:
        """The sha256 of a work's bytes, in hex; raises OSError."""
        return self.places[row].digest()

    @property
    def prompts(self) -> int:
        """How many works have a prompt with something in it."""
        return sum(bool(prompt) for prompt in self.table["prompt"].to_pylist())

    def account(self) -> dict[str, Any]:
        """What was taken, for machines: format, works, captions, repeats, creators, groups, left out."""
        repeats = Counter(self.table["repeats"].to_pylist())
        return {
            "format": self.format,
            "works": len(self),
            "captions": self.captions,
            "without_prompt": len(self) - self.prompts,
            "repeats": {str(number): count for number, count in sorted(repeats.items())},
            "creators": _counts(self.table["creator"].to_pylist()),
            "groups": _counts(self.table["group"].to_pylist()),
            "left_out": _counts(remark.code for remark in self.left_out),
            "remarks": _counts(remark.code for remark in self.remarks),
        }

    def describe(self) -> list[str]:
        """The same in a few lines for people."""
        said = self.account()
        captions = [f"{count:,} from {label}" for label, count in self.captions.items()]
        if said["without_prompt"]:
            captions.append(f"{said['without_prompt']:,} without any")
        repeats = [f"{count:,} × {number}" for number, count in said["repeats"].items()]
        lines = [
            f"{len(self):,} works, read as {self.format}",
            f"prompts: {'; '.join(captions)}",
            f"repeats: {_some(repeats)}",
            f"creators: {_some(_labelled(said['creators'], 'not named'))}",
        ]
        if set(said["groups"]) - {""}:
            lines.append(f"groups: {_some(_labelled(said['groups'], 'none'))}")
        for title, entries in (("left out", self.left_out), ("to know", self.remarks)):
            firsts = {remark.code: remark for remark in reversed(entries)}
            counts = Counter(remark.code for remark in entries)
            lines += [
                f"{title}: {count:,} {code}, such as {firsts[code].file}: {firsts[code].message}"
                for code, count in counts.most_common()
            ]
        return lines


def _counts(values: Iterable[str | None]) -> dict[str, int]:
    return dict(
        sorted(Counter(value or "" for value in values).items(), key=lambda item: (-item[1], item[0]))
    )


def _labelled(counts: dict[str, int], nameless: str) -> list[str]:
    return [f"{name or nameless} {count:,}" for name, count in counts.items()]


def _some(parts: list[str]) -> str:
    more = f", and {len(parts) - _NAMED:,} more" if len(parts) > _NAMED else ""
    return ", ".join(parts[:_NAMED]) + more


@dataclass
class Work:
    """One work as a reader finds it."""

    file: str
    place: Place
    row: dict[str, Any] = field(default_factory=dict)
    caption: str | None = None
    """The words for where its prompt comes from."""

    def offer(self, prompt: str | None, caption: str) -> None:
        """Take a prompt where nothing that goes before has said one."""
        if prompt is not None and "prompt" not in self.row:
            self.row["prompt"], self.caption = prompt, caption

    def suggest(self, name: str, value: Any) -> None:
        """Take a column's value where the metadata doesn't say it."""
        if value is not None:
            self.row.setdefault(name, value)


class Collection:
    """Works, and what was left out or decided, while a source is read."""

    def __init__(self, root: Path, format: str) -> None:
        self.root = root
        self.format = format
        self.works: list[Work] = []
        self.left_out: list[Remark] = []
        self.remarks: list[Remark] = []

    def leave_out(self, file: str, code: str, message: str) -> None:
        """Remember something that isn't read, and why."""
        self.left_out.append(Remark(file, code, message))

    def leave_out_splits(self, names: list[str]) -> set[str]:
        """Leave out the files of splits that models aren't trained on; gives their names."""
        others = set(other_splits(names))
        for name in sorted(others):
            self.leave_out(
                name, "other-split", "its name is of a split that models are tested with, not trained on"
            )
        return others

    def remark(self, file: str, code: str, message: str) -> None:
        """Remember what was decided about something that is read."""
        self.remarks.append(Remark(file, code, message))

    def merge_repeated(self) -> None:
        """Make entries of one picture with the same prompt one work, trained on as often as all of them."""
        merged: dict[tuple[str, str, str], Work] = {}
        for work in self.works:
            key = (work.file, work.row.get("prompt", ""), work.row.get("group", ""))
            if key in merged:
                before = merged[key].row
                before["repeats"] = before.get("repeats", 1) + work.row.get("repeats", 1)
                message = "it is in several sets with one prompt; their repeats are added"
                self.remark(work.file, "repeats-added", message)
            else:
                merged[key] = work
        self.works = list(merged.values())

    def finish(self) -> SourceWorks:
        """The works as a table, in the order in which they were added."""
        # Here and not above: the columns' bounds are read with the files that carry them.
        from das.metadata import metadata_columns

        if not self.works:
            raise WorksError(f"{self.root} has no works that can be read as {self.format}.")
        for work in self.works:
            if work.row.get("repeats", 1) > _MOST_REPEATS:
                raise WorksError(
                    f"{self.root} repeats {work.file} {work.row['repeats']:,} times, by all that it says of it;"
                    f" at most {_MOST_REPEATS:,} can be counted."
                )
        files = [work.file for work in self.works]
        columns, remarks = metadata_columns(files, [work.row for work in self.works])
        captions = Counter(work.caption for work in self.works if work.row.get("prompt") and work.caption)
        return SourceWorks(
            self.root,
            pa.table({"file": pa.array(files, pa.string()), **columns}),
            tuple(work.place for work in self.works),
            tuple(self.left_out),
            (*self.remarks, *remarks),
            self.format,
            dict(captions.most_common()),
        )


def look_through(root: Path, options: ReadOptions) -> Folder:
    """A folder with its files; raises WorksError where it can't be looked into."""
    folder = Folder(root, options.follow_links)
    try:
        folder.look_through()
    except OSError as error:
        raise WorksError(f"{root} can't be read: {error.strerror}.") from error
    return folder


def counted_once(source: SourceWorks, remark: Remark) -> SourceWorks:
    """The same works with one more remark."""
    return replace(source, remarks=(*source.remarks, remark))
