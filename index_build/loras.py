"""The LoRAs of a build: told before it starts, and kept in its manifest."""

from pathlib import Path

from das.config import BuildConfig
from das.manifest import LoraRecord
from das.models import DiffusionModel
from das.models.lora import loras_of
from das.places import fingerprint
from index_build.base_facts import check_family
from index_build.inputs import WorksOnDisk
from index_build.progress import Reporter
from index_build.training_facts import disagreements, kept_facts


def lora_records(
    config: BuildConfig, model: DiffusionModel, works: WorksOnDisk, reporter: Reporter
) -> tuple[LoraRecord, ...]:
    """What was loaded of each LoRA, said, with what its header says otherwise than works and base do.

    Raises:
        ModelError: a header names a base of another family.
    """
    records = []
    for loaded in loras_of(model.network):
        check_family(loaded, model)
        reporter.say(loaded.describe())
        remarks = disagreements(loaded, model, config.model, works, config.prompt_dropout)
        for remark in remarks:
            reporter.warn(
                f"the LoRA {loaded.choice.source} says of itself: {remark}. Are these its works and its base?"
            )
        source = loaded.choice.source
        records.append(
            LoraRecord(
                source=str(Path(source).resolve()) if Path(source).exists() else source,
                weight=loaded.choice.weight,
                adapter=loaded.adapter,
                fingerprint=fingerprint(source),
                kinds=dict(loaded.kinds),
                text_encoders=dict(loaded.text_encoders),
                facts=kept_facts(loaded.metadata),
                remarks=tuple(remarks),
            )
        )
    return tuple(records)
