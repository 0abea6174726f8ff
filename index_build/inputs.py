"""What a build works on, opened once: the works with their digests, the model, CLIP; and how they compare.

An index may only be resumed, or taken for the one asked for, if everything that decides its numbers is equal.
`Identity` is that everything, by the names that a user knows.
"""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from das.config import BuildConfig, ClipSpec
from das.loras import choices
from das.manifest import Manifest, ModelRecord
from das.places import fingerprint
from das.sources import ModelSource
from das.works import SourceWorks, read_works
from index_build.progress import Reporter

_HASHING_THREADS = 8
_HASHED_AT_ONCE = 4096
_OPTION_OF = {
    "name": "--name",
    "attributed": "--attributed",
    "timesteps": "--timesteps",
    "noise_draws": "--noise-draws",
    "seed": "--seed",
    "dimension": "--dimension",
    "methods": "--method",
    "probes": "--probe",
    "normalise": "--normalise",
    "prompt_dropout": "--prompt-dropout",
    "damping": "--damping",
    "feature_dtype": "--feature-dtype",
    "shard_size": "--shard-size",
    "model": "the weights of --model (with --network, --lora and --size)",
    "checkpoints": "the weights of --checkpoint",
    "works": "the works of --works",
    "clip": "the CLIP model (--clip, --clip-dir, --no-screening)",
    "references": "--references",
    "held_out": "the pictures of --held-out",
    "sscd": "the file of --sscd",
}


@dataclass(frozen=True)
class WorksOnDisk:
    """The source's works with the sha256 of every file, and one digest over all of it."""

    source: SourceWorks
    digests: Sequence[str]
    digest: str

    def __len__(self) -> int:
        return len(self.source)

    def only(self, rows: Sequence[int]) -> "WorksOnDisk":
        """Some of the works, in the order of `rows`."""
        source, digests = self.source, [self.digests[row] for row in rows]
        table = source.table.take(pa.array(rows, pa.int64()))
        chosen = replace(source, table=table, places=tuple(source.places[row] for row in rows))
        return WorksOnDisk(chosen, digests, digest_of_works(table, digests))


def digest_of_works(table: pa.Table, digests: Sequence[str]) -> str:
    """One sha256 over the works' rows and the sha256 of their files."""
    whole = hashlib.sha256()
    for row, digest in zip(table.to_pylist(), digests, strict=True):
        whole.update(json.dumps([row, digest], sort_keys=True, default=str).encode())
    return whole.hexdigest()


def read_digested_works(
    path: Path,
    reporter: Reporter,
    *,
    follow_links: bool = False,
    format: str = "auto",
    creator_from: str | None = None,
) -> WorksOnDisk:
    """Read the source and hash every picture; one that can't be read has the digest "" and is reported later.

    What was taken is told; the options are those of `read_works`.
    """
    source = read_works(path, follow_links=follow_links, format=format, creator_from=creator_from)
    for line in source.describe():
        reporter.say(line)
    digests = hashed(source, range(len(source)), reporter)
    return WorksOnDisk(source, digests, digest_of_works(source.table, digests))


def hashed(source: SourceWorks, rows: Sequence[int], reporter: Reporter) -> list[str]:
    """The sha256 of the pictures in `rows`, in their order; "" for one that can't be read."""
    digests: list[str] = []
    with (
        reporter.stage("reading works", len(rows)) as stage,
        ThreadPoolExecutor(_HASHING_THREADS) as threads,
    ):
        for start in range(0, len(rows), _HASHED_AT_ONCE):
            some = rows[start : start + _HASHED_AT_ONCE]
            for digest in threads.map(lambda row: _digest_or_nothing(source, row), some):
                digests.append(digest)
                stage.advance()
    return digests


def _digest_or_nothing(source: SourceWorks, row: int) -> str:
    try:
        return source.digest(row)
    except OSError:
        return ""


def identity(
    config: BuildConfig,
    model: str,
    checkpoints: Sequence[str],
    works: str,
    clip: str,
    references: int | str,
    held_out: str | None,
    sscd: str | None,
) -> dict[str, Any]:
    """Everything that decides an index's numbers, by option; model, checkpoints, works and CLIP by digest.

    Args:
        references: how many the model makes, or the digest of a folder of them.
        held_out: the digest of the folder of held-out pictures; None where there is none.
        sscd: the digest of SSCD's file; None: there is none.
    """
    decided = {
        **config.compared(),
        "model": model,
        "checkpoints": [digest[:12] for digest in checkpoints],
        "works": works,
        "clip": clip,
    }
    # Where there are none nothing is said of them, as before there were any.
    given = {"references": references, "held_out": held_out, "sscd": None if sscd is None else sscd[:12]}
    return {**decided, **{name: value for name, value in given.items() if value}}


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """The options in which two identities differ, each as a phrase: what is asked for, what is there."""
    found = []
    for key in [*_OPTION_OF, *sorted((ours.keys() | theirs.keys()) - _OPTION_OF.keys())]:
        mine, other = ours.get(key), theirs.get(key)
        if mine == other:
            continue
        option = _OPTION_OF.get(key, key)
        if key in ("model", "works", "clip"):
            found.append(f"{option} (digest {str(mine)[:12]}, there {str(other)[:12]})")
        else:
            found.append(f"{option} ({_shown(mine)}, there {_shown(other)})")
    return found


def manifest_identity(manifest: Manifest) -> dict[str, Any]:
    """The identity of a finished index."""
    checkpoints = [record.digest for record in manifest.checkpoints]
    references = manifest.references
    held: int | str = 0
    if references is not None:
        held = references.count if references.digest is None else references.digest[:12]
    return identity(
        manifest.config,
        manifest.model.digest,
        checkpoints,
        manifest.works.digest,
        manifest.clip_digest,
        held,
        None if manifest.held_out is None else manifest.held_out.digest[:12],
        None if manifest.copies is None or manifest.copies.sscd is None else manifest.copies.sscd.digest,
    )


def model_fingerprint(source: str, loras: tuple[str, ...]) -> str:
    """`fingerprint` of a model with the LoRAs that are put on it, and their weights where they aren't 1."""
    found = [fingerprint(source)]
    for choice in choices(loras):
        weight = "" if choice.weight == 1.0 else f":{choice.weight!r}"
        found.append(f"{fingerprint(choice.source)}{weight}")
    return " ".join(found)


def is_same_model(record: ModelRecord, source: ModelSource, loras: tuple[str, ...], size: object) -> bool:
    """Whether a manifest's model is certainly the one asked for, told without loading it.

    Args:
        size: of its pictures, as the manifest's build was asked for.
    """
    parts = ((record.config, source.config), (record.network, source.network))
    return (
        size == source.size
        and record.fingerprint == model_fingerprint(source.model, loras)
        and all((a is None) == (b is None) for a, b in parts)
        and all(a.fingerprint == fingerprint(b) for a, b in parts if a is not None and b is not None)
    )


def clip_fingerprint(spec: ClipSpec | None) -> str:
    """`fingerprint` of a CLIP model; empty where none is wanted."""
    if spec is None:
        return ""
    return fingerprint(str(spec.directory)) if spec.directory else f"id:{spec.describe()}"


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "none" if value is None else str(value)
