"""Works come and go: a new version of an index, made of the one before and of the works that changed alone."""

import hashlib
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch

from das import durable
from das.attribution import Attributor
from das.card import card_of
from das.changes import REMOVED_NAME, ChangeRecord, Kind, removed_bytes
from das.errors import BuildError, IndexFormatError, ModelError
from das.index import CARD_NAME, AttributionIndex
from das.manifest import (
    MANIFEST_NAME,
    BuildRecord,
    HeldOutRecord,
    Manifest,
    canonical_json,
    content_digest,
    list_files,
    manifest_bytes,
    read_manifest,
    record_file,
)
from das.plurals import counted
from das.prompts import remark_on
from das.rights.holders import check_holders
from das.rights.table import signals_beside
from das.screening import Embedder, NoEmbedder
from das.sscd import Sscd
from das.works import QUIET, Works
from index_build.chosen import check_left, lacking, tell_of_copies, without_removed
from index_build.disk import disk_may_be_full, only_builder
from index_build.finish import reads_residuals
from index_build.found_again import HIDING, works_of
from index_build.gather import Gatherer
from index_build.held_out import check_not_held_out
from index_build.inputs import WorksOnDisk, read_digested_works
from index_build.later import tell_of_later
from index_build.loaded import Loaded
from index_build.moved import seen_from
from index_build.progress import QuietReporter, Reporter
from index_build.records import versions
from index_build.renewed import read_forms
from index_build.version import (
    WITHOUT_RESIDUALS,
    Came,
    VersionWriter,
    Written,
    report_of,
    write_report,
)
from index_build.workspace import StoredShard, Workspace, building_path

_APART = 0.1
"""Of its length, how far a feature that is computed again may be from the stored one; another picture's is as far as
it is long."""


@dataclass(frozen=True)
class VersionResult:
    """A version and how it came about; `unchanged`: there was nothing to do, and none was made."""

    path: Path
    index_id: str
    parent: str
    state: Literal["made", "present", "unchanged"]
    works: int
    changed: int
    """How many works came or went."""
    refused: tuple[dict[str, Any], ...] = ()
    """Works that couldn't be read and didn't come."""
    later: tuple[str, ...] = ()
    """Newer versions beside it that it isn't made of, in whose place it is served."""
    seconds: dict[str, float] = field(default_factory=dict)


def remove(
    index: AttributionIndex,
    rows: np.ndarray,
    out: Path,
    *,
    pictures: Path | None = None,
    device: str = "cpu",
    reporter: Reporter | None = None,
) -> VersionResult:
    """Make the version `out` of `index` without the works in `rows`; go on with one that was interrupted.

    Args:
        rows: (n,), ascending, each once (`index_build.chosen.choose`).
        pictures: where the pictures of these works are; None: where they were read from.

    Raises:
        BuildError: a picture, or the model, isn't there; the place is taken; the disk is full.
        SettingsError: too few works would be left.
        IndexFormatError: the index is damaged.
    """
    reporter = reporter or QuietReporter()
    if not len(rows):
        return _unchanged(index, out)
    check_left(index, len(rows))
    kept = np.ones(len(index), bool)
    kept[rows] = False
    ids = sorted(index.works.id_of(int(row)) for row in rows)
    change = _Change(index, "removed", canonical_json(ids).decode(), device, reporter)
    with version_place(index, out) as out:
        change.later = tell_of_later(index, out, reporter, ids)
        if (found := change.present(out)) is not None:
            return found
        change.check()
        works = None
        # Likenesses and plain inner products have no kernel to take the works out of.
        if read_forms(index.manifest.config):
            works = works_of(index, rows, pictures, reporter)
        tell_of_copies(index, kept, reporter)
        workspace, sums = change.sums_of(out, works, strict=True)
        if works is not None:
            _check_same(index, rows, workspace.shards())
        return change.finish(workspace, kept, None, sums)


def add(
    index: AttributionIndex,
    source: Path,
    out: Path,
    *,
    device: str = "cpu",
    strict: bool = False,
    follow_links: bool = False,
    works_format: str = "auto",
    creator_from: str | None = None,
    again: bool = False,
    reporter: Reporter | None = None,
) -> VersionResult:
    """Make the version `out` of `index` with the works of `source` that it lacks; go on with an interrupted one.

    Works with the same bytes and the same prompt as one of the index are in it already. Options are `build`'s.

    Args:
        again: also works that were removed from the index; else these stay out.

    Raises:
        BuildError, ModelError, WorksError: as for a build; or the works can't come to this index, which holds them
            out.
        IndexFormatError: the index is damaged.
    """
    reporter = reporter or QuietReporter()
    with version_place(index, out) as out:
        works = read_digested_works(
            source, reporter, follow_links=follow_links, format=works_format, creator_from=creator_from
        )
        signals_beside(works.source.table)
        check_holders(works.source.table)
        left_out = [remark for remark in works.source.left_out if remark.code not in QUIET]
        if strict and left_out:
            raise BuildError(f"{left_out[0].file}: {left_out[0].message} (--strict is on)")
        rows = lacking(index, works)
        if not again:
            rows, kept_out = without_removed(index, works, rows)
            if kept_out:
                reporter.warn(
                    f"{kept_out:,} of these works were removed from {index.id} before and stay out; --again takes"
                    " them in."
                )
        reporter.say(f"{len(rows):,} of these works aren't in {index.id} yet")
        if not rows:
            return _unchanged(index, out)
        works = works.only(rows)
        if index.manifest.held_out is not None:
            check_not_held_out(index.manifest.held_out, works, reporter, follow_links=follow_links)
        change = _Change(index, "added", works.digest, device, reporter, works, source)
        change.later = tell_of_later(index, out, reporter)
        if (found := change.present(out)) is not None:
            if strict and found.changed < len(works):
                raise BuildError(
                    f"{out} is there already, without {len(works) - found.changed:,} of these works, which"
                    " couldn't be read: build-report.json there names them (--strict is on)"
                )
            return found
        change.check()
        workspace, sums = change.sums_of(out, works, strict=strict, everything=True)
        shards = workspace.shards()
        refused = tuple(entry for shard in shards for entry in shard.refused)
        if not any(len(shard) for shard in shards):
            # Once they can be read they are other works to a workspace.
            workspace.discard()
            return _unchanged(index, out, refused)
        return change.finish(workspace, np.ones(len(index), bool), Came(works, shards, refused), sums)


class _Change:
    """One change of one index, on its way to a version."""

    def __init__(
        self,
        index: AttributionIndex,
        kind: Kind,
        what: str,
        device: str,
        reporter: Reporter,
        works: WorksOnDisk | None = None,
        given: Path | None = None,
    ) -> None:
        """`what` says which works come or go; `works` are those that come, read from what was `given`."""
        self.index = index
        self.kind = kind
        self.device = device
        self.reporter = reporter
        self.source = None if works is None else works.source
        self.given = given
        self.seconds: dict[str, float] = {}
        self.later: tuple[str, ...] = ()
        said = canonical_json([index.manifest.works.digest, kind, what])
        self.digest = hashlib.sha256(said).hexdigest()
        """As `WorksRecord.digest`: of the parent's works and what happened to them."""

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - began

    def present(self, out: Path) -> VersionResult | None:
        """The version if it is finished already, published if it only lacked that.

        Raises:
            BuildError: another index is there.
        """
        for place in (out, building_path(out)):
            if not (place / MANIFEST_NAME).is_file():
                continue
            manifest = read_manifest(place)
            last = manifest.changes[-1] if manifest.changes else None
            if last is None or (last.parent, manifest.works.digest) != (self.index.id, self.digest):
                raise BuildError(
                    f"{place} holds another index, {manifest.id}, than this change of {self.index.id} makes. Delete"
                    " it, or choose another --out."
                )
            if place != out:
                Workspace(out).publish()
            self.reporter.say(
                f"{out} is there already: {manifest.id}, {counted(manifest.works.count, 'work')}."
            )
            return VersionResult(
                out, manifest.id, self.index.id, "present", manifest.works.count, last.works, later=self.later
            )
        return None

    def check(self) -> None:
        """See that the index is whole and has what changing it takes; raises IndexFormatError, BuildError."""
        if reads_residuals(self.index.manifest.config) and self.index.residual_rms is None:
            raise BuildError(WITHOUT_RESIDUALS.format(index=self.index.id))
        with (
            self._timed("verifying"),
            self.reporter.stage("verifying", len(self.index.manifest.files)) as stage,
        ):
            # What is written anew gets a digest of its own: damage would go on as though it had been built so.
            found = self.index.verify()
            stage.advance(len(self.index.manifest.files))
        damages = [damage for damage in found.damages if damage.kind != "extra"]
        if damages:
            raise IndexFormatError(
                f"{self.index.path}: {damages[0].file} is damaged ({damages[0].message}); restore it first."
            )

    def sums_of(
        self, out: Path, works: WorksOnDisk | None, *, strict: bool, everything: bool = False
    ) -> tuple[Workspace, dict[str, np.ndarray]]:
        """Compute the features of the works that come or go, into a workspace; returns their kernel sums with it.

        Args:
            everything: all that an index keeps of a work, and not only features.

        Raises:
            BuildError: the model, or CLIP, isn't there or is another one; a picture can't be read, if `strict`.
        """
        workspace = Workspace.open(out, {"change": self.kind, "parent": self.index.id, "works": self.digest})
        if works is None:
            return workspace, {}
        index, config = self.index, self.index.manifest.config
        try:
            with self._timed("loading"):
                extractors = Attributor(index, device=self.device).extractors()
                prompts = works.source.table["prompt"].to_pylist() if everything else []
                if (remark := remark_on(extractors[0].model, prompts)) is not None:
                    self.reporter.warn(remark)
                embedder: Embedder | NoEmbedder = NoEmbedder()
                sscd = None
                if everything and index.screened:
                    embedder = Embedder.load(index.clip, self.device)
                    embedder.check(index.manifest.clip_digest, index.id)
                if everything and index.sscd_embeddings is not None:
                    sscd = Sscd.load(Path(str(index.sscd_source)), self.device)
                    _check_sscd(index, sscd)
        except ModelError as error:
            raise BuildError(f"{error} {HIDING if self.kind == 'removed' else ''}".rstrip()) from error
        asked = config.model_copy(update={"references": 0})
        with self._timed("gradients"):
            sums = Gatherer(asked, works, Loaded(tuple(extractors), embedder, sscd)).run(
                workspace, self.reporter, strict=strict and self.kind == "added"
            )
        refused = [entry for shard in workspace.shards() for entry in shard.refused]
        if refused and self.kind == "removed":
            # Without them it is another change.
            workspace.discard()
            raise BuildError(
                f"{refused[0]['file']} can't be read ({refused[0]['message']}), so its part can't be taken out of a"
                f" kernel: leave it off the list. {HIDING}"
            )
        return workspace, sums

    def finish(
        self, workspace: Workspace, kept: np.ndarray, came: Came | None, sums: dict[str, np.ndarray]
    ) -> VersionResult:
        """Write the version's files and publish it."""
        index, directory = self.index, workspace.path
        changed = int((~kept).sum()) if came is None else sum(len(shard) for shard in came.shards)
        record = ChangeRecord(
            kind=self.kind,
            parent=index.id,
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            works=changed,
            before=len(index),
            source=None if self.given is None else str(self.given.resolve()),
            format=None if self.source is None else self.source.format,
        )
        changes = (*index.manifest.changes, record)
        if index.manifest.approximate is not None:
            self.reporter.warn(
                f"{index.id} has an approximate search, which is of its own works: the version scores every work"
                " until das index approximate makes one for it."
            )
        with self._timed("writing"), torch.no_grad():
            written = VersionWriter(index, kept, came, sums, directory, self.reporter).write(changes)
            gone = set(index.works.table.filter(pa.array(~kept))["file"].to_pylist())
            write_report(directory, report_of(index, written.table, gone, came))
            if written.removed:
                durable.write_bytes(directory / REMOVED_NAME, removed_bytes(written.removed))
        with self._timed("digests"):
            manifest = self._manifest(workspace, written, changes, kept, came)
        durable.write_bytes(directory / MANIFEST_NAME, manifest_bytes(manifest))
        workspace.publish()
        return VersionResult(
            workspace.out,
            manifest.id,
            index.id,
            "made",
            manifest.works.count,
            changed,
            () if came is None else came.refused,
            self.later,
            self.seconds,
        )

    def _manifest(
        self,
        workspace: Workspace,
        written: Written,
        changes: tuple[ChangeRecord, ...],
        kept: np.ndarray,
        came: Came | None,
    ) -> Manifest:
        former = self.index.manifest
        asked = 0 if came is None else len(came.works)
        refused = 0 if came is None else len(came.refused)
        works = former.works.model_copy(
            update={
                "count": len(written.table),
                "source_rows": former.works.source_rows - int((~kept).sum()) + asked,
                "trained": sum(written.table["repeats"].to_pylist()),
                "digest": self.digest,
            }
        )
        features = former.features.model_copy(
            update={
                "shard_rows": written.shard_rows,
                "whitening": "former" if written.whitening_is_former else "block",
                "growth": written.growth,
            }
        )
        moved = seen_from(former, self.index.path, workspace.out)
        screening = moved.screening
        if screening is not None:
            screening = screening.model_copy(update={"kind": written.screening_kind})
        build = BuildRecord(
            created_at=changes[-1].at,
            # Not as it was typed, which may name who is gone.
            command=f"das index {'remove' if self.kind == 'removed' else 'add'}",
            device=self.device,
            versions=versions(),
            seconds={name: round(value, 3) for name, value in self.seconds.items()},
            unreadable=former.build.unreadable + refused,
        )
        manifest = moved.model_copy(
            update={
                "content_digest": "",
                "works": works,
                "kernels": written.kernels,
                "features": features,
                "screening": screening,
                "held_out": self._still_known(former.held_out, kept, written.table),
                # Of another ranking, and of other works.
                "quality": None,
                "approximate": None,
                "build": build,
                "changes": changes,
                "removed": len(written.removed),
                "files": {},
            }
        )
        card = card_of(manifest, Works(written.table))
        durable.write_bytes(workspace.path / CARD_NAME, card.encode())
        files = {}
        names = [name for name in list_files(workspace.path) if workspace.is_product(name)]
        with self.reporter.stage("digests", len(names)) as stage:
            for name in names:
                shared = written.shared.records.get(name)
                files[name] = record_file(workspace.path / name) if shared is None else shared
                stage.advance()
        digest = content_digest(
            manifest.config,
            [record.digest for record in (manifest.model, *manifest.checkpoints)],
            works.digest,
            manifest.clip_digest,
            manifest.kernels,
            files,
            manifest.extensions,
        )
        return manifest.model_copy(update={"content_digest": digest, "files": files})

    def _still_known(
        self, record: HeldOutRecord | None, kept: np.ndarray, table: pa.Table
    ) -> HeldOutRecord | None:
        """What held-out pictures told, without the creators whose works came or went."""
        if record is None:
            return None
        before = Counter(self.index.works.creators)
        now = Counter(table["creator"].to_pylist())
        gone = set(self.index.works.table.filter(pa.array(~kept))["creator"].to_pylist())
        creators = tuple(
            one for one in record.creators if one.name not in gone and before[one.name] == now[one.name]
        )
        return record.model_copy(update={"creators": creators})


def _unchanged(index: AttributionIndex, out: Path, refused: tuple[dict[str, Any], ...] = ()) -> VersionResult:
    return VersionResult(out, index.id, index.id, "unchanged", len(index), 0, refused)


@contextmanager
def version_place(index: AttributionIndex, out: Path) -> Iterator[Path]:
    """Hold the place of a version; raises BuildError where it can't be there."""
    if out.resolve().is_relative_to(index.path.resolve()):
        raise BuildError(
            f"{out} is the index itself or lies in it, and an index never changes: choose another --out for its"
            " version."
        )
    with only_builder(out) as out, disk_may_be_full(out):
        yield out


def _check_same(index: AttributionIndex, rows: np.ndarray, shards: Sequence[StoredShard]) -> None:
    """See that features computed again are those that the index stores; raises BuildError."""
    for name in dict.fromkeys(features.name for features, _ in read_forms(index.manifest.config)):
        whitening = torch.from_numpy(index.whitening(name))
        for shard in shards:
            averages = torch.from_numpy(shard.averages(name)).double()
            again = torch.linalg.solve_triangular(whitening, averages.T, upper=False).T.numpy()
            stored = index.features(name).take(rows[shard.rows]).astype(np.float64)
            apart = np.linalg.norm(again - stored, axis=1) / np.maximum(np.linalg.norm(stored, axis=1), 1e-12)
            if apart.max() > _APART:
                raise BuildError(
                    f"the features of {index.works.id_of(int(rows[shard.rows][apart.argmax()]))} come out otherwise"
                    f" than {index.id} stores them ({apart.max():.0%} apart): it was built by another version of das,"
                    f" or computes otherwise on this device. Build the index again without the works. {HIDING}"
                )


def _check_sscd(index: AttributionIndex, sscd: Sscd) -> None:
    copies = index.manifest.copies
    if copies is not None and copies.sscd is not None and sscd.digest != copies.sscd.digest:
        raise ModelError(f"{index.sscd_source} isn't the SSCD model that {index.id} was built with.")
