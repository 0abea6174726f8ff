"""What a report holds: the question, the picture's digests, the index and model, the answer, and its limits."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from das.answer import notes_of
from das.index import AttributionIndex

FORMAT, VERSION = "das-evidence", 1
TOLD = ("title", "creator", "rights_holder", "licence", "source_url", "tdm")
"""What is told of a work beside its numbers, where the index has it."""

_NO_INTERVAL = {"low": None, "high": None}  # of answers that earlier versions gave

LIMITS = (
    "The shares say how the measured influence is divided among the works that were scored. They aren't parts of the"
    " picture, and no proof that a work was copied or that anybody has a right to anything.",
    "A work that isn't in this index can't be named here, however much the picture owes it.",
    "Influence is estimated from the trained model; no model was trained again without the works named.",
    "Titles, creators, rights holders, licences and signals are as the index's metadata say; nobody checked them.",
    "A signature says that the holder of the key sealed these words. It says nothing of when, and not that they are"
    " right: recomputing does.",
)


@dataclass(frozen=True)
class Asked:
    """The question that was answered.

    Attributes:
        id: of the question, where a service was asked.
        asked_at, finished_at: as ISO 8601.
        candidates: ids of the works that were scored; None for all.
        picture: what is known of the picture as it came, with its `sha256`.
        pixels: the digest of the normalised picture, see `pixels_digest`; None where it is no longer kept.
    """

    id: str | None
    asked_at: str | None
    finished_at: str | None
    method: str
    candidates: Sequence[str] | None
    top_k: int
    prompt: str | None
    seed: int | None
    picture: Mapping[str, Any]
    pixels: str | None


def pixels_digest(pixels: np.ndarray) -> str:
    """`sha256:` and a digest of a picture's pixels (H, W, 3) uint8 sRGB, however they are stored."""
    height, width, channels = pixels.shape
    found = hashlib.sha256(f"{width} x {height} x {channels} uint8\n".encode())
    found.update(np.ascontiguousarray(pixels, dtype=np.uint8).tobytes())
    return f"sha256:{found.hexdigest()}"


def report(
    index: AttributionIndex | str,
    asked: Asked,
    result: Mapping[str, Any],
    notes: Sequence[str],
    copied: str | None,
    made_by: str,
    shared: Mapping[str, Any] | None = None,
    named_by: AttributionIndex | None = None,
) -> dict[str, Any]:
    """The report of an answer, as plain values that have a canonical spelling.

    Args:
        index: that was asked; its id alone where nobody has it any more, so that nothing else is told of it.
        result: the answer as `das.answer.Attribution.as_result` gives it.
        notes: what was told beside it.
        copied: what was said of the picture as a copy of a work.
        made_by: program and version that writes this.
        shared: what whoever hands the report on has left out of it: `left_out`, the names of the parts, and `works`,
            how many of the ranked works are told of, None for all.
        named_by: the version of that index which says what its works are called; None: the index itself.
    """
    there = None if isinstance(index, str) else index
    named_by = named_by or there
    quality = None if there is None else there.quality_of(asked.method)
    in_model = result.get("in_model")
    # Of an index that isn't there any more nobody can tell whether it was measured.
    limits = [*LIMITS, *notes_of(measured=there is None or quality is not None, in_model=in_model)]
    said = dict.fromkeys([*result.get("caveats", ()), *notes])
    handed_on = {} if shared is None else {"shared": dict(shared)}
    return {
        **handed_on,
        "format": FORMAT,
        "version": VERSION,
        "made_by": made_by,
        "question": {
            "id": asked.id,
            "asked_at": asked.asked_at,
            "finished_at": asked.finished_at,
            "method": asked.method,
            "candidates": dict(result["candidates"]),
            "candidate_works": None if asked.candidates is None else list(asked.candidates),
            "top_k": asked.top_k,
            "prompt": asked.prompt,
            # As text: seeds go up to 2^64, and a JSON number is exact below 2^53.
            "seed": None if asked.seed is None else str(asked.seed),
        },
        "picture": {**asked.picture, "pixels": asked.pixels},
        "index": {**dict.fromkeys(_INDEX), "id": index} if there is None else _index(there, asked.method),
        "answer": {
            "summary": result["summary"],
            "in_model": in_model,
            "certainty": result.get("certainty"),
            "copy": None if result.get("copy") is None else {**result["copy"], "summary": copied},
            "works": [_work(named_by, place) for place in result["works"]],
            "groups": {
                kind: [{**_NO_INTERVAL, **group} for group in groups]
                for kind, groups in result["groups"].items()
            },
            "notes": [note for note in said if note not in limits],
            **({"rounding": result["rounding"]} if "rounding" in result else {}),
        },
        "quality": None if quality is None else quality.model_dump(mode="json"),
        "limits": limits,
    }


_INDEX = (
    *("id", "content_digest", "works", "works_digest", "model", "timesteps", "features", "kernels", "seed"),
    *("built_at", "versions"),
)
"""What is told of an index; of one that isn't there any more all but its id is null."""


def _index(index: AttributionIndex, method: str) -> dict[str, Any]:
    manifest = index.manifest
    return {
        "id": index.id,
        "content_digest": manifest.content_digest,
        "works": len(index),
        "works_digest": manifest.works.digest,
        "model": {
            "source": manifest.model.source.rstrip("/").rpartition("/")[2],
            "digest": manifest.model.digest,
            "class": manifest.model.identity.get("class"),
            "attributed_parameters": manifest.model.attributed_parameters,
            "loras": [
                {"source": lora.source.rstrip("/").rpartition("/")[2], "weight": lora.weight}
                for lora in manifest.model.loras
            ],
        },
        "timesteps": list(manifest.timesteps),
        "features": manifest.features.model_dump(mode="json", include={"dtype", "dimension", "sets"}),
        "kernels": [kernel.model_dump(mode="json") for kernel in manifest.kernels_of(method)],
        "seed": manifest.config.seed,
        "built_at": manifest.build.created_at,
        "versions": dict(manifest.build.versions),
    }


def _work(index: AttributionIndex | None, place: Mapping[str, Any]) -> dict[str, Any]:
    row = None if index is None else index.works.find(place["work_id"])
    about = {} if row is None or index is None else index.works.row(row)
    # The digest of the work's file says which picture is meant, whatever it is called.
    return {
        **_NO_INTERVAL,
        **place,
        "sha256": about.get("digest"),
        **{name: about.get(name) for name in TOLD},
    }
