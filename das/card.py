"""The index's card: its manifest in words, for whoever has to decide whether to rely on it."""

from collections import Counter
from pathlib import Path

from das.approximation import ASKED, TOP_WORKS, ApproximateRecord
from das.changes import STALE_BEYOND, is_coarse, keeps_shares
from das.copies import COPY_BITS, LEAST_QUALITY, NEAR_BITS, SSCD_COPY
from das.manifest import (
    CopiesRecord,
    HeldOutRecord,
    LoraRecord,
    Manifest,
    ModelRecord,
    QualityRecord,
    ReferencesRecord,
    ScreeningRecord,
    WorksRecord,
)
from das.pdq import BITS
from das.plurals import counted
from das.references import HELD_OUT_LEVEL, MARGIN, RE_ENCODED_LEVEL
from das.rights.table import COLUMN
from das.rights.values import MEANINGS, RESERVED, VALUES
from das.works import Works

_SHOWN_CREATORS = 20
_KNOWN_LEVEL = 0.05


def card_of(manifest: Manifest, works: Works) -> str:
    """The card of an index as Markdown, with what its manifest says of its quality."""
    model, features, record = manifest.model, manifest.features, manifest.works
    left_out = record.source_rows - record.count
    lines = [
        f"# Attribution index: {manifest.name}",
        "",
        "Which of these works a generated image owes most to, by the Diffusion Attribution Score.",
        "",
        "## What it was built from",
        "",
        f"- **Works**: {record.count:,}"
        + (f" ({left_out:,} more couldn't be used; see build-report.json)" if left_out else "")
        + (f", trained on {record.trained:,} times in all" if _repeated(record) else ""),
        *_prompts(model, works),
        f"- **Model**: {model.identity.get('class', 'unknown')}, {_shape(model.sample_shape)},"
        f" {model.num_train_timesteps:,} diffusion steps, weights {model.digest[:12]}",
        *(f"- **How it was read**: {remark}" for remark in model.remarks),
        *_loras(model),
        f"- **Attributed parameters**: {_parameters(model, manifest.config.attributed)}",
        f"- **Timesteps**: {', '.join(map(str, manifest.timesteps))}",
        f"- **Features**: {', '.join(features.sets)}; {features.dimension:,} dimensions, {features.dtype}",
        f"- **Screening**: {_screened(manifest.screening)}",
        f"- **Built**: {manifest.build.created_at} on {manifest.build.device}",
        "",
        *_changes(manifest),
        *_search(manifest.approximate),
        "## Kernels",
        "",
        "| method | features | form | λ / (tr K / N) | effective dimension |",
        "|---|---|---|---|---|",
        *(
            f"| {kernel.method} | {kernel.features} | {kernel.form} | {_number(kernel.relative_damping, '.3g')} "
            f"| {_number(kernel.effective_dimension, ',.1f')} of {features.dimension:,} |"
            for kernel in manifest.kernels
        ),
        "",
        "## How good it is",
        "",
        *_measured(manifest.quality),
        "",
        "## Whether the model made a picture",
        "",
        *_references(manifest.references),
        "",
        "## How well the model knows its works",
        "",
        *_held_out(manifest.held_out),
        "",
        "## Whether a picture is a copy of a work",
        "",
        *_copies(manifest.copies),
        "",
        "## Licences",
        "",
        *_counted(works.column("licence"), "licence"),
        "",
        "## Rights signals",
        "",
        *_rights(works),
        "",
        "## Creators",
        "",
        *_counted(works.creators, "creator"),
        "",
    ]
    # Names are as the works' metadata have them, with line breaks too.
    return "\n".join(" ".join(line.splitlines()) for line in lines)


def _search(record: ApproximateRecord | None) -> list[str]:
    """How works are found, where that isn't by scoring all of them."""
    if record is None:
        return []
    return [
        "## How works are found",
        "",
        f"By an approximate search where every work is a candidate and the method is {record.method}; `--exact` of"
        " `das query` scores every work.",
        "",
        f"- **Found**: {record.found} of the {TOP_WORKS} works that rank highest, on average over {record.queries:,}"
        f" of {ASKED[record.asked]} (recall {100 * record.recall:.1f} %)",
        f"- **Search**: product quantisation, {record.bytes:,} bytes a work and feature set; {record.depth:,}"
        " candidates of each sign and feature set are scored exactly",
        "- **Shares of works**: exact for those that are found, since the sum over all works needs no search",
        "- **Shares of creators and rights holders, and percentiles**: estimated from a random sample of"
        f" {record.sample:,} works that every question scores; a percentile is told to"
        f" {300 / record.sample:.2g} points",
        f"- **Made of**: {record.parent}, which scores every work",
        "",
    ]


def _changes(manifest: Manifest) -> list[str]:
    """What came and went since the build, and what was measured before that."""
    if not manifest.changes:
        return []
    lines = [
        "## What came and went",
        "",
        *(
            f"- **{change.at[:10]}**: {counted(change.works, 'work')} {change.kind}, of the {change.before:,} of"
            f" {change.parent}"
            for change in manifest.changes
        ),
        "",
    ]
    if manifest.removed:
        lines += [
            "Left out, though the model was trained on them: "
            f"{counted(manifest.removed, 'work')}; removed.txt has the digest of the id of each. What a picture owes"
            " to them isn't told, and shares are of the other works alone.",
            "",
        ]
    features = manifest.features
    lines += [
        "λ is that of the build, and so are what held-out pictures told of the model and of its own pictures.",
        *_shares_now(manifest),
        f"The rounding of stored features counts up to {features.growth:.2g} times as much as at the build"
        + (
            ", so that works of nearly equal scores may change places: build the index again."
            if is_coarse(features.dtype, features.growth)
            else "."
        ),
        "",
    ]
    return lines


def _shares_now(manifest: Manifest) -> list[str]:
    if manifest.references is None:
        return []
    if keeps_shares(manifest.changes):
        return [
            "Intervals of shares, and how usual a first share is, were measured before that: they are stale."
        ]
    return [
        f"Intervals of shares, and how usual a first share is, aren't told any more: over {STALE_BEYOND:.0%} of the"
        " works changed since they were measured."
    ]


def lora_in_words(record: LoraRecord) -> str:
    """A LoRA: where it lay, its weight, what of it was loaded and what isn't attributed."""
    weight = "" if record.weight == 1.0 else f", weight {record.weight:g}"
    kinds = "".join(f", {kind} on {count:,} layers" for kind, count in record.kinds.items())
    text = ""
    if record.text_encoders:
        parts = " and ".join(f"{name} ({count:,} layers)" for name, count in record.text_encoders.items())
        text = (
            f"; it also changes {parts}: prompts are read with that, but what is attributed are the network's"
            " matrices alone"
        )
    return f"{Path(record.source).name}{weight}{kinds}{text}"


def _loras(model: ModelRecord) -> list[str]:
    """A line for each LoRA, and one for each thing that its file says otherwise than works and base do."""
    lines = []
    for record in model.loras:
        name = "LoRA" if len(model.loras) == 1 else f"LoRA {record.adapter}"
        lines.append(f"- **{name}**: {cell(lora_in_words(record))}")
        lines += [f"  - **Disagrees with its file**: {cell(remark)}" for remark in record.remarks]
    return lines


def _prompts(model: ModelRecord, works: Works) -> list[str]:
    """How many works have a prompt, for a model that is asked with text."""
    if not model.conditional:
        return []
    count = sum(bool(prompt) for prompt in works.column("prompt"))
    if count:
        return [f"- **Prompts**: {count:,} of {len(works):,} works have one"]
    return [
        "- **Prompts**: NONE of the works has one, though the model is asked with text. They are attributed as if it"
        " had been trained on them with an empty prompt; if it was trained with captions, this ranking isn't that of"
        " the training"
    ]


def _references(record: ReferencesRecord | None) -> list[str]:
    if record is None:
        return [
            "Can't be told: the index was built without reference generations. Its answers rank works for any"
            " picture, also for one from elsewhere."
        ]
    source = "made by the model for this" if record.digest is None else f"those in {record.source}"
    arrivals = ", ".join(f"{name} {count:,}" for name, count in record.arrivals.items())
    return [
        f"Pictures are held against {record.count:,} of the model's own, {source} (measured: {arrivals}).",
        "",
        "- **likely**: nothing speaks against it",
        f"- **unsure**: less like them than the one that is least so, by more than a factor of {MARGIN}; but among"
        f" re-encoded ones it could be one (p above {RE_ENCODED_LEVEL})",
        "- **unlikely**: neither",
        "- where held-out pictures were given, one that looks as much like them as at most"
        f" {HELD_OUT_LEVEL:.0%} of the model's own do is at best unsure",
        "",
        "How many pictures of other sources are taken for this model's was not measured for this index"
        " (docs/results/uploads.md has it for the demo's).",
    ]


def _held_out(record: HeldOutRecord | None) -> list[str]:
    if record is None:
        return [
            "Unknown: the index was built without held-out pictures. λ is chosen as for models that know their"
            " works about as well as those of docs/method.md."
        ]
    chosen = (
        "λ is chosen for that, where --damping didn't set it."
        if record.decides_damping
        else "That isn't certain enough to choose λ by; it is the rule's, or that of --damping."
    )
    lines = [f"{record.describe()} {chosen}"]
    if not record.creators:
        return [*lines, "", "No creator has enough held-out pictures of their own to be tested."]
    known = sum(creator.p_adjusted <= _KNOWN_LEVEL for creator in record.creators)
    shown = sorted(record.creators, key=lambda creator: creator.p_adjusted)[:_SHOWN_CREATORS]
    return [
        *lines,
        "",
        f"Of {len(record.creators):,} creators with held-out pictures of their own, the model knows the works of"
        f" {known:,} better than those (permutation test, p below {_KNOWN_LEVEL} after Holm's correction for all of"
        " them). That it was trained on works says nothing of what a picture owes to them.",
        "",
        "| creator | works | held out | error smaller by | p | p, corrected |",
        "|---|---|---|---|---|---|",
        *(
            f"| {cell(creator.name)} | {creator.works:,} | {creator.held_out:,} | {100 * creator.gap:.1f} %"
            f" | {creator.p:.4f} | {creator.p_adjusted:.4f} |"
            for creator in shown
        ),
    ]


def _copies(record: CopiesRecord | None) -> list[str]:
    if record is None:
        return ["Can't be told: the index was built before its works were hashed."]
    sscd = []
    if record.sscd is not None:
        sscd = ["", f"By SSCD ({record.sscd.digest[:12]}) as well: a cosine above {SSCD_COPY} is a copy."]
    return [
        f"Every picture is compared with every work by PDQ hashes, also mirrored: up to {COPY_BITS} different bits of"
        f" {BITS} are a copy, up to {NEAR_BITS} near. Of a picture of less quality than {LEAST_QUALITY} nothing is"
        " told. How many copies that finds was not measured for this index (docs/results/copies.md has it for the"
        " demo's).",
        *sscd,
    ]


def _measured(quality: QualityRecord | None) -> list[str]:
    if quality is None:
        return [
            "Not measured. No LDS, screening recall or calibration was computed for this index; its scores rank"
            " works, and their size has no unit.",
        ]
    if quality.ceiling is None or quality.perfect is None:
        ceiling = "unknown: no subset was trained on with two seeds"
    else:
        ceiling = (
            f"{quality.ceiling:.1f} %, what a second real retraining would score; a perfect prediction would score"
            f" about {quality.perfect:.1f} %"
        )
    made_with = ", ".join(f"{name} {number}" for name, number in quality.versions.items())
    return [
        "Measured by training again: the linear datamodelling score (LDS) is the rank correlation, times 100, of"
        " what the scores predict for models trained on subsets of the works with what these models really lose.",
        "",
        f"- **LDS**: {quality.lds:.1f} %, of the method {quality.method} with every work as a candidate",
        f"- **Interval**: {quality.low:.1f} to {quality.high:.1f} %, 95 %, by resampling the subsets",
        f"- **Ceiling**: {ceiling}",
        f"- **Ground truth**: {quality.truth} (sha256 {quality.truth_digest[:12]})",
        f"- **Subsets**: {quality.subsets:,}, all of them used: no option of the index was chosen by them",
        f"- **Queries**: {quality.queries:,}, {quality.generated:,} of them generated by the model",
        f"- **Measured**: {quality.measured_at} by `{quality.command}` with {made_with}",
        "",
        "No screening recall or calibration was computed for this index; its scores rank works, and their size has"
        " no unit.",
    ]


def _rights(works: Works) -> list[str]:
    if COLUMN not in works.table.column_names:
        return ["Unknown: the index was built before signals were read."]
    counts = Counter(works.column(COLUMN))
    said = [f"- {value} ({MEANINGS[value]}): {counts[value]:,}" for value in VALUES if counts[value]]
    reserved = sum(counts[value] for value in RESERVED)
    return [
        f"{reserved:,} works carry a signal that reserves text and data mining, or training, or parts of it, in their"
        " file (XMP, C2PA) or in their metadata. A work without one may be reserved elsewhere.",
        "",
        *said,
        f"- no signal: {counts[None]:,}",
    ]


def _counted(values: list[str | None], what: str) -> list[str]:
    counts = sorted(Counter(values).items(), key=lambda item: (-item[1], item[0] or ""))
    lines = [f"- {value or f'no {what} given'}: {count:,}" for value, count in counts[:_SHOWN_CREATORS]]
    if len(counts) > _SHOWN_CREATORS:
        rest = sum(count for _, count in counts[_SHOWN_CREATORS:])
        lines.append(f"- {len(counts) - _SHOWN_CREATORS:,} others: {rest:,}")
    return lines


def cell(name: str) -> str:
    """A name as a cell of a table."""
    return " ".join(name.replace("|", "\\|").split())


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _parameters(model: ModelRecord, attributed: str) -> str:
    if not model.attributed_parameters:
        return "none; the features are what the network's blocks hand on to one another"
    named = "" if attributed in ("all", "auto") else f", those whose name matches `{attributed}`"
    return f"{model.attributed_parameters:,}{named}"


def _repeated(record: WorksRecord) -> bool:
    return record.trained != record.count


def _screened(screening: ScreeningRecord | None) -> str:
    if screening is None:
        return "none; look-alikes aren't told, and every question scores all works"
    return f"{_clip_name(screening)}, {screening.dimension} dimensions, exhaustive search"


def _clip_name(screening: ScreeningRecord) -> str:
    if screening.directory:
        return f"the open_clip model in {Path(screening.directory).name}/ (weights {screening.digest[:12]})"
    return f"{screening.model} ({screening.pretrained})"


def _shape(shape: tuple[int, int, int]) -> str:
    channels, height, width = shape
    return f"{width} × {height} × {channels}"
