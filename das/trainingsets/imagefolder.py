"""Folders: pictures with `metadata.csv` or `.jsonl`, captions beside them, and kohya's `<repeats>_<words>` folders.

What several places say of a work is settled in this order: metadata, the caption file beside the picture, the
folder's name.
"""

import re
import stat
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from das.errors import WorksError
from das.folder import Folder, Remark, is_utf8, kind_at, readable
from das.metadata import metadata_rows
from das.trainingsets.captions import SIDECARS, beside, read_caption
from das.trainingsets.collection import REGULARISATION, Collection, ReadOptions, SourceWorks, Work
from das.trainingsets.pictures import FilePlace
from das.trainingsets.regularisation import balance
from das.trainingsets.spelling import MAX_REPEATS, Spelled
from das.trainingsets.splits import remarks_of_folders

_PLAIN_SUFFIXES = (".bmp", ".dib", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".ppm", ".webp")
_RARER_SUFFIXES = (".avif", ".heic", ".heif", ".jp2", ".tif", ".tiff")
IMAGE_SUFFIXES = frozenset((*_PLAIN_SUFFIXES, *_RARER_SUFFIXES))
METADATA_NAMES = ("metadata.csv", "metadata.jsonl")

_MOST_LIKELY_REPEATS = 999
"""A folder `2019_holiday` is a year's, unless --works-format says that it is kohya's."""


class Numbered(NamedTuple):
    """A folder of kohya's: how often its pictures are repeated, its words, and whether it is for regularisation."""

    repeats: int
    words: str
    regularisation: bool


def is_picture(name: str) -> bool:
    """Whether a name ends like a picture's."""
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def numbered(name: str) -> tuple[int, str] | None:
    """Repeats and words of a folder's name, as sd-scripts reads it; None where there is no number."""
    number, _, words = name.partition("_")
    if not re.fullmatch(r"\s*\+?[0-9]{1,7}\s*", number):
        return None
    return int(number), words.strip()


def kohya_folders(folder: Folder, *, certain: bool) -> dict[str, Numbered]:
    """The numbered folders that hold pictures, in the folder itself or in its `img` (and `reg`).

    Args:
        certain: the user said that they are kohya's, so that any number counts.
    """
    holding = {PurePosixPath(name).parent for name in folder.files if is_picture(name)}
    found: dict[str, Numbered] = {}
    for base, regularisation in (("", False), ("img", False), ("reg", True)):
        if base and not found and regularisation:
            continue
        if base == "img" and found:
            continue
        for parent in holding:
            if parent.parent != PurePosixPath(base):
                continue
            said = numbered(parent.name)
            if said and 1 <= said[0] <= (MAX_REPEATS if certain else _MOST_LIKELY_REPEATS):
                found[parent.as_posix()] = Numbered(*said, regularisation)
    # Folders that are called 0, 1, 2 and no more are classes, or parts of a large set.
    kohyas = any(one.regularisation or "_" in PurePosixPath(name).name for name, one in found.items())
    return found if certain or kohyas else {}


def read_folder(folder: Folder, options: ReadOptions, *, kohya: dict[str, Numbered]) -> SourceWorks:
    """Read a folder that was looked through.

    Raises:
        WorksError: there is nothing to read; metadata can't be understood, or none of its rows fits a picture.
    """
    reader = _FolderReader(folder, options, kohya)
    return reader.read()


class _FolderReader:
    def __init__(self, folder: Folder, options: ReadOptions, kohya: dict[str, Numbered]) -> None:
        self._folder = folder
        self._options = options
        self._kohya = kohya
        self._found = {name for name in folder.files if is_picture(name)}
        self._rows = NamedRows(folder, self._found)
        self._taken: set[str] = set()
        self._files = set(folder.files)
        self._into = Collection(folder.root, "kohya" if kohya else "imagefolder")

    def read(self) -> SourceWorks:
        folder, rows = self._folder, self._rows
        metadata = _metadata_files(folder)
        for path in metadata:
            rows.read(path)
        names = sorted(self._found | rows.rows.keys())
        if self._kohya:
            names = [name for name in names if self._is_trained_on(name)]
        if not names:
            raise WorksError(nothing_there(folder))
        works = [self._work(name) for name in names]
        self._into.works = balance(works, self._into)
        self._into.remarks += rows.remarks + remarks_of_folders(names)
        if metadata:
            unnamed = [name for name in names if name not in rows.rows]
            self._into.remarks += [
                Remark(name, "no-metadata", "no row of the metadata names it") for name in unnamed
            ]
        own = {path.relative_to(folder.root).as_posix() for path in metadata}
        for name in sorted(self._files - self._found - rows.rows.keys() - own - self._taken):
            folder.left_out.append(Remark(name, "not-an-image", "its name doesn't end like a picture's"))
        self._into.left_out = folder.left_out + self._into.left_out
        return self._into.finish()

    def _is_trained_on(self, name: str) -> bool:
        if name in self._rows.rows or PurePosixPath(name).parent.as_posix() in self._kohya:
            return True
        self._into.leave_out(
            name,
            "not-numbered",
            "kohya trains on what lies in folders such as 10_words and skips the rest; --works-format imagefolder"
            " reads all",
        )
        return False

    def _work(self, name: str) -> Work:
        said = self._rows.rows.get(name)
        work = Work(name, FilePlace(self._folder.root / name))
        if said is not None:
            work.row, work.caption = said.values, said.caption and f"column {said.caption}"
        self._offer_sidecar(work)
        parent = PurePosixPath(name).parent
        numbers = self._kohya.get(parent.as_posix())
        if numbers:
            work.offer(numbers.words or None, "the folder's name")
            work.suggest("repeats", numbers.repeats)
            if numbers.regularisation:
                work.suggest("group", REGULARISATION)
        if self._options.creator_from_folder and not (numbers and numbers.regularisation):
            work.suggest("creator", (numbers.words if numbers else parent.name) or None)
        return work

    def _alike_sidecars(self, name: str) -> list[str]:
        """Captions whose names differ from the expected ones as systems write them, if they can be of this alone."""
        if len(self._stems.get(composed(beside(name, "")), [])) != 1:
            return []
        return [
            alike[0]
            for ending in SIDECARS
            if len(alike := self._sidecars.get(composed(beside(name, "")) + ending, [])) == 1
        ]

    @cached_property
    def _stems(self) -> dict[str, list[str]]:
        return _by_key(self._found, lambda name: composed(beside(name, "")))

    @cached_property
    def _sidecars(self) -> dict[str, list[str]]:
        names = [name for name in self._files if PurePosixPath(name).suffix.lower() in SIDECARS]
        return _by_key(names, lambda name: composed(beside(name, "")) + PurePosixPath(name).suffix.lower())

    def _offer_sidecar(self, work: Work) -> None:
        there = [beside(work.file, ending) for ending in SIDECARS if beside(work.file, ending) in self._files]
        there = there or self._alike_sidecars(work.file)
        self._taken.update(there)
        if not there or "prompt" in work.row:
            return
        captions = [read_caption(self._folder.root / name) for name in there]
        ending = PurePosixPath(there[0]).suffix
        work.offer(captions[0].first, f"{ending} files")
        if len({caption.first for caption in captions}) > 1:
            message = f"{' and '.join(there)} differ; the first is taken"
            self._into.remark(work.file, "two-captions", message)
        if len(captions[0].lines) > 1:
            message = f"{there[0]} has {len(captions[0].lines)} lines; the first is taken, as sd-scripts does"
            self._into.remark(work.file, "caption-of-lines", message)


def _metadata_files(folder: Folder) -> list[Path]:
    by_folder: dict[Path, list[Path]] = defaultdict(list)
    for name in folder.files:
        if PurePosixPath(name).name in METADATA_NAMES:
            by_folder[(folder.root / name).parent].append(folder.root / name)
    for here, files in by_folder.items():
        if len(files) > 1:
            raise WorksError(f"{here} has both {' and '.join(METADATA_NAMES)}; keep one.")
    return [path for _, (path,) in sorted(by_folder.items())]


def composed(name: str) -> str:
    """A name with its letters composed: some systems keep them taken apart."""
    return unicodedata.normalize("NFC", name)


def _by_key(names: Iterable[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for name in names:
        found[key(name)].append(name)
    return found


def nothing_there(folder: Folder) -> str:
    """Why a folder has no works, in a sentence."""
    codes = Counter(remark.code for remark in folder.left_out)
    if links := codes["outside-link"] + codes["linked-folder"]:
        return (
            f"{folder.root} holds no images but {links:,} links, as a model hub's cache does. Give --follow-links to"
            " read the files outside that they lead to."
        )
    return f"{folder.root} holds no images (looked for {', '.join(sorted(IMAGE_SUFFIXES))})."


class NamedRows:
    """Rows of metadata by the files that they name, and what was found on the way."""

    def __init__(self, folder: Folder, found: set[str]) -> None:
        self.rows: dict[str, Spelled] = {}
        self.remarks: list[Remark] = []
        self._folder = folder
        self._found = found
        self._places: dict[str, str] = {}

    def read(self, path: Path) -> None:
        """Take a metadata file; raises WorksError where it has rows and none of them fits a picture."""
        rows = fitting = 0
        first = ""
        for place, row in metadata_rows(path):
            name = self._name(row.values.pop("file_name", None), path.parent, place)
            rows, fitting = rows + 1, fitting + self.add(name, row, place)
            first = first or name
        if rows and not fitting:
            beside_it = kind_at(path.parent / PurePosixPath(first).name) == stat.S_IFREG
            hint = f"; {PurePosixPath(first).name} lies beside the metadata itself" if beside_it else ""
            raise WorksError(
                f"none of the {rows:,} rows of {path} fits a picture: the first leads to {self._folder.root / first},"
                f" which can't be read{hint}. Names are relative to the metadata file; mend them, or remove the file."
            )

    def _name(self, said: Any, base: Path, place: str) -> str:
        name = inside(said, base, self._folder.root, place)
        if name not in self._found and isinstance(said, str) and said != said.strip():
            stripped = inside(said.strip(), base, self._folder.root, place)
            return stripped if stripped in self._found else name
        if name in self._found or not isinstance(said, str):
            return name
        # As other systems write the name: with backslashes, or with its letters composed otherwise.
        alike = self._alike.get(composed(inside(said.replace("\\", "/"), base, self._folder.root, place)), [])
        return alike[0] if len(alike) == 1 else name

    @cached_property
    def _alike(self) -> dict[str, list[str]]:
        """The pictures by their names with composed letters."""
        return _by_key(self._found, composed)

    def add(self, name: str, row: Spelled, place: str) -> bool:
        """Take the row of a file; whether it is there. Raises WorksError if another row named it already."""
        if name in self._places:
            raise WorksError(
                f"{place} names {name}, which {self._places[name]} named already; keep one of the rows."
            )
        self._places[name] = place
        remark = None if name in self._found else self._folder.why_not(self._folder.root / name)
        if remark is None:
            self.rows[name] = row
            self.remarks += [Remark(name, *note) for note in row.notes]
            return True
        if remark.code == "missing-file":
            self._folder.left_out.append(Remark(name, remark.code, f"{place} names a file that isn't there"))
        elif remark not in self._folder.left_out:
            self._folder.left_out.append(remark)
        return False


def inside(file_name: Any, base: Path, root: Path, place: str) -> str:
    """`file_name`, relative to `base`, as a path below `root`; refuses what leads elsewhere."""
    if not isinstance(file_name, str) or not file_name.strip():
        raise WorksError(f"{place} has no file_name.")
    pure = PurePosixPath(file_name)
    if "\0" in file_name or not _is_text(file_name):
        raise WorksError(f"{place} names {readable(ascii(file_name))}, which can't be the name of a file.")
    if pure.is_absolute() or ".." in pure.parts or not pure.parts:
        raise WorksError(f"{place} names {file_name!r}; file names are relative and stay inside {base}.")
    return (base.relative_to(root) / pure).as_posix()


def _is_text(name: str) -> bool:
    try:
        return is_utf8(name)
    except UnicodeEncodeError:  # a lone surrogate that stands for no byte
        return False
