"""What a LoRA's file says of its training, held against the works and the base that an index is built of.

kohya's trainer writes it into the header as `ss_…`. It is a claim of whoever made the file; but an index over the
wrong works answers as fluently as one over the right ones, so what disagrees is said before anything is computed.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from das.models import DiffusionModel
from das.models.lora import Loaded
from das.models.lora.kinds import shown
from index_build.base_facts import base_disagreements
from index_build.inputs import WorksOnDisk

_MOST_JSON = 1_000_000
_SHOWN_FOLDERS = 10
_KEPT = (
    "ss_base_model_version",
    "modelspec.architecture",
    "modelspec.prediction_type",
    "ss_zero_terminal_snr",
    "ss_clip_skip",
    "ss_max_token_length",
    "ss_sd_model_name",
    "ss_sd_model_hash",
    "ss_new_sd_model_hash",
    "ss_v2",
    "ss_network_module",
    "ss_num_train_images",
    "ss_num_reg_images",
    "ss_caption_dropout_rate",
    "ss_seed",
)


@dataclass(frozen=True)
class Folder:
    """A folder of training pictures, as the trainer counted it."""

    name: str
    images: int
    repeats: int
    regularisation: bool


def kept_facts(metadata: Mapping[str, str]) -> dict[str, str]:
    """What a manifest keeps of a header: short, printable texts."""
    return {name: shown(metadata[name]) for name in _KEPT if name in metadata}


def disagreements(
    loaded: Loaded, model: DiffusionModel, source: str, works: WorksOnDisk, prompt_dropout: float
) -> list[str]:
    """Sentences of what the header says otherwise than the works, the base and the options do.

    Args:
        source: of the base.
        prompt_dropout: what the build was asked to use.
    """
    metadata = loaded.metadata
    return [
        *base_disagreements(metadata, model, source),
        *_of_works(metadata, works),
        *_of_dropout(metadata, prompt_dropout),
    ]


def _of_dropout(metadata: Mapping[str, str], prompt_dropout: float) -> list[str]:
    rate = _number(metadata.get("ss_caption_dropout_rate"))
    if rate is None or not 0 <= rate <= 1 or math.isclose(rate, prompt_dropout):
        return []
    return [f"it was trained with a caption dropout of {rate:g}, and --prompt-dropout is {prompt_dropout:g}"]


def _of_works(metadata: Mapping[str, str], works: WorksOnDisk) -> list[str]:
    folders = _folders(metadata)
    table = works.source.table
    repeats = [int(value or 1) for value in table["repeats"].to_pylist()]
    by_folder: dict[str, list[int]] = {}
    for file, count in zip(table["file"].to_pylist(), repeats, strict=True):
        for name in {works.source.root.name, *PurePosixPath(file).parts[:-1]}:
            by_folder.setdefault(name, []).append(count)
    trained = [folder for folder in folders if not folder.regularisation]
    if folders and all(folder.name in by_folder for folder in trained):
        return _listed([said for folder in folders for said in _of_folder(folder, by_folder)])
    if folders and not any(folder.name in by_folder for folder in trained):
        images = sum(folder.images for folder in trained)
        shows = sum(folder.images * folder.repeats for folder in trained)
        names = ", ".join(repr(shown(folder.name)) for folder in trained[:_SHOWN_FOLDERS])
        if images == len(works) and shows == sum(repeats):
            return []
        return [
            f"it was trained on {images:,} pictures in {names}, {shows:,} with their repeats; the works are"
            f" {len(works):,}, {sum(repeats):,} with theirs, and in none of these folders"
        ]
    if folders:
        return _listed([said for folder in folders for said in _of_folder(folder, by_folder)])
    told = _number(metadata.get("ss_num_train_images"))
    reg = _number(metadata.get("ss_num_reg_images")) or 0
    if told is None or sum(repeats) in (told, told + reg):
        return []
    return [
        f"it was trained on {told:,.0f} pictures with their repeats (ss_num_train_images), and the works are"
        f" {sum(repeats):,} with theirs"
    ]


def _of_folder(folder: Folder, by_folder: Mapping[str, list[int]]) -> list[str]:
    name = repr(shown(folder.name))
    kind = "regularisation pictures" if folder.regularisation else "pictures"
    if folder.name not in by_folder:
        return [f"it was trained on {folder.images:,} {kind} in {name}, a folder that the works don't have"]
    ours = by_folder[folder.name]
    found = []
    if len(ours) != folder.images:
        found.append(
            f"it was trained on {folder.images:,} {kind} in {name}, and the works have {len(ours):,} there"
        )
    if set(ours) != {folder.repeats}:
        given = ", ".join(map(str, sorted(set(ours))[:3]))
        found.append(
            f"those in {name} were repeated {folder.repeats:,} times, and the works there {given} times"
        )
    return found


def _listed(found: list[str]) -> list[str]:
    if len(found) <= _SHOWN_FOLDERS:
        return found
    return [*found[:_SHOWN_FOLDERS], f"and {len(found) - _SHOWN_FOLDERS:,} more of such"]


def _folders(metadata: Mapping[str, str]) -> list[Folder]:
    """The folders of `ss_dataset_dirs` and `ss_reg_dataset_dirs`, or of `ss_datasets` (kohya's TOML)."""
    found = []
    for key, regularisation in (("ss_dataset_dirs", False), ("ss_reg_dataset_dirs", True)):
        body = _parsed(metadata.get(key))
        for name, entry in body.items() if isinstance(body, dict) else ():
            found.append(_folder(name, entry, "n_repeats", regularisation))
    if not any(found):
        datasets = _parsed(metadata.get("ss_datasets"))
        for dataset in datasets if isinstance(datasets, list) else ():
            subsets = dataset.get("subsets") if isinstance(dataset, dict) else None
            for entry in subsets if isinstance(subsets, list) else ():
                if isinstance(entry, dict):
                    name = PurePosixPath(str(entry.get("image_dir") or "").replace("\\", "/")).name
                    found.append(_folder(name, entry, "num_repeats", entry.get("is_reg") is True))
    return [folder for folder in found if folder is not None]


def _folder(name: Any, entry: Any, repeats_key: str, regularisation: bool) -> Folder | None:
    if not isinstance(name, str) or not name or not isinstance(entry, dict):
        return None
    images, repeats = (_number(entry.get(key)) for key in ("img_count", repeats_key))
    if images is None or repeats is None or not (0 <= images < 1e9 and 0 <= repeats < 1e9):
        return None
    return Folder(name, int(images), int(repeats), regularisation)


def _parsed(text: str | None) -> Any:
    """JSON in a header's text; None for what isn't, or is larger than any trainer writes."""
    if text is None or len(text) > _MOST_JSON:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str) or len(str(value)) > 30:
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
