"""A whole build, from a model and its works to a finished index directory."""

import json
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import psutil

from das import durable
from das.card import card_of
from das.clip_download import check_clip
from das.config import BuildConfig
from das.device import check_device
from das.errors import BuildError, SettingsError
from das.index import CARD_NAME, REFERENCES_NAME, REPORT_NAME, WORKS_NAME, AttributionIndex
from das.loras import choices
from das.manifest import (
    MANIFEST_NAME,
    BuildRecord,
    FeaturesRecord,
    LoraRecord,
    Manifest,
    ReferencesRecord,
    WeightFileRecord,
    WorksRecord,
    canonical_json,
    content_digest,
    list_files,
    manifest_bytes,
    read_manifest,
    record_file,
)
from das.methods import ACTIVATION
from das.places import fingerprint
from das.prompts import remark_on
from das.rights.holders import check_holders
from das.rights.table import signals_beside
from das.sources import check_source
from das.weight_files import weight_files
from das.works import QUIET, Works
from index_build.cluster.exchange import Shared, forget_shards
from index_build.disk import check_disk, disk_may_be_full, only_builder
from index_build.inputs import (
    WorksOnDisk,
    clip_fingerprint,
    differences,
    identity,
    is_same_model,
    manifest_identity,
    read_digested_works,
)
from index_build.loaded import checkpoint_sources, load, load_embedder, load_model
from index_build.progress import QuietReporter, Reporter
from index_build.records import (
    copies_record,
    extension_records,
    model_record,
    screening_record,
    versions,
)
from index_build.workspace import Workspace, building_path

_LISTED_PROBLEMS = 20


@dataclass(frozen=True)
class BuildResult:
    """A finished index and how it came about."""

    path: Path
    index_id: str
    state: Literal["built", "present"]
    works: int
    report: dict[str, Any]
    """What build-report.json holds: works left out, rows without files, files without rows."""


def build(
    config: BuildConfig,
    out: Path,
    *,
    device: str = "cpu",
    strict: bool = False,
    follow_links: bool = False,
    works_format: str = "auto",
    creator_from: str | None = None,
    command: str = "",
    reporter: Reporter | None = None,
    distributed: bool = False,
    exchange: str | None = None,
) -> BuildResult:
    """Build the index `out`, go on with one that was interrupted, or find it finished.

    Args:
        strict: stop at the first work that can't be used.
        follow_links: read also the works that links lead to which lie outside the folder.
        works_format, creator_from: as `das.works.read_works` takes them, for the works alone.
        distributed: have build workers compute the features (`index_build.cluster`); the rest is done here.
        exchange: URL where they leave them; None: beside `out`.

    Raises:
        BuildError: the place is taken, was begun with other options, or the disk is too small.
        WorksError, ModelError, SettingsError: an input can't be used.
    """
    check_device(device)
    if exchange is not None and not distributed:
        raise SettingsError("--exchange is where build workers leave shards; it needs --distributed.")
    reporter = reporter or QuietReporter()
    source = check_source(config.source)
    if not (out / MANIFEST_NAME).is_file() and (remark := check_clip(config.clip)) is not None:
        reporter.say(remark)
    if source.network != config.network:
        reporter.say(f"--network {config.network}: {source.network} is taken, the last of this run.")
        config = config.model_copy(update={"network": source.network})
    with only_builder(out) as out, disk_may_be_full(out):
        works = read_digested_works(
            config.works, reporter, follow_links=follow_links, format=works_format, creator_from=creator_from
        )
        # A value that can't be read ends the build before it begins.
        signals_beside(works.source.table)
        check_holders(works.source.table)
        missing = [remark for remark in works.source.left_out if remark.code not in QUIET]
        if strict and missing:
            raise BuildError(f"{missing[0].file}: {missing[0].message} (--strict is on)")
        given = None
        if not isinstance(config.references, int):
            given = read_digested_works(config.references, reporter, follow_links=follow_links)
        held_out = None
        if config.held_out is not None:
            held_out = read_digested_works(config.held_out, reporter, follow_links=follow_links)
        read = WorksReading(follow_links, works_format, creator_from)
        shared = Shared(out, exchange)
        run = _Build(config, out, works, given, held_out, device, command, reporter, read)
        for place in (out, building_path(out)):
            if (place / MANIFEST_NAME).is_file():
                run.compare_with_finished(place, strict=strict)
                if place != out:
                    Workspace(out).publish()
                forget_shards(shared, reporter)
                return run.present()
        return run.run(strict=strict, shared=shared, distributed=distributed)


@dataclass(frozen=True)
class WorksReading:
    """How the works were read, as `das.works.read_works` takes it."""

    follow_links: bool
    format: str
    creator_from: str | None


class _Build:
    def __init__(
        self,
        config: BuildConfig,
        out: Path,
        works: WorksOnDisk,
        references: WorksOnDisk | None,
        held_out: WorksOnDisk | None,
        device: str,
        command: str,
        reporter: Reporter,
        read: "WorksReading",
    ) -> None:
        self.read = read
        self.config = config
        self.out = out
        self.works = works
        self.references = references
        self.held_out = held_out
        self.device = device
        self.command = command
        self.reporter = reporter
        self.seconds: dict[str, float] = {}
        self.sscd: Any = None
        self.remarks: list[str] = []
        self.weight_files: tuple[WeightFileRecord, ...] = ()
        self.loras: tuple[LoraRecord, ...] = ()

    def compare_with_finished(self, place: Path, *, strict: bool) -> None:
        """Raise BuildError, naming the options, unless the finished index in `place` is the one asked for."""
        manifest = read_manifest(place)
        model, clip = manifest.model, manifest.screening
        clip_was = "" if clip is None else clip.fingerprint
        same_model = is_same_model(model, self.config.source, self.config.lora, manifest.config.size)
        same_clip = clip_was == clip_fingerprint(self.config.clip)
        ours = identity(
            self.config,
            model.digest
            if same_model
            else load_model(self.config, self.config.source, self.device).identity["digest"],
            [
                load_model(self.config, source, self.device).identity["digest"]
                for source in checkpoint_sources(self.config)
            ],
            self.works.digest,
            manifest.clip_digest if same_clip else load_embedder(self.config, self.device).digest,
            self._asked_references(),
            self._asked_held_out(),
            self._sscd_digest(),
        )
        if different := differences(ours, manifest_identity(manifest)):
            raise BuildError(
                f"{self.out} holds a finished index with other options: {'; '.join(different)}. "
                "Delete it, or choose another --out."
            )
        if strict and manifest.build.unreadable:
            raise BuildError(
                f"{self.out} holds a finished index without {manifest.build.unreadable:,} of its works, which"
                f" couldn't be used: {REPORT_NAME} there names them (--strict is on). Mend them, and choose"
                " another --out."
            )

    def present(self) -> BuildResult:
        """The index that is there already."""
        index = AttributionIndex.open(self.out)
        report = json.loads((self.out / REPORT_NAME).read_bytes())
        self.reporter.say(f"{self.out} is there already: {index.id}, {len(index):,} works.")
        return BuildResult(self.out, index.id, "present", len(index), report)

    def run(self, *, strict: bool, shared: Shared, distributed: bool) -> BuildResult:
        """Build or resume, and publish."""
        from das.attribution import Attributor
        from index_build.estimate import disk_needed, estimate
        from index_build.finish import finish
        from index_build.gather import Gatherer
        from index_build.held_out import HeldOutPictures
        from index_build.loras import lora_records
        from index_build.references import ReferenceMaker, measure_references

        config = self.config
        began = time.monotonic()
        loaded = load(config, self.device, self._note)
        model, extractors, embedder = loaded.model, loaded.extractors, loaded.embedder
        self.sscd = loaded.sscd
        self.loras = lora_records(config, model, self.works, self.reporter)
        self.weight_files = weight_files(config.model, [choice.source for choice in choices(config.lora)])
        check_disk(self.out, disk_needed(config, len(self.works), len(loaded.timesteps), embedder.dimension))
        digest, *digests = loaded.digests
        ours = identity(
            config,
            digest,
            digests,
            self.works.digest,
            embedder.digest,
            self._asked_references(),
            self._asked_held_out(),
            self._sscd_digest(),
        )
        workspace = Workspace.open(self.out, ours)
        if model.conditional and not self.works.source.prompts:
            self.reporter.warn(
                "the model is asked with text, and not one of the works has a prompt: they are attributed as if it"
                " had been trained on them with an empty one, and rank otherwise than by their captions. Give"
                " those as a column prompt (text, caption) or as .txt files (docs/training-sets.md)."
            )
        if (remark := remark_on(model, self.works.source.table["prompt"].to_pylist())) is not None:
            self.remarks.append(remark)
            self.reporter.warn(remark)
        if config.lora and all(features.probe == ACTIVATION for features in config.feature_sets):
            self.reporter.warn(
                "activations are the whole network's, not the LoRA's, and rank its works about as well as the paper's"
                " DAS; --probe loss --probe activation does much better for as many backward passes as timesteps."
            )
        self.seconds["loading"] = time.monotonic() - began

        began = time.monotonic()
        gatherer = Gatherer(config, self.works, loaded)
        done = min(workspace.shards_done * config.shard_size, len(self.works))
        if done:
            self.reporter.say(
                f"going on with an interrupted build: {done:,} of {len(self.works):,} works are done"
            )
        expected = estimate(config, self.works, len(self.works) - done, extractors, embedder)
        self.reporter.say(f"{len(self.works):,} works: {expected.describe()}")
        if expected.memory_bytes > (available := psutil.virtual_memory().available):
            self.reporter.warn(
                f"only {available / 1e9:.1f} GB of memory are free; lower --shard-size, --batch-size or --dimension"
                " if the build is killed."
            )
        references = ReferenceMaker(config, self.references, self.works, workspace)
        if config.references:
            references.estimate(model, self.reporter)
        held_out = HeldOutPictures(config, self.held_out, self.works) if self.held_out else None
        if held_out is not None:
            held_out.estimate(model, self.reporter)
        self.seconds["estimating"] = time.monotonic() - began

        began = time.monotonic()
        if distributed:
            sums = self._gather_distributed(gatherer, workspace, shared, ours, strict=strict)
        else:
            sums = gatherer.run(workspace, self.reporter, strict=strict)
        self.seconds["gradients"] = time.monotonic() - began

        known = None
        if held_out is not None:
            began = time.monotonic()
            known = held_out.measure(model, self.reporter)
            self.seconds["held-out"] = time.monotonic() - began

        began = time.monotonic()
        gap = known.record.gap if known is not None and known.record.decides_damping else None
        finished = finish(config, self.works, workspace, sums, self.reporter, gap)
        self.seconds["finishing"] = time.monotonic() - began
        for kernel in finished.kernels:
            # Not for the block kernel, whose ranking was best with the sketch nearly full (docs/method.md).
            if kernel.form == "mean" and (kernel.effective_dimension or 0) > config.dimension / 4:
                self.reporter.warn(
                    f"the sketch is small for the {kernel.form} kernel of {kernel.features}: its effective"
                    f" dimension is {kernel.effective_dimension:,.0f} of {config.dimension:,}. Above a quarter,"
                    " scores lose precision; raise --dimension or --damping."
                )

        report = self._report(finished.refused)
        durable.write_bytes(workspace.path / REPORT_NAME, canonical_json(report))
        manifest = self._manifest(workspace, extractors, embedder, loaded.timesteps, finished, known)
        if config.references:
            began = time.monotonic()
            pictures = references.pictures(model, self.reporter)
            # As it will be asked, but for its digests: what is measured now belongs to them.
            index = AttributionIndex(workspace.path, manifest, Works.open(workspace.path / WORKS_NAME))
            attributor = Attributor(index, model=model, device=self.device)
            others = [] if known is None else known.pixels
            measured, record = measure_references(attributor, workspace, pictures, others, self.reporter)
            durable.write_path(workspace.path / REFERENCES_NAME, measured.write)
            self.seconds["references"] = time.monotonic() - began
            manifest = self._manifest(
                workspace, extractors, embedder, loaded.timesteps, finished, known, record
            )
        manifest = self._finished(workspace, manifest)
        durable.write_bytes(workspace.path / MANIFEST_NAME, manifest_bytes(manifest))
        workspace.publish()
        forget_shards(shared, self.reporter)
        self._tell(report)
        return BuildResult(self.out, manifest.id, "built", manifest.works.count, report)

    def _gather_distributed(
        self, gatherer: Any, workspace: Workspace, shared: Shared, identity: dict[str, Any], *, strict: bool
    ) -> dict[str, Any]:
        """The kernel sums of what build workers compute."""
        import torch

        from index_build.cluster.coordinator import gather
        from index_build.cluster.exchange import Plan
        from jobs.settings import get_settings

        plan = Plan(
            config=self.config,
            directory=str(Path.cwd()),
            follow_links=self.read.follow_links,
            works_format=self.read.format,
            creator_from=self.read.creator_from,
            strict=strict,
            works=len(self.works),
            shards=gatherer.shards,
            identity=identity,
            begun=workspace.token(),
            versions=versions(),
            extensions=extension_records(self.config),
            threads=torch.get_num_threads(),
        )
        return gather(gatherer, workspace, shared, plan, self.works.digests, get_settings(), self.reporter)

    def _asked_references(self) -> int | str:
        """How many the model is to make, or the digest of the folder given."""
        if isinstance(self.config.references, int):
            return self.config.references
        assert self.references is not None
        return self.references.digest[:12]

    def _asked_held_out(self) -> str | None:
        """The digest of the folder given."""
        return None if self.held_out is None else self.held_out.digest[:12]

    def _note(self, remark: str) -> None:
        self.remarks.append(remark)
        self.reporter.say(remark)

    def _sscd_digest(self) -> str | None:
        return None if self.config.sscd is None else fingerprint(str(self.config.sscd))

    def _manifest(
        self,
        workspace: Workspace,
        extractors: tuple[Any, ...],
        embedder: Any,
        timesteps: tuple[int, ...],
        finished: Any,
        held_out: Any,
        references: ReferencesRecord | None = None,
    ) -> Manifest:
        """All that the manifest says but what the files are."""
        config = self.config
        model, *checkpoint_records = (
            model_record(config, source, extractor, self.out, [] if number else self.remarks, self.loras)
            for number, (source, extractor) in enumerate(
                zip([config.source, *checkpoint_sources(config)], extractors, strict=True)
            )
        )
        works_record = WorksRecord(
            source=str(config.works.resolve()),
            count=len(finished.rows),
            source_rows=len(self.works),
            trained=finished.trained,
            digest=self.works.digest,
            format=self.works.source.format,
        )
        features = FeaturesRecord(
            dtype=config.feature_dtype,
            dimension=config.dimension,
            sets=tuple(features.name for features in config.feature_sets),
            shard_rows=finished.shard_rows,
        )
        screening = screening_record(config.clip, embedder, finished.screening_kind, self.out)
        build_record = BuildRecord(
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            command=self.command,
            device=self.device,
            versions=versions(),
            seconds={stage: round(seconds, 3) for stage, seconds in self.seconds.items()},
            unreadable=len(finished.refused),
        )
        return Manifest(
            name=config.name,
            content_digest="",
            config=config,
            timesteps=timesteps,
            model=model,
            weight_files=self.weight_files,
            checkpoints=tuple(checkpoint_records),
            extensions=extension_records(self.config),
            works=works_record,
            kernels=finished.kernels,
            features=features,
            screening=screening,
            references=references,
            held_out=None if held_out is None else held_out.record,
            copies=copies_record(config.sscd, self.sscd, self.out),
            build=build_record,
            files={},
        )

    def _finished(self, workspace: Workspace, manifest: Manifest) -> Manifest:
        """Write the card, and add to the manifest what every file holds and the digest of it all."""
        card = card_of(manifest, Works.open(workspace.path / WORKS_NAME))
        durable.write_bytes(workspace.path / CARD_NAME, card.encode())
        names = [name for name in list_files(workspace.path) if workspace.is_product(name)]
        files = {}
        with self.reporter.stage("digests", len(names)) as stage:
            for name in names:
                files[name] = record_file(workspace.path / name)
                stage.advance()
        digest = content_digest(
            manifest.config,
            [record.digest for record in (manifest.model, *manifest.checkpoints)],
            manifest.works.digest,
            manifest.clip_digest,
            manifest.kernels,
            files,
            manifest.extensions,
        )
        return manifest.model_copy(update={"content_digest": digest, "files": files})

    def _report(self, refused: list[dict[str, Any]]) -> dict[str, Any]:
        """What was left out, and what the metadata and the folder don't agree about."""
        return {
            "taken": self.works.source.account(),
            "unreadable": [{key: entry[key] for key in ("file", "code", "message")} for entry in refused],
            "left_out": [asdict(remark) for remark in self.works.source.left_out],
            "metadata": [asdict(remark) for remark in self.works.source.remarks],
            "loras": [record.model_dump(mode="json") for record in self.loras],
        }

    def _tell(self, report: dict[str, Any]) -> None:
        """The report's entries as sentences, as far as a screen holds them."""
        for title, entries in (
            ("couldn't be used", report["unreadable"]),
            ("left out", report["left_out"]),
            ("remarks on the metadata", report["metadata"]),
        ):
            if entries:
                self.reporter.warn(f"{len(entries):,} {title}; all are in {self.out / REPORT_NAME}")
            for entry in entries[:_LISTED_PROBLEMS]:
                self.reporter.say(f"  {entry['file']}: {entry['message']}")
