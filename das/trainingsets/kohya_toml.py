"""sd-scripts' dataset configurations (TOML or JSON): what each subset's pictures were trained with."""

import json
import stat
from pathlib import Path
from typing import Any

from das.errors import WorksError
from das.folder import kind_at
from das.metadata import without_duplicates
from das.trainingsets.captions import beside, read_caption
from das.trainingsets.collection import REGULARISATION, Collection, ReadOptions, SourceWorks, Work
from das.trainingsets.concepts import look_into, open_folder, work_of
from das.trainingsets.documents import Section, read_document
from das.trainingsets.regularisation import balance

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".avif")
_RANDOM = {
    "shuffle_caption": "the order of its tags",
    "enable_wildcard": "its wildcards and lines",
    "caption_tag_dropout_rate": "its tags",
}


def read_kohya_toml(path: Path, options: ReadOptions) -> SourceWorks:
    """Read a dataset configuration.

    Raises:
        WorksError: it can't be understood, or names what isn't there.
    """
    whole = Section(read_document(path), str(path))
    into = Collection(Path(path.parent.absolute()), "kohya-toml")
    general = Section(whole.get("general", dict, {}), f"{path}, general")
    for dataset in whole.sections("datasets", general):
        works: list[Work] = []
        seen: set[str] = set()
        for subset in dataset.sections("subsets", dataset, general):
            name = subset.file_name("metadata_file") or subset.file_name("image_dir")
            if not name:
                raise WorksError(f"{subset.place} has neither image_dir nor metadata_file.")
            repeats = subset.get("num_repeats", int, 1)
            if name in seen:
                into.leave_out(
                    name, "subset-twice", f"{subset.place} is there before; sd-scripts takes the first"
                )
            elif repeats < 1:
                into.leave_out(
                    name, "no-repeats", f"{subset.place} has num_repeats {repeats}, so it isn't trained on"
                )
            else:
                works += _Subset(subset, repeats, into, options).works()
            seen.add(name)
        if dataset.get("validation_split", (int, float), 0):
            message = "validation_split keeps some pictures out of training; which ones can't be told, all are taken"
            into.remark(dataset.place, "validation-split", message)
        into.works += balance(works, into)
    into.merge_repeated()
    return into.finish()


class _Subset:
    def __init__(self, section: Section, repeats: int, into: Collection, options: ReadOptions) -> None:
        self._section = section
        self._repeats = repeats
        self._into = into
        self._options = options
        self._separator = section.get("caption_separator", str, ",")

    def works(self) -> list[Work]:
        section = self._section
        metadata = section.file_name("metadata_file")
        found = self._of_metadata(metadata) if metadata else self._of_folder()
        for name, what in _RANDOM.items():
            if section.get(name, (bool, int, float)):
                message = f"{name} draws {what} anew at each step; captions are taken as they are written"
                self._into.remark(section.place, "random-caption", message)
        if rate := section.get("caption_dropout_rate", (int, float), 0):
            message = (
                f"captions were dropped with rate {rate}; --prompt-dropout {rate} of das build does alike"
            )
            self._into.remark(section.place, "caption-dropout", message)
        return found

    def _of_folder(self) -> list[Work]:
        section = self._section
        path = open_folder(
            section.file_name("image_dir") or "", section.place, self._into.root, self._options
        )
        concept = look_into(path, _SUFFIXES, self._into, self._options, deep=False)
        files = set(concept.folder.files)
        said = section.file_name("caption_extension")
        ending = said if said is None or said.startswith(".") else f".{said}"
        if ending is None:
            ending = ".caption"
            if not any(beside(name, ending) in files for name in concept.names) and any(
                beside(name, ".txt") in files for name in concept.names
            ):
                ending = ".txt"
                message = (
                    "it names no caption_extension and no .caption files are there; the .txt files are taken"
                )
                self._into.remark(section.place, "caption-extension", message)
        found = []
        for name in concept.names:
            work = work_of(path / name, self._into)
            if beside(name, ending) in files:
                caption = read_caption(path / beside(name, ending))
                work.offer(self._processed(caption.first), f"{ending} files")
            tokens = section.get("class_tokens", str)
            work.offer(
                self._processed(tokens or ""),
                "class_tokens" if tokens else "caption_prefix and caption_suffix",
            )
            regularisation = section.get("is_reg", bool, False)
            if regularisation:
                work.row["group"] = REGULARISATION
            elif self._options.creator_from_folder:
                work.suggest("creator", path.name)
            work.row["repeats"] = self._repeats
            found.append(work)
        return found

    def _processed(self, caption: str) -> str:
        """A caption as sd-scripts makes it where nothing is random."""
        section = self._section
        if prefix := section.get("caption_prefix", str):
            caption = f"{prefix} {caption}"
        if suffix := section.get("caption_suffix", str):
            caption = f"{caption} {suffix}"
        if secondary := section.get("secondary_separator", str):
            caption = caption.replace(secondary, self._separator)
        return caption.strip()

    def _of_metadata(self, name: str) -> list[Work]:
        section = self._section
        base = self._into.root
        path = base / name if kind_at(base / name) == stat.S_IFREG else Path(name)
        said = section.file_name("image_dir")
        folder = open_folder(said, section.place, base, self._options) if said else None
        entries: Any
        if path.suffix == ".jsonl":
            entries = _entries_of_lines(path)
        else:
            entries = read_document(path) if path.suffix == ".json" else None
        if not isinstance(entries, dict):
            raise WorksError(f"{path} isn't a JSON object of pictures and what is said of them.")
        found = []
        for key, value in entries.items():
            entry = Section(value, f"{path}, {key[:100]}")
            place = Path(key) if Path(key).is_absolute() else (folder / key if folder else None)
            if place is None:
                raise WorksError(
                    f"{entry.place} is a relative path; {section.place} has to name its image_dir."
                )
            home = folder or self._into.root
            if "\0" in key or (
                not place.resolve().is_relative_to(home.resolve()) and not self._options.follow_links
            ):
                raise WorksError(
                    f"{entry.place} leads out of {home}; name its folder as image_dir, or give --follow-links."
                )
            if kind_at(place) != stat.S_IFREG:
                self._into.leave_out(key, "missing-file", f"{path} names a file that isn't there")
                continue
            work = work_of(place, self._into)
            parts = (entry.get("caption", str, ""), entry.get("tags", str, ""))
            work.offer(self._processed(self._separator.join(part for part in parts if part)), "metadata_file")
            work.row["repeats"] = self._repeats
            if self._options.creator_from_folder:
                work.suggest("creator", place.parent.name)
            found.append(work)
        if entries and not found:
            raise WorksError(f"none of the {len(entries):,} pictures that {path} names is there.")
        return found


def _entries_of_lines(path: Path) -> dict[str, Any]:
    try:
        lines = path.read_text("utf-8-sig").splitlines()
        rows = [json.loads(line, object_pairs_hook=without_duplicates) for line in lines if line.strip()]
        return {row["image_path"]: row for row in rows}
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
        raise WorksError(f"{path} isn't JSON lines with image_path: {error}") from error
