"""What a build computes with, loaded once: the model with its further checkpoints, CLIP and SSCD."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from das.config import BuildConfig
from das.errors import ModelError
from das.sources import ModelSource, check_source

if TYPE_CHECKING:
    from das.gradients import FeatureExtractor
    from das.screening import Embedder, NoEmbedder
    from das.sscd import Sscd


def _untold(_: str) -> None:
    """Nobody is told."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """What features and embeddings are computed with.

    Attributes:
        extractors: of the model and of each further checkpoint, in order.
        sscd: None where its file wasn't given.
    """

    extractors: tuple["FeatureExtractor", ...]
    embedder: "Embedder | NoEmbedder"
    sscd: "Sscd | None"

    @property
    def model(self) -> Any:
        """The model that is attributed."""
        return self.extractors[0].model

    @property
    def timesteps(self) -> tuple[int, ...]:
        """Those whose gradients are features."""
        return self.extractors[0].config.timesteps

    @property
    def digests(self) -> list[str]:
        """Of the model's and each checkpoint's weights."""
        return [extractor.model.identity["digest"] for extractor in self.extractors]


def load(config: BuildConfig, device: str, tell: Callable[[str], None] = _untold) -> Loaded:
    """Load everything that `config` names; `tell` hears remarks on the model.

    Raises:
        ModelError: the model or a checkpoint can't be used.
        SettingsError: another input can't.
    """
    from das.gradients import FeatureConfig, FeatureExtractor

    model = load_model(config, config.source, device, tell)
    networks = [
        model,
        *(_load_checkpoint(config, source, model, device) for source in checkpoint_sources(config)),
    ]
    timesteps = config.resolve_timesteps(model.schedule.num_train_timesteps)
    extractors = tuple(
        FeatureExtractor(
            one, FeatureConfig.of(config, config.probes_of(number), timesteps), batch_size=config.batch_size
        )
        for number, one in enumerate(networks)
    )
    return Loaded(extractors, load_embedder(config, device), _load_sscd(config, device))


def checkpoint_sources(config: BuildConfig) -> list[ModelSource]:
    """Where the further checkpoints are read from."""
    return [check_source(config.source.of_checkpoint(one)) for one in config.checkpoints]


def load_model(
    config: BuildConfig, source: ModelSource, device: str, tell: Callable[[str], None] = _untold
) -> Any:
    """The model of `source` with the LoRAs of `config`."""
    from das.models import load_model

    return load_model(source, lora=config.lora, device=device, tell=tell)


def load_embedder(config: BuildConfig, device: str) -> "Embedder | NoEmbedder":
    """CLIP, or what stands for it where none is wanted."""
    from das.screening import Embedder, NoEmbedder

    return NoEmbedder() if config.clip is None else Embedder.load(config.clip, device)


def _load_sscd(config: BuildConfig, device: str) -> "Sscd | None":
    from das.sscd import Sscd

    return None if config.sscd is None else Sscd.load(config.sscd, device)


def _load_checkpoint(config: BuildConfig, source: ModelSource, model: Any, device: str) -> Any:
    """A further checkpoint, which must have the shapes of the model's own parameters."""
    checkpoint = load_model(config, source, device)
    ours, theirs = (
        {name: parameter.shape for name, parameter in one.network.named_parameters()}
        for one in (model, checkpoint)
    )
    if ours != theirs:
        raise ModelError(
            f"{source.network or source.model} isn't a checkpoint of {config.model}: their networks have"
            " different parameters."
        )
    return checkpoint
