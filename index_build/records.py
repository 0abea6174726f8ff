"""What a manifest says of a build's model, of what tells copies, and of the libraries: from what the build loaded."""

import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from das import registry
from das.config import BuildConfig, ClipSpec
from das.manifest import (
    CopiesRecord,
    ExtensionRecord,
    LoraRecord,
    ModelRecord,
    PlaceRecord,
    ScreeningRecord,
    SscdRecord,
)
from das.places import fingerprint
from das.sources import ModelSource
from index_build.inputs import clip_fingerprint, model_fingerprint

_VERSIONS = ("das-attribution", "torch", "diffusers", "open_clip_torch", "numpy", "pyarrow", "pillow")


def model_record(
    config: BuildConfig,
    source: ModelSource,
    extractor: Any,
    out: Path,
    remarks: Sequence[str],
    loras: tuple[LoraRecord, ...],
) -> ModelRecord:
    """What the manifest says of the model that an extractor holds.

    Args:
        source: where it was read from.
        out: the index, which places are relative to.
        remarks: how it was read.
        loras: those on it.
    """
    model = extractor.model
    place = _place(source.model, out)
    return ModelRecord(
        source=str(place["source"]),
        relative=place["relative"],
        config=None if source.config is None else _place_record(source.config, out),
        network=None if source.network is None else _place_record(source.network, out),
        remarks=tuple(remarks),
        digest=model.identity["digest"],
        fingerprint=model_fingerprint(source.model, config.lora),
        identity=model.identity,
        sample_shape=model.sample_shape,
        num_train_timesteps=model.schedule.num_train_timesteps,
        attributed_parameters=sum(parameter.numel() for parameter in extractor.parameters.values()),
        conditional=model.conditional,
        loras=loras,
    )


def copies_record(source: Path | None, model: Any, out: Path) -> CopiesRecord:
    """What the manifest says of SSCD; None: there is only PDQ."""
    if source is None or model is None:
        return CopiesRecord()
    record = SscdRecord(
        source=str(source.resolve()),
        relative=relative(source, out),
        digest=model.digest,
        dimension=model.dimension,
    )
    return CopiesRecord(sscd=record)


def screening_record(clip: ClipSpec | None, embedder: Any, kind: str, out: Path) -> ScreeningRecord | None:
    """What the manifest says of CLIP; None where the build is without.

    Args:
        kind: of the FAISS index.
    """
    if clip is None:
        return None
    directory = clip.directory
    return ScreeningRecord(
        model=clip.model,
        pretrained=clip.pretrained,
        directory=str(directory.resolve()) if directory else None,
        relative=relative(directory, out) if directory else None,
        digest=embedder.digest,
        fingerprint=clip_fingerprint(clip),
        dimension=embedder.dimension,
        kind=kind,
    )


def versions() -> dict[str, str]:
    """Of Python and the libraries that numbers depend on."""
    found = {"python": platform.python_version()}
    for name in _VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _place(source: str, out: Path) -> dict[str, str | None]:
    """Where a part of a model lies: its absolute path with the one relative to the index, or its hub id."""
    path = Path(source)
    if not path.exists():
        return {"source": source, "relative": None}
    return {"source": str(path.resolve()), "relative": relative(path, out)}


def _place_record(source: str, out: Path) -> PlaceRecord:
    return PlaceRecord.model_validate({**_place(source, out), "fingerprint": fingerprint(source)})


def relative(path: Path, base: Path) -> str:
    """A path as it is found from `base`."""
    return os.path.relpath(path.resolve(), base)


def extension_records(config: BuildConfig) -> tuple[ExtensionRecord, ...]:
    """What a build takes from extensions: estimators, probes, and the model's family."""
    from das.models.loading import family_of

    names: list[tuple[registry.Kind, str]] = [("method", name) for name in config.methods]
    names += [("probe", name) for name in dict.fromkeys(f.probe for f in config.feature_sets)]
    names.append(("family", family_of(config.source.pipeline).name))
    return tuple(
        ExtensionRecord(kind=kind, name=name, distribution=brought.distribution, version=brought.version)
        for kind, name in names
        if (brought := registry.extension_of(kind, name)) is not None
    )
