"""The choices of a build: everything that changes the numbers of an index, in one frozen model.

It is stored in the index's manifest, compared when a build resumes, and read by whoever answers queries.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from das import registry
from das.errors import SettingsError
from das.loras import choices
from das.methods import ACTIVATION, KernelForm
from das.references import FEWEST
from das.sources import ModelSource


def _known(name: str) -> str:
    try:
        return registry.method(name).name
    except SettingsError as error:
        raise ValueError(str(error)) from error


MethodName = Annotated[str, AfterValidator(_known)]
"""The name of an estimator, das's own (das.methods) or an extension's; an index answers those it was built for."""

FeatureType = Literal["int8", "float16", "float32"]
"""How whitened features are stored; int8 with one scale for each work."""

FEATURE_BYTES: dict[FeatureType, int] = {"int8": 1, "float16": 2, "float32": 4}
"""Bytes of one number; a scale's 4 bytes for a work come on top of int8."""


class FeatureSet(NamedTuple):
    """One feature for every work: which probe, whether each timestep's is normalised (Eq. 17), which checkpoint.

    Checkpoint 0 is the model itself, c the c-th of the further ones that the index was built with.
    """

    probe: str
    normalised: bool = True
    checkpoint: int = 0

    @property
    def name(self) -> str:
        """Its name in an index, such as `loss`, `loss.plain` or `loss.plain.checkpoint-1`."""
        plain = "" if self.normalised else ".plain"
        return f"{self.probe}{plain}" + (f".checkpoint-{self.checkpoint}" if self.checkpoint else "")

    @classmethod
    def parse(cls, name: str) -> "FeatureSet":
        """The set of this name."""
        name, _, checkpoint = name.partition(".checkpoint-")
        probe, _, plain = name.partition(".")
        return cls(probe, not plain, int(checkpoint or 0))


class KernelChoice(NamedTuple):
    """One kernel that an index holds: `method` reads it, over the feature set of this name, in this `form`."""

    method: str
    features: str
    form: KernelForm


class ClipSpec(BaseModel):
    """Which open_clip model screens: a name with its pretrained tag, or a local directory.

    The directory is in open_clip's own format: `open_clip_config.json` and `open_clip_model.safetensors`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str | None = None
    pretrained: str | None = None
    directory: Path | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.directory is None) == (self.model is None) or (self.model is None) != (
            self.pretrained is None
        ):
            raise ValueError("give either model and pretrained, or directory")
        return self

    @classmethod
    def parse(cls, text: str) -> "ClipSpec":
        """`"ViT-B-32:laion2b_s34b_b79k"` as a spec; raises SettingsError for anything else."""
        model, separator, pretrained = text.partition(":")
        if not separator or not model or not pretrained:
            raise SettingsError(
                f"--clip is {text!r}; write MODEL:PRETRAINED, such as ViT-B-32:laion2b_s34b_b79k, "
                "or name a local open_clip model with --clip-dir."
            )
        return cls(model=model, pretrained=pretrained)

    def describe(self) -> str:
        """The spec in a few words, for reports and messages."""
        return str(self.directory) if self.directory else f"{self.model}:{self.pretrained}"


DEFAULT_CLIP = ClipSpec(model="ViT-B-32", pretrained="laion2b_s34b_b79k")


PRESETS: dict[str, dict[str, Any]] = {
    "default": {"timesteps": 10, "dimension": 1024, "probes": ("loss", ACTIVATION)},
    # Three forward passes, no backward pass and 1 KB for a work; ranks better than the paper's form with ten of both
    # and 16 KB, and about as well where a LoRA is attributed (docs/results/evaluation.md).
    "economical": {
        "timesteps": (100, 300, 500),
        "dimension": 1024,
        "probes": (ACTIVATION,),
        "feature_dtype": "int8",
    },
}
"""Choices of a build that were measured together; those of "economical" are timesteps of a schedule of 1,000."""


LARGEST_SIDE = 8192
"""Pixels of a model's picture; more is a slip of the keyboard."""


class BuildConfig(BaseModel):
    """What an index is built with. Two builds with equal configs, model and works give equal numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$", description="The index's name, the part before the @."
    )
    model: str = Field(description="Directory or hub id of the diffusion model, or a single file.")
    config: str | None = Field(None, description="The pipeline that a single file is read with.")
    network: str | None = Field(
        None, description="Directory of a network that takes the place of the model's own."
    )
    size: tuple[int, int] | None = Field(
        None,
        description="Height and width of the model's pictures in pixels; none: as its configuration says.",
    )
    works: Path = Field(description="Folder of images, or a parquet of paths.")
    attributed: str = Field(
        "auto",
        description='"auto" (the LoRAs where there are some, else all), "all", "up-blocks", "lora", "lora2" (the'
        " second of several alone), or a regular expression of parameter names.",
    )
    timesteps: int | tuple[int, ...] = Field(
        10, description="How many, evenly spaced; or the timesteps themselves."
    )
    noise_draws: int = Field(1, ge=1, description="Noises per timestep.")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of the noise, the sketch and the random probe.")
    dimension: int = Field(1024, ge=1, description="k, the sketch dimension.")
    methods: tuple[MethodName, ...] = Field(
        ("das-block",), min_length=1, description="Estimators that can be asked."
    )
    probes: tuple[str, ...] = Field(
        ("loss", ACTIVATION), min_length=1, description="Probes of das-block; their scores are added."
    )
    normalise: bool = Field(
        True, description="Normalise each timestep's gradient in das and das-block (Eq. 17)."
    )
    prompt_dropout: float = Field(
        0.0,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Part of the timesteps computed without prompts, as in training for classifier-free guidance.",
    )
    lora: tuple[str, ...] = Field(
        (),
        description="LoRAs on the model, each a file, a directory or a hub id, with its weight behind a colon if that"
        " isn't 1.",
    )
    checkpoints: tuple[str, ...] = Field(
        (), description="Earlier checkpoints of the model, for tracincp and gas; the model itself counts too."
    )
    damping: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="λ in units of tr(K)/N; none: for the effective dimension that das.kernel aims at.",
    )
    feature_dtype: FeatureType = Field("float16", description="How whitened features are stored.")
    shard_size: int = Field(1024, ge=1, description="Works per shard: what a killed build loses at most.")
    batch_size: int = Field(32, ge=1, description="(Image, timestep) pairs per backward pass.")
    clip: ClipSpec | None = Field(
        DEFAULT_CLIP, description="The open_clip model that screens; none: the index has no look-alikes."
    )
    held_out: Path | None = Field(
        None,
        description="Folder of pictures of the works' kind that the model was not trained on; none: λ by the rule.",
    )
    sscd: Path | None = Field(
        None, description="SSCD's TorchScript file, by which works are compared for copies beside PDQ."
    )
    references: Path | int = Field(
        0,
        description="How many pictures the model is let make that others are held against, or a folder of them.",
    )

    @field_validator("size")
    @classmethod
    def _size_is_one(cls, value: tuple[int, int] | None) -> tuple[int, int] | None:
        if value is not None and not all(1 <= side <= LARGEST_SIDE for side in value):
            raise ValueError(f"pictures have 1 to {LARGEST_SIDE:,} pixels a side")
        return value

    @property
    def source(self) -> ModelSource:
        """Where the model is read from."""
        return ModelSource(self.model, self.config, self.network, self.size)

    @field_validator("lora", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        # Before 0.2 it was one or none, and manifests keep that.
        return () if value is None else (value,) if isinstance(value, str) else value

    @field_validator("lora")
    @classmethod
    def _loras_are_named(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        try:
            choices(value)
        except SettingsError as error:
            raise ValueError(str(error).rstrip(".")) from error
        return value

    @field_validator("attributed")
    @classmethod
    def _pattern_compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{pattern!r} is neither 'all' nor a regular expression: {error}") from error
        return pattern

    @field_validator("timesteps")
    @classmethod
    def _timesteps_make_sense(cls, value: int | tuple[int, ...]) -> int | tuple[int, ...]:
        if isinstance(value, int):
            if value < 1:
                raise ValueError("at least one timestep is needed")
        elif not value or min(value) < 0 or len(set(value)) != len(value):
            raise ValueError("timesteps must be different numbers from 0 upwards")
        return value

    @field_validator("references")
    @classmethod
    def _references_can_tell(cls, value: Path | int) -> Path | int:
        if isinstance(value, int) and value != 0 and value < FEWEST:
            raise ValueError(f"{FEWEST} are the fewest that can tell, and 0 makes none")
        return value

    @field_validator("methods", "probes")
    @classmethod
    def _no_repeats(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError(f"{value} names one twice")
        return value

    @model_validator(mode="after")
    def _checkpoints_are_read(self) -> Self:
        if self.checkpoints and not any(registry.method(name).of_checkpoints for name in self.methods):
            reading = " and ".join(method.name for method in registry.methods() if method.of_checkpoints)
            raise ValueError(f"checkpoints are read by the methods {reading} only; ask for one of them")
        return self

    @model_validator(mode="after")
    def _compared_is_kept(self) -> Self:
        by_clip = [name for name in self.methods if registry.method(name).compares == "clip"]
        if self.clip is None and by_clip:
            raise ValueError(f"{by_clip[0]} compares what CLIP says, which an index without screening lacks")
        return self

    @model_validator(mode="after")
    def _something_is_computed(self) -> Self:
        if not self.kernels:
            raise ValueError(
                f"{', '.join(self.methods)} alone need no attribution index; add a method that measures influence"
            )
        return self

    @model_validator(mode="after")
    def _one_damping_for_each_kernel(self) -> Self:
        if self.damping is not None:
            return self
        readers: dict[str, str] = {}
        for choice in self.kernels:
            if choice.form == "mean":
                other = readers.setdefault(choice.features, choice.method)
                if registry.method(other).squared != registry.method(choice.method).squared:
                    raise ValueError(
                        f"{other} and {choice.method} read one kernel, but λ is chosen otherwise for squared scores;"
                        " give damping, or build two indexes"
                    )
        return self

    @model_validator(mode="after")
    def _attributed_is_read(self) -> Self:
        if self.attributed != "auto" and all(features.probe == ACTIVATION for features in self.feature_sets):
            raise ValueError(
                "attributed chooses among parameters, and activations have none; add a probe such as loss"
            )
        return self

    def resolve_timesteps(self, num_train_timesteps: int) -> tuple[int, ...]:
        """The timesteps themselves: evenly spaced from 0 (0, 100, …, 900 for 10 of 1000), or the list.

        Raises:
            SettingsError: if there are more than the schedule has, or one lies outside it.
        """
        chosen = self.timesteps
        if isinstance(chosen, int):
            if chosen > num_train_timesteps:
                raise SettingsError(
                    f"timesteps is {chosen}, but the model's schedule has only {num_train_timesteps}."
                )
            return tuple(i * num_train_timesteps // chosen for i in range(chosen))
        if max(chosen) >= num_train_timesteps:
            raise SettingsError(
                f"timestep {max(chosen)} lies outside the model's schedule of {num_train_timesteps}; "
                f"the last one is {num_train_timesteps - 1}."
            )
        return chosen

    @property
    def feature_sets(self) -> tuple[FeatureSet, ...]:
        """Every feature set that the index stores, in the order the methods read them."""
        return tuple(FeatureSet.parse(name) for name in dict.fromkeys(k.features for k in self.kernels))

    def probes_of(self, checkpoint: int) -> tuple[str, ...]:
        """The probes that are computed with a checkpoint."""
        sets = [features for features in self.feature_sets if features.checkpoint == checkpoint]
        return tuple(dict.fromkeys(features.probe for features in sets))

    @property
    def kernels(self) -> tuple[KernelChoice, ...]:
        """Every kernel the methods read, in the order of `methods`."""
        return tuple(choice for method in self.methods for choice in self._kernels_of(method))

    def _kernels_of(self, name: str) -> list[KernelChoice]:
        method = registry.method(name)
        if method.compares:
            return []
        probes = self.probes if method.probes is None else method.probes
        normalised = self.normalise if method.normalised is None else method.normalised
        checkpoints = range(len(self.checkpoints) + 1) if method.of_checkpoints else (0,)
        return [
            KernelChoice(name, FeatureSet(probe, normalised, checkpoint).name, method.form)
            for probe in probes
            for checkpoint in checkpoints
        ]

    @property
    def keeps_pictures(self) -> bool:
        """Whether a method compares the works' pixels or latents, so that the index keeps them."""
        return any(registry.method(name).compares == "pixels" for name in self.methods)

    def compared(self) -> dict[str, Any]:
        """The options that must be equal for a build to resume, by name.

        Left out are `batch_size`, which doesn't change the numbers, and where the model with its LoRA and
        checkpoints, the works, CLIP, SSCD, references and held-out pictures lie: the builder compares what they hold.
        The size of the model's pictures is part of the model's digest.
        """
        places = {"model", "works", "clip", "lora", "checkpoints", "sscd", "references", "held_out"}
        places |= {"config", "network", "size"}
        return self.model_dump(mode="json", exclude={"batch_size"} | places)
