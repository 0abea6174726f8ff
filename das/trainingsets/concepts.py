"""What configurations of training tools have in common: folders that they name, and the works in them."""

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from das.errors import WorksError
from das.folder import Folder, kind_at
from das.trainingsets.collection import Collection, ReadOptions, Work, look_through
from das.trainingsets.pictures import FilePlace


@dataclass(frozen=True)
class Concept:
    """A folder that a configuration names, and the pictures in it that its tool reads."""

    folder: Folder
    names: tuple[str, ...]


def open_folder(said: str, place: str, base: Path, options: ReadOptions) -> Path:
    """Where a named folder is: relative ones beside the configuration, or else in the current directory.

    Raises:
        WorksError: it is in neither place.
    """
    for candidate in (base / said, Path(said)):
        if kind_at(candidate) == stat.S_IFDIR:
            return Path(os.path.abspath(candidate))  # noqa: PTH100 - without following links
    raise WorksError(
        f"{place} names the folder {said!r}, which isn't there (relative ones are looked for beside the configuration"
        " and in the current directory)."
    )


def look_into(
    path: Path, suffixes: Iterable[str], into: Collection, options: ReadOptions, *, deep: bool
) -> Concept:
    """The pictures of a folder that a tool reads; what else is there is left out and told."""
    folder = look_through(path, options)
    endings = frozenset(suffixes)
    names = []
    captions = (".txt", ".caption")
    stems = {
        PurePosixPath(name).with_suffix("").as_posix() for name in folder.files if not name.endswith(captions)
    }
    into.left_out += folder.left_out
    for name in sorted(folder.files):
        pure = PurePosixPath(name)
        if not deep and len(pure.parts) > 1:
            into.leave_out(
                label(path / name, into), "in-a-subfolder", "the tool reads the folder itself alone"
            )
        elif pure.suffix.lower() in endings:
            names.append(name)
        elif pure.suffix not in captions or pure.with_suffix("").as_posix() not in stems:
            into.leave_out(
                label(path / name, into), "not-an-image", "its name doesn't end like a picture that it reads"
            )
    return Concept(folder, tuple(names))


def work_of(path: Path, into: Collection) -> Work:
    """A work that is a file, under its name in the collection."""
    return Work(label(path, into), FilePlace(path))


def label(path: Path, into: Collection) -> str:
    """What a file is called: its path below the configuration's folder, or else the whole path."""
    return (
        path.relative_to(into.root).as_posix()
        if path.is_relative_to(into.root)
        else path.as_posix().lstrip("/")
    )


def tell_once(into: Collection, place: str, code: str, message: str) -> None:
    """A remark about a configuration as a whole."""
    into.remark(place, code, message)
