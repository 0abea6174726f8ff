"""Manifests of indexes that are made of another one, whose places are told relative to the index."""

import os
from pathlib import Path
from typing import Any

from das.manifest import Manifest, ModelRecord


def seen_from(manifest: Manifest, index: Path, out: Path) -> Manifest:
    """The manifest of what lies at `index`, with its relative places as they are seen from `out`."""
    screening, copies = manifest.screening, manifest.copies
    if screening is not None:
        screening = screening.model_copy(update={"relative": _relative(screening.relative, index, out)})
    if copies is not None and copies.sscd is not None:
        seen = _relative(copies.sscd.relative, index, out)
        copies = copies.model_copy(update={"sscd": copies.sscd.model_copy(update={"relative": seen})})
    return manifest.model_copy(
        update={
            "model": _model(manifest.model, index, out),
            "checkpoints": tuple(_model(one, index, out) for one in manifest.checkpoints),
            "screening": screening,
            "copies": copies,
        }
    )


def _model(record: ModelRecord, index: Path, out: Path) -> ModelRecord:
    changes: dict[str, Any] = {"relative": _relative(record.relative, index, out)}
    for name in ("config", "network"):
        place = getattr(record, name)
        if place is not None:
            changes[name] = place.model_copy(update={"relative": _relative(place.relative, index, out)})
    return record.model_copy(update=changes)


def _relative(relative: str | None, index: Path, out: Path) -> str | None:
    return None if relative is None else os.path.relpath(os.path.normpath(index.resolve() / relative), out)
