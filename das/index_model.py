"""The model of an index: loaded, and held against the digest that it was built with."""

from das.errors import ModelError
from das.index import AttributionIndex
from das.manifest import ModelRecord
from das.models import DiffusionModel, load_model
from das.sources import ModelSource


def load_model_of(
    index: AttributionIndex, source: ModelSource | None = None, device: str = "cpu"
) -> DiffusionModel:
    """Load the model of `index` and check that it is the one the index was built with.

    Args:
        source: where to load it from; None: the place in the manifest.

    Raises:
        ModelError: it can't be loaded, or its weights aren't those of the index.
    """
    source = source or index.model_source
    model = load_model(source, lora=index.loras, device=device)
    check_model(index, model, index.manifest.model, source.model)
    return model


def check_model(index: AttributionIndex, model: DiffusionModel, record: ModelRecord, source: str) -> None:
    """See that a model from `source` is the recorded one.

    Raises:
        ModelError: its weights are others.
    """
    found = model.identity["digest"]
    if found != record.digest:
        raise ModelError(
            f"{source} isn't the model that {index.id} was built with: the digest of its weights is {found[:12]}, the"
            f" index has {record.digest[:12]}. Name the right one, or build an index for this one."
        )
