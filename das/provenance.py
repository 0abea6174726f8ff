"""What a picture says of itself, held against a question and an index: what is taken of it, and what has to be said.

Metadata are a claim: what they name is compared and told, never believed.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

from das.images.declared import Declared, DeclaredLora
from das.manifest import Manifest, WeightFileRecord

ModelVerdict = Literal["same", "other", "unknown"]

MAX_SEED = 2**63 - 1
"""The largest seed that a question can have."""
_SHOWN_LORAS = 3
_OLD_DIGITS = 8
_SUFFIX = re.compile(r"\.(?:safetensors|ckpt|pt|bin|gguf)$", re.IGNORECASE)

PROMPT_TAKEN = (
    "It was asked with the prompt that the picture says it was made from ({source}), since the request gave"
    " none. Metadata are a claim: anybody can write them."
)
PROMPT_OVERRULED = (
    "The picture says that it was made from another prompt than the request gives; the request's was used."
)
PROMPT_CUT = "The prompt in the picture is longer than is read here: only its beginning was taken."
PROMPT_BRACKETS = (
    "The prompt in the picture has brackets, by which programs weigh words or choose among them: weights such as"
    " (word:1.3) were left out, and other brackets are asked as text."
)
SEED_TAKEN = (
    "The seed is the one that the picture says it was made with. Another program may draw other noise from the same"
    " seed; the way that was followed is then another picture's."
)
SEED_TOO_LARGE = (
    "The seed that the picture says it was made with is larger than a question's can be; it wasn't used."
)
GENERATED = "Its C2PA manifest says that a trained model made the picture."


@dataclass(frozen=True)
class Taken:
    """What a question is asked with, and which of `prompt` and `seed` the picture's metadata gave."""

    prompt: str | None
    seed: int | None
    fields: tuple[Literal["prompt", "seed"], ...]


@dataclass(frozen=True)
class ModelClaim:
    """Whether the model that a picture names is the index's: by hashes of files "same" or "other", else "unknown".

    `sentence` is what has to be said of it first; None: nothing has.
    """

    verdict: ModelVerdict
    sentence: str | None


def defaults(declared: Declared | None, prompt: str | None, seed: int | None) -> Taken:
    """What the question says wins, an empty prompt too; what it leaves out is taken of the picture."""
    fields: list[Literal["prompt", "seed"]] = []
    if declared is None:
        return Taken(prompt, seed, ())
    if prompt is None and declared.asked_prompt is not None:
        prompt = declared.asked_prompt
        fields.append("prompt")
    if seed is None and declared.seed is not None and declared.seed <= MAX_SEED:
        seed = declared.seed
        fields.append("seed")
    return Taken(prompt, seed, tuple(fields))


def notes_of_declared(
    declared: Declared, taken: Sequence[str], *, prompt: str | None, conditional: bool, seeded: bool
) -> list[str]:
    """What has to be said of how the metadata were used, beside what they name as the model.

    Args:
        taken: the fields that they gave.
        prompt: what the question was asked with.
        conditional: whether prompts reach the index's model.
        seeded: whether the method asked uses a seed.
    """
    notes = []
    if "prompt" in taken and conditional:
        notes.append(PROMPT_TAKEN.format(source=declared.source))
        if "prompt" in declared.cut:
            notes.append(PROMPT_CUT)
        if declared.bracketed:
            notes.append(PROMPT_BRACKETS)
    elif conditional and declared.prompt is not None and prompt != declared.asked_prompt:
        notes.append(PROMPT_OVERRULED)
    if seeded and "seed" in taken:
        notes.append(SEED_TAKEN)
    elif seeded and declared.seed is not None and declared.seed > MAX_SEED:
        notes.append(SEED_TOO_LARGE)
    if declared.ai_generated:
        notes.append(GENERATED)
    return notes


def compare_model(declared: Declared, manifest: Manifest) -> ModelClaim:
    """Hold the model and the LoRAs that a picture names against the index's own."""
    files = manifest.weight_files
    claims = [
        _compare_base(declared, [file for file in files if file.role == "model"], manifest),
        _compare_loras(declared.loras, [file for file in files if file.role == "lora"], manifest),
    ]
    sentences = [claim.sentence for claim in claims if claim.sentence is not None]
    verdict: ModelVerdict = "unknown"
    if any(claim.verdict == "other" for claim in claims):
        verdict = "other"
    elif any(claim.verdict == "same" for claim in claims) and not sentences:
        verdict = "same"
    return ModelClaim(verdict, " ".join(sentences) or None)


def _compare_base(declared: Declared, files: list[WeightFileRecord], manifest: Manifest) -> ModelClaim:
    said = declared.model_hash
    if said is not None and any(_is(file, said) for file in files):
        return ModelClaim("same", None)
    # Eight digits may be of the old kind, which files of other programs don't have.
    if said is not None and files and (len(said) > _OLD_DIGITS or files[0].old_hash is not None):
        named = (
            f"“{declared.model}”, hash {said[:12]}" if declared.model else f"one with the hash {said[:12]}"
        )
        return ModelClaim(
            "other",
            f"The picture says that it was made by another model file ({named}) than this index's"
            f" (“{files[0].name}”, hash {files[0].sha256[:10]}). What is ranked here is what this index's model owes"
            " to its works.",
        )
    own = _name(manifest.model.source)
    if declared.model is None or _alike(declared.model, own):
        return ModelClaim("unknown", None)
    return ModelClaim(
        "unknown",
        f"The picture says that it was made by “{declared.model}”; this index is of “{own}”. Those are names alone:"
        " whether they are the same model isn't known.",
    )


def _compare_loras(
    loras: Sequence[DeclaredLora], files: list[WeightFileRecord], manifest: Manifest
) -> ModelClaim:
    if not loras:
        return ModelClaim("unknown", None)
    hashes = [lora.hash for lora in loras if lora.hash is not None]
    if any(_is(file, said) for file in files for said in hashes):
        return ModelClaim("same", None)
    names = ", ".join(f"“{lora.name}”" for lora in loras[:_SHOWN_LORAS])
    names += f" and {len(loras) - _SHOWN_LORAS} more" if len(loras) > _SHOWN_LORAS else ""
    used = f"The picture says that it was made with the LoRA{'s' if len(loras) > 1 else ''} {names}"
    if not manifest.model.loras:
        return ModelClaim("unknown", f"{used}; this index is of a model without one.")
    if files and len(hashes) == len(loras):
        own = " or ".join(f"“{file.name}”" for file in files[:_SHOWN_LORAS])
        return ModelClaim("other", f"{used}; by their hashes, none of them is this index's ({own}).")
    owns = [_name(lora.source) for lora in manifest.model.loras]
    if any(_alike(lora.name, own) for lora in loras for own in owns) or any(
        _alike(lora.name, file.name) for lora in loras for file in files
    ):
        return ModelClaim("unknown", None)
    return ModelClaim(
        "unknown", f"{used}; this index is of the LoRA “{'” and “'.join(owns)}”. Those are names alone."
    )


def _is(file: WeightFileRecord, said: str) -> bool:
    """Whether a hash of eight digits or more is one of the file's."""
    hashes = (file.sha256, file.tensors_sha256 or "", file.old_hash or "")
    return any(own.startswith(said) for own in hashes)


def _name(source: str) -> str:
    """The last part of a path or a hub id, without a weights file's suffix."""
    return _SUFFIX.sub("", PurePath(source.rstrip("/").replace("\\", "/")).name)


def _alike(one: str, other: str) -> bool:
    """Whether two names may be of the same model: letters and digits alone, one may hold the other."""
    a, b = (re.sub(r"[\W_]", "", _SUFFIX.sub("", name).casefold()) for name in (one, other))
    return not a or not b or a in b or b in a
