"""About what an index and its model take once they are loaded, told before from the sizes of files.

Whoever has loaded them measures it (`worker.memory`); this is for deciding whether to begin. Left out are what a
library keeps for itself, caches, and what a pass needs while it runs.
"""

from pathlib import Path

from das.config import FeatureSet
from das.index import AttributionIndex
from das.methods import ACTIVATION
from das.scoring import resident_bytes, search_bytes
from das.sources import ModelSource

_SINGLE = 4
_TABLE = 8
"""Bytes of a sketch's table for each attributed parameter (das.sketch)."""


def model_bytes(index: AttributionIndex) -> int:
    """Bytes of the model of `index` with its LoRAs, loaded in single precision.

    Raises:
        ModelError: a part of it is nowhere.
    """
    files = _weights(index.model_source) + sum(_size(Path(lora.source)) for lora in index.loras)
    return max(files, _SINGLE * int(index.manifest.model.identity.get("parameters", 0)))


def index_bytes(index: AttributionIndex, device: str = "cpu") -> int:
    """Bytes of what `index` itself takes: features, kernels, search and sketches, further checkpoints, SSCD.

    Raises:
        ModelError: a checkpoint is nowhere.
    """
    manifest = index.manifest
    kernels = {(kernel.features, kernel.form): kernel for kernel in manifest.kernels}.values()
    taken = sum(resident_bytes(index, kernel, device) for kernel in kernels)
    taken += search_bytes(index, device)
    taken += _TABLE * manifest.model.attributed_parameters * len(_sketched(index))
    taken += sum(_weights(index.checkpoint_source(number + 1)) for number in range(len(manifest.checkpoints)))
    if manifest.copies is not None and manifest.copies.sscd is not None:
        taken += _size(Path(manifest.copies.sscd.source))
    return taken


def _sketched(index: AttributionIndex) -> set[tuple[int, tuple[str, ...]]]:
    """Checkpoint and probes of every sketch of gradients: each has tables of its own."""
    found = set()
    for method in index.methods:
        sets = [FeatureSet.parse(kernel.features) for kernel in index.manifest.kernels_of(method)]
        for checkpoint in {one.checkpoint for one in sets}:
            probes = tuple(dict.fromkeys(one.probe for one in sets if one.checkpoint == checkpoint))
            if set(probes) != {ACTIVATION}:
                found.add((checkpoint, probes))
    return found


def _weights(source: ModelSource) -> int:
    """Bytes of the weight files of a model's parts; 0 for one that is in a hub's cache."""
    return sum(_size(Path(part)) for part in (source.model, source.network) if part is not None)


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*.safetensors")) if path.is_dir() else 0
