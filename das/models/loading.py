"""From a pipeline directory or a hub id to a loaded pipeline, with every weight from the file.

diffusers and transformers fill weights that a file lacks with random numbers and a warning. Features of random
weights look like any others, so here that is an error.
"""

import importlib
import logging
from pathlib import Path
from typing import Any

from torch import nn

from das import registry
from das.errors import DasError, ModelError
from das.hub import check_reachable
from das.models import Adapter
from das.models.networks import load_network
from das.models.single_file import Tell, read_single_file
from das.models.weights import weights_of
from das.registry import Family
from das.sources import GIVE, ModelSource, is_pipeline

# Parts of pipelines that have no say in training; they are neither read nor downloaded.
_UNUSED = ("safety_checker", "feature_extractor", "image_encoder")

_REFINERS = "StableDiffusionXLImg2ImgPipeline"
"""The class that SDXL's refiner has, and base models that begin with a picture."""

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


def load_pipeline(source: ModelSource | str, adapter: type[Adapter], tell: Tell = lambda _: None) -> Any:
    """The diffusers pipeline, in single precision, with the components that `adapter` uses.

    Args:
        tell: told which files were read where that isn't plain: a variant, a single file, another network.

    Raises:
        ModelError: a component is missing, damaged, incomplete or of another class than the adapter expects.
    """
    source = source if isinstance(source, ModelSource) else ModelSource(source)
    name, index = source.pipeline, _index(source.pipeline)
    for part, expected in adapter.parts.items():
        _check_class(name, index, part, expected, optional=part in adapter.optional)
    left_out = [part for part in adapter.parts if _entry(index, part)[1] is None]
    unused: dict[str, Any] = {part: None for part in (*_UNUSED, *left_out) if part in index}
    if "safety_checker" in unused:
        unused["requires_safety_checker"] = False
    try:
        folder = _folder(name, unused)
        modules = _modules(source, folder, adapter, index, left_out, tell)
        pipeline = _pipeline_class(index["_class_name"]).from_pretrained(folder, **modules, **unused)
    except DasError:
        raise
    except Exception as error:
        raise _unloadable(name, error) from error
    for part in ("scheduler", *adapter.parts):
        if getattr(pipeline, part, None) is None and part not in adapter.optional:
            raise ModelError(f"{name!r} has no {part}.")
    return pipeline


def _modules(
    source: ModelSource,
    folder: str,
    adapter: type[Adapter],
    index: dict[str, Any],
    left_out: list[str],
    tell: Tell,
) -> dict[str, nn.Module]:
    """Every component with weights, each from where the source says that it is."""
    kinds: dict[str, tuple[str, str]] = {
        part: index[part]
        for part in adapter.parts
        if not part.startswith("tokenizer") and part not in left_out
    }
    modules: dict[str, nn.Module] = {}
    if source.config is not None:
        family = adapter.family
        modules = read_single_file(Path(source.model), folder, kinds, adapter.network_name, family, tell)
    if source.network is not None:
        network = adapter.network_name
        modules[network] = load_network(Path(source.network), folder, network, *kinds[network])
        tell(f"The {network} is that of {source.network}; all else is that of {source.model}.")
    half: dict[str, list[str]] = {}
    for part, (library, class_name) in kinds.items():
        if part not in modules:
            found = weights_of(Path(folder) / part, library, part)
            modules[part] = _load_module(folder, part, library, class_name, found.variant)
            if found.described is not None:
                half.setdefault(found.described, []).append(part)
    for described, names in half.items():
        tell(
            f"The weights of {', '.join(names)} are in {described}; they are computed with in single precision, with"
            " the same values."
        )
    return modules


def import_libraries() -> None:
    """Import diffusers and transformers, and let them say no more than errors.

    Their bars of loaded weights would run into our own progress, and their lines before ours name causes that
    aren't: what a person has to know of a model is checked and said here.
    """
    import diffusers
    import transformers

    diffusers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.set_verbosity(logging.CRITICAL)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity(logging.CRITICAL)


def _pipeline_class(name: str) -> Any:
    """The class of a pipeline: an extension's own, or diffusers'."""
    import diffusers

    family = registry.family(name)
    if family is not None and family.pipeline is not None:
        return _resolved(family.pipeline, family)
    return getattr(diffusers, name)


def _index(path_or_id: str) -> dict[str, Any]:
    """What `model_index.json` says."""
    if not Path(path_or_id).is_dir():
        check_reachable(path_or_id)
    import_libraries()
    from diffusers import DiffusionPipeline

    try:
        if Path(path_or_id).is_dir() and not is_pipeline(Path(path_or_id)):
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
        f"No diffusion model could be loaded from {path_or_id!r}: {told(error)} {GIVE} {_supported()}"
    )


def _check_class(path_or_id: str, index: dict[str, Any], name: str, expected: str, *, optional: bool) -> None:
    library, found = _entry(index, name)
    if found is None:
        if not optional and name == "text_encoder" and index["_class_name"] == _REFINERS:
            raise ModelError(
                f"{path_or_id!r} is SDXL's refiner, which has no first text encoder; give the base model."
            )
        if not optional:
            raise ModelError(f"{path_or_id!r} has no {name}; a {index['_class_name']} needs one.")
    # A tokenizer is named with or without "Fast", or as a transformers version writes it: it loads or it doesn't.
    elif not name.startswith("tokenizer") and (found != expected or library not in _LIBRARIES):
        raise ModelError(f"The {name} of {path_or_id!r} is a {library}.{found}; a {expected} was expected.")


def _folder(path_or_id: str, unused: dict[str, Any]) -> str:
    """The directory of the pipeline, downloaded if it is a hub id: plain weights, or the variant that there is."""
    if Path(path_or_id).is_dir():
        return path_or_id
    from diffusers import DiffusionPipeline

    for variant in (None, "fp16", "bf16"):
        folder = str(DiffusionPipeline.download(path_or_id, use_safetensors=True, variant=variant, **unused))
        if any(Path(folder).glob("*/*.safetensors")):
            break
    return folder


def _load_module(folder: str, name: str, library: str, class_name: str, variant: str | None) -> nn.Module:
    """One component in single precision.

    Raises:
        ModelError: a weight isn't in the file, or has another shape there.
    """
    kind = getattr(importlib.import_module(library), class_name)
    return loaded(kind, folder, f"the {name} in {folder}", subfolder=name, variant=variant)


def loaded(kind: Any, folder: str, what: str, **options: Any) -> nn.Module:
    """A component of the class `kind` in single precision, with every weight from the files.

    Raises:
        ModelError: a weight isn't in the file, or has another shape there.
    """
    module, info = kind.from_pretrained(
        folder, use_safetensors=True, output_loading_info=True, local_files_only=True, **options
    )
    absent = sorted({*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])})
    if absent:
        raise ModelError(
            f"The weights of {what} lack {len(absent)} of the network's tensors, such as "
            f"{absent[0]}; they would be random. The file is incomplete or belongs to another configuration."
        )
    ready: nn.Module = module.float().eval()
    return ready
