"""From a pipeline directory or a hub id to a loaded pipeline, with every weight from the file.

diffusers and transformers fill weights that a file lacks with random numbers and a warning. Features of random
weights look like any others, so here that is an error.
"""

import importlib
from pathlib import Path
from typing import Any

from das import registry
from das.errors import DasError, ModelError
from das.models import Adapter
from das.registry import Family

# Parts of pipelines that have no say in training; they are neither read nor downloaded.
_UNUSED = ("safety_checker", "feature_extractor", "image_encoder")

_LIBRARIES = frozenset({"diffusers", "transformers"})


def family_of(path_or_id: str) -> Family:
    """The record of the family that a pipeline directory or hub id belongs to.

    Raises:
        ModelError: there is no pipeline, or its class isn't supported.
    """
    name = _index(path_or_id).get("_class_name")
    family = registry.family(name) if isinstance(name, str) else None
    if family is None:
        raise ModelError(
            " ".join(
                [
                    f"{path_or_id!r} is a {name}, which isn't supported. {_supported()}",
                    *registry.broken_extensions(),
                ]
            )
        )
    return family


def adapter_for(path_or_id: str) -> type[Adapter]:
    """The adapter for a pipeline directory or hub id; raises like `family_of`."""
    family = family_of(path_or_id)
    adapter: type[Adapter] = _resolved(family.adapter, family)
    return adapter


def _resolved(reference: str, family: Family) -> Any:
    return registry.resolve(
        reference, f"The model family {family.name}", registry.extension_of("family", family.name)
    )


def _supported() -> str:
    return f"Supported are {', '.join(registry.families())}."


def import_pipeline(path_or_id: str) -> None:
    """Import what loading this pipeline will need, if it is on this machine, and load nothing of it.

    Raises:
        ModelError: there is no such pipeline, or its class isn't supported.
    """
    if not Path(path_or_id).is_dir():
        return
    adapter, index = adapter_for(path_or_id), _index(path_or_id)
    # Getting a class by its name is what makes these libraries import it.
    _pipeline_class(index["_class_name"])
    for name in ("scheduler", *adapter.parts):
        library, class_name = _entry(index, name)
        if library in _LIBRARIES:
            getattr(importlib.import_module(library), str(class_name), None)


def load_pipeline(path_or_id: str, adapter: type[Adapter]) -> Any:
    """The diffusers pipeline, in single precision, with the components that `adapter` uses.

    Raises:
        ModelError: a component is missing, damaged, incomplete or of another class than the adapter expects.
    """
    import diffusers
    import transformers

    # Their bars of loaded weights would run into our own progress, or into JSON lines for machines.
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()

    index = _index(path_or_id)
    for name, expected in adapter.parts.items():
        _check_class(path_or_id, index, name, expected, optional=name in adapter.optional)
    left_out = [name for name in adapter.parts if _entry(index, name)[1] is None]
    unused: dict[str, Any] = {name: None for name in (*_UNUSED, *left_out) if name in index}
    if "safety_checker" in unused:
        unused["requires_safety_checker"] = False
    try:
        folder = _folder(path_or_id, unused)
        modules = {
            name: _load_module(folder, name, *index[name])
            for name in adapter.parts
            if not name.startswith("tokenizer") and name not in left_out
        }
        pipeline = _pipeline_class(index["_class_name"]).from_pretrained(folder, **modules, **unused)
    except DasError:
        raise
    except Exception as error:
        raise _unloadable(path_or_id, error) from error
    for name in ("scheduler", *adapter.parts):
        if getattr(pipeline, name, None) is None and name not in adapter.optional:
            raise ModelError(f"{path_or_id!r} has no {name}.")
    return pipeline


def _pipeline_class(name: str) -> Any:
    """The class of a pipeline: an extension's own, or diffusers'."""
    import diffusers

    family = registry.family(name)
    if family is not None and family.pipeline is not None:
        return _resolved(family.pipeline, family)
    return getattr(diffusers, name)


def _index(path_or_id: str) -> dict[str, Any]:
    """What `model_index.json` says."""
    from diffusers import DiffusionPipeline

    try:
        if Path(path_or_id).is_dir() and not (Path(path_or_id) / "model_index.json").is_file():
            raise FileNotFoundError("the directory has no model_index.json.")
        return dict(DiffusionPipeline.load_config(path_or_id))
    except Exception as error:
        raise _unloadable(path_or_id, error) from error


def _entry(index: dict[str, Any], name: str) -> tuple[str | None, str | None]:
    """Library and class of a component; None for one that is left out. Raises ModelError for anything else."""
    match index.get(name):
        case None | [None, None]:
            return None, None
        case [str(library), str(class_name)]:
            return library, class_name
    raise ModelError(
        f"model_index.json says of the {name} {index[name]!r}; it should name a library and a class."
    )


def told(error: Exception) -> str:
    """What a library's error says, as one sentence of ours."""
    return " ".join(str(error).split()).rstrip(".") + "."


def _unloadable(path_or_id: str, error: Exception) -> ModelError:
    return ModelError(
        f"No diffusion model could be loaded from {path_or_id!r}: {told(error)} "
        f"Give a pipeline directory (as save_pretrained writes it) or a hub id. {_supported()}"
    )


def _check_class(path_or_id: str, index: dict[str, Any], name: str, expected: str, *, optional: bool) -> None:
    library, found = _entry(index, name)
    if found is None:
        if not optional:
            raise ModelError(f"{path_or_id!r} has no {name}; a {index['_class_name']} needs one.")
    # A tokenizer is named with or without "Fast", or as a transformers version writes it: it loads or it doesn't.
    elif not name.startswith("tokenizer") and (found != expected or library not in _LIBRARIES):
        raise ModelError(f"The {name} of {path_or_id!r} is a {library}.{found}; a {expected} was expected.")


def _folder(path_or_id: str, unused: dict[str, Any]) -> str:
    """The directory of the pipeline, downloaded if it is a hub id."""
    if Path(path_or_id).is_dir():
        return path_or_id
    from diffusers import DiffusionPipeline

    return str(DiffusionPipeline.download(path_or_id, **unused))


def _load_module(folder: str, name: str, library: str, class_name: str) -> Any:
    """One component in single precision.

    Raises:
        ModelError: a weight isn't in the file, or has another shape there.
    """
    kind = getattr(importlib.import_module(library), class_name)
    module, info = kind.from_pretrained(folder, subfolder=name, output_loading_info=True)
    absent = sorted({*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])})
    if absent:
        raise ModelError(
            f"The weights of the {name} in {folder} lack {len(absent)} of the network's tensors, such as "
            f"{absent[0]}; they would be random. The file is incomplete or belongs to another configuration."
        )
    return module.float().eval()
