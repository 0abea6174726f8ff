"""What estimators, probes and model families there are: those that das brings, and those of extensions.

An extension is an installed distribution with entry points of the group `das.extensions`, each a function
`register(extension)` that adds records to the `Extension` it is given (docs/extending.md). They are loaded once, the
first time that a name is asked for which das doesn't bring itself. Records name code that needs torch as
"module:object", so that the API process, which opens indexes too, knows an estimator without importing it.
"""

import importlib
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, TypeVar

from das.errors import DasError, ExtensionError, IndexFormatError, SettingsError
from das.methods import ACTIVATION, METHODS, NAME_PATTERN, PROBES, Method

log = logging.getLogger(__name__)

GROUP = "das.extensions"
"""The entry points' group."""


@dataclass(frozen=True)
class Probe:
    """A direction `v` in output space, see `das.probes`.

    Attributes:
        name: as it is asked for.
        direction: where the function from `das.probes.Point` to the direction is, as "module:object".
    """

    name: str
    direction: str

    def __post_init__(self) -> None:
        if not NAME_PATTERN.fullmatch(self.name):
            raise ExtensionError(
                f"The probe {self.name!r} must be named with up to 40 small letters, digits and hyphens."
            )


@dataclass(frozen=True)
class Family:
    """A model family: which adapter reads a pipeline.

    Attributes:
        name: the pipeline's class, as `_class_name` in its `model_index.json`.
        adapter: where the class is that follows `das.models.Adapter`, as "module:object".
        pipeline: where the pipeline's class is, as "module:object"; None: diffusers has one of this name.
    """

    name: str
    adapter: str
    pipeline: str | None = None


Record = Method | Probe | Family
R = TypeVar("R", Method, Probe, Family)
Kind = Literal["method", "probe", "family"]
KINDS: dict[Kind, type[Record]] = {"method": Method, "probe": Probe, "family": Family}


@dataclass
class Extension:
    """One source of records: das itself, or an installed distribution.

    Attributes:
        distribution: its name in the package index.
        version: of the distribution.
    """

    distribution: str
    version: str
    records: list[Record] = field(default_factory=list)

    def add(self, record: Record) -> None:
        """Bring an estimator, a probe or a model family."""
        self.records.append(record)

    @property
    def described(self) -> str:
        """The distribution and its version."""
        return f"{self.distribution} {self.version}"


DAS = Extension(
    "das-attribution",
    "",
    [
        *METHODS,
        *(Probe(name, f"das.probes:{name}") for name in PROBES if name != ACTIVATION),
        Probe(ACTIVATION, "das.activations:Activations"),
        Family("DDPMPipeline", "das.models.ddpm:DDPMModel"),
        Family("DDIMPipeline", "das.models.ddpm:DDPMModel"),
        Family("StableDiffusionPipeline", "das.models.stable_diffusion:StableDiffusionModel"),
        Family("StableDiffusionXLPipeline", "das.models.stable_diffusion_xl:StableDiffusionXLModel"),
        Family("StableDiffusion3Pipeline", "das.models.stable_diffusion_3:StableDiffusion3Model"),
        Family("FluxPipeline", "das.models.flux:FluxModel"),
        Family("QwenImagePipeline", "das.models.qwen_image:QwenImageModel"),
        # The same networks in pipelines that begin with a picture, read as those that begin with noise.
        *(
            Family(name, adapter, f"diffusers:{plain}")
            for plain, names, adapter in (
                (
                    "StableDiffusionPipeline",
                    ("StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline"),
                    "das.models.stable_diffusion:StableDiffusionModel",
                ),
                (
                    "StableDiffusionXLPipeline",
                    ("StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLInpaintPipeline"),
                    "das.models.stable_diffusion_xl:StableDiffusionXLModel",
                ),
                (
                    "StableDiffusion3Pipeline",
                    ("StableDiffusion3Img2ImgPipeline", "StableDiffusion3InpaintPipeline"),
                    "das.models.stable_diffusion_3:StableDiffusion3Model",
                ),
                (
                    "FluxPipeline",
                    ("FluxImg2ImgPipeline", "FluxInpaintPipeline"),
                    "das.models.flux:FluxModel",
                ),
                (
                    "QwenImagePipeline",
                    ("QwenImageImg2ImgPipeline", "QwenImageInpaintPipeline"),
                    "das.models.qwen_image:QwenImageModel",
                ),
            )
            for name in names
        ),
    ],
)
"""What das brings itself, by the same door."""


class Registry:
    """All records by kind and name, each with the extension it is of."""

    def __init__(self) -> None:
        self._found: dict[tuple[type[Record], str], tuple[Record, Extension]] = {}
        self._broken: list[str] = []
        self._loaded = False
        self._lock = threading.RLock()
        self.install(DAS)

    def install(self, extension: Extension) -> None:
        """Take over all records of an extension, or none.

        Raises:
            ExtensionError: a name is taken; the message says by whom.
        """
        names = [(type(record), record.name) for record in extension.records]
        for place, key in enumerate(names):
            holder = extension if key in names[:place] else self._found.get(key, (None, None))[1]
            if holder is not None:
                raise ExtensionError(
                    f"The extension {extension.described} brings the {_kind(key[0])} {key[1]!r}, which"
                    f" {holder.described.strip()} has already. Give it another name."
                )
        self._found |= {
            key: (record, extension) for key, record in zip(names, extension.records, strict=True)
        }

    def find(self, kind: type[R], name: str) -> R | None:
        """A record; None where there is none of that name."""
        record = self._entry(kind, name)[0]
        return record if isinstance(record, kind) else None

    def extension_of(self, kind: type[Record], name: str) -> Extension | None:
        """The extension that a record is of; None where there is no such record."""
        return self._entry(kind, name)[1]

    def _entry(self, kind: type[Record], name: str) -> tuple[Record | None, Extension | None]:
        if (kind, name) not in self._found:
            self.load()
        return self._found.get((kind, name), (None, None))

    def names(self, kind: type[Record]) -> list[str]:
        """Every name of a kind, das's own first."""
        self.load()
        return [name for of, name in self._found if of is kind]

    @property
    def broken(self) -> tuple[str, ...]:
        """A sentence for each extension that couldn't be loaded."""
        self.load()
        return tuple(self._broken)

    def load(self) -> None:
        """Load every installed extension, once; what is wrong with one is kept for whoever asks for its names."""
        with self._lock:
            if self._loaded:
                return
            self._loaded = True
            for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
                try:
                    self.install(_registered(entry))
                except ExtensionError as error:
                    self._broken.append(str(error))
                    log.warning("%s", error)


def _registered(entry: EntryPoint) -> Extension:
    """What an entry point's function adds.

    Raises:
        ExtensionError: it can't be imported, fails, or brings torch into a process that has none.
    """
    distribution = entry.dist
    extension = (
        Extension(entry.name, "")
        if distribution is None
        else Extension(distribution.name, distribution.version)
    )
    light = "torch" not in sys.modules
    try:
        entry.load()(extension)
    except DasError as error:
        raise ExtensionError(f"The extension {extension.described} can't be used: {error}") from error
    except Exception as error:
        raise ExtensionError(
            f"The extension {extension.described} ({entry.value}) can't be loaded:"
            f" {type(error).__name__}: {error}."
        ) from error
    if light and "torch" in sys.modules:
        raise ExtensionError(
            f"The extension {extension.described} ({entry.value}) imports torch when it registers. The API process"
            ' has to stay without; keep what needs torch in another module and name it as "module:object".'
        )
    return extension


_REGISTRY = Registry()
install = _REGISTRY.install


def method(name: str) -> Method:
    """The record of an estimator; raises SettingsError for a name that there isn't, listing those that there are."""
    return _record(Method, name)


def methods() -> tuple[Method, ...]:
    """Every estimator, das's own first."""
    return tuple(method(name) for name in _REGISTRY.names(Method))


def probe(name: str) -> Probe:
    """The record of a probe; raises like `method`."""
    return _record(Probe, name)


def family(pipeline: str) -> Family | None:
    """The record of the family that a pipeline's class belongs to; None where it isn't supported."""
    return _REGISTRY.find(Family, pipeline)


def families() -> tuple[str, ...]:
    """The classes of pipelines that can be read."""
    return tuple(_REGISTRY.names(Family))


def broken_extensions() -> tuple[str, ...]:
    """A sentence for each installed extension that couldn't be loaded."""
    return _REGISTRY.broken


def extension_of(kind: Kind, name: str) -> Extension | None:
    """The extension that a record is of; None where das brings it itself, or there is none."""
    extension = _REGISTRY.extension_of(KINDS[kind], name)
    return None if extension is DAS else extension


def require(kind: Kind, name: str, distribution: str, version: str, needed_by: str) -> None:
    """Check that a record is here and of the distribution and version that an index was built with.

    Features of the query and of the works have to be computed by the same code, so another version won't do.

    Raises:
        IndexFormatError: it isn't; the message says what to do.
    """
    extension = extension_of(kind, name)
    if extension is None:
        raise IndexFormatError(
            " ".join(
                [
                    f"{needed_by} needs the {kind} {name!r} of the extension {distribution} {version}, which isn't"
                    " there. Install it where the index is built, served and worked on.",
                    *_REGISTRY.broken,
                ]
            )
        )
    if (extension.distribution, extension.version) != (distribution, version):
        raise IndexFormatError(
            f"{needed_by} was built with the {kind} {name!r} of {distribution} {version}; here it is that of"
            f" {extension.described}. Install that version, or build the index again."
        )


@contextmanager
def blamed(kind: Kind, name: str) -> Iterator[None]:
    """Let whatever goes wrong in an extension's code end with the extension's name.

    Raises:
        ExtensionError: it did.
    """
    try:
        yield
    except DasError:
        raise
    except Exception as error:
        extension = extension_of(kind, name)
        if extension is None:
            raise
        raise ExtensionError(
            f"The {kind} {name!r} of the extension {extension.described} failed: {type(error).__name__}: {error}."
        ) from error


def resolve(reference: str, what: str, extension: Extension | None) -> Any:
    """What "module:object" names.

    Args:
        what: for the message, such as "the probe 'sign'".

    Raises:
        ExtensionError: it can't be imported.
    """
    module, _, name = reference.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except Exception as error:
        brought = "" if extension is None else f" of the extension {extension.described}"
        raise ExtensionError(
            f"{what}{brought} ({reference}) can't be loaded: {type(error).__name__}: {error}."
        ) from error


def _record(kind: type[R], name: str) -> R:
    found = _REGISTRY.find(kind, name)
    if found is None:
        there_are = f"There is no {_kind(kind)} {name!r}; there are {', '.join(_REGISTRY.names(kind))}."
        raise SettingsError(" ".join([there_are, *_REGISTRY.broken]))
    return found


def _kind(kind: type[Record]) -> Kind:
    return next(word for word, of in KINDS.items() if of is kind)
