"""Which split of a set a file belongs to: what models are trained on, or what they are tested with.

Splits are told by the words, and the signs between them, by which Hugging Face's `datasets` tells them.
"""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from das.folder import Remark

_TRAIN = frozenset({"train", "training"})
_OTHER = frozenset({"test", "testing", "eval", "evaluation", "valid", "validation", "val", "dev"})
_BETWEEN = re.compile(r"[-._ 0-9]+")


def other_splits(names: Sequence[str]) -> list[str]:
    """The files of splits that models aren't trained on, where there is one that they are: by file and folders.

    Args:
        names: paths below the folder of the set.
    """
    said = {name: _split(name) for name in names}
    return [name for name in names if said[name] is False] if True in said.values() else []


def remarks_of_folders(names: Sequence[str]) -> list[Remark]:
    """A remark for each folder of pictures that is called as a test split is, beside one that is called train."""
    folders = {folder for name in names for folder in PurePosixPath(name).parents if folder.name}
    train = {folder.parent: folder for folder in folders if folder.name.lower() in _TRAIN}
    return [
        Remark(
            folder.as_posix(),
            "test-folder",
            f"its pictures are taken, though it lies beside {train[folder.parent].name}; if the model was trained on"
            " that alone, give that folder",
        )
        for folder in sorted(folders)
        if folder.name.lower() in _OTHER and folder.parent in train
    ]


def _split(name: str) -> bool | None:
    """Whether a path is of a split that is trained on; None if it names none. The innermost name decides."""
    pure = PurePosixPath(name)
    for part in (pure.stem, *reversed(pure.parent.parts)):
        words = set(_BETWEEN.split(part.lower()))
        train, other = bool(words & _TRAIN), bool(words & _OTHER)
        if train != other:
            return train
    return None
