"""The index's card: its manifest in words, for whoever has to decide whether to rely on it."""

from collections import Counter
from pathlib import Path

from das.manifest import BuildRecord, FeaturesRecord, KernelRecord, ModelRecord, ScreeningRecord, WorksRecord
from das.works import Works

_SHOWN_CREATORS = 20


def write_card(
    name: str,
    works_record: WorksRecord,
    works: Works,
    model: ModelRecord,
    timesteps: tuple[int, ...],
    attributed: str,
    kernels: tuple[KernelRecord, ...],
    features: FeaturesRecord,
    screening: ScreeningRecord,
    build: BuildRecord,
) -> str:
    """The card as Markdown."""
    left_out = works_record.source_rows - works_record.count
    lines = [
        f"# Attribution index: {name}",
        "",
        "Which of these works a generated image owes most to, by the Diffusion Attribution Score.",
        "",
        "## What it was built from",
        "",
        f"- **Works**: {works_record.count:,}"
        + (f" ({left_out:,} more couldn't be used; see build-report.json)" if left_out else "")
        + (f", trained on {works_record.trained:,} times in all" if _repeated(works_record) else ""),
        f"- **Model**: {model.identity.get('class', 'unknown')}, {_shape(model.sample_shape)},"
        f" {model.num_train_timesteps:,} diffusion steps, weights {model.digest[:12]}",
        f"- **Attributed parameters**: {model.attributed_parameters:,}"
        + ("" if attributed in ("all", "auto") else f", those whose name matches `{attributed}`"),
        f"- **Timesteps**: {', '.join(map(str, timesteps))}",
        f"- **Features**: {', '.join(features.sets)}; {features.dimension:,} dimensions, {features.dtype}",
        f"- **Screening**: {_clip_name(screening)}, {screening.dimension} dimensions, exhaustive search",
        f"- **Built**: {build.created_at} on {build.device}",
        "",
        "## Kernels",
        "",
        "| method | features | form | λ / (tr K / N) | effective dimension |",
        "|---|---|---|---|---|",
        *(
            f"| {kernel.method} | {kernel.features} | {kernel.form} | {_number(kernel.relative_damping, '.3g')} "
            f"| {_number(kernel.effective_dimension, ',.1f')} of {features.dimension:,} |"
            for kernel in kernels
        ),
        "",
        "## How good it is",
        "",
        "Not measured. No LDS, screening recall or calibration was computed for this index; its scores rank works,"
        " and their size has no unit.",
        "",
        "## Licences",
        "",
        *_counted(works.column("licence"), "licence"),
        "",
        "## Creators",
        "",
        *_counted(works.creators, "creator"),
        "",
    ]
    return "\n".join(lines)


def _counted(values: list[str | None], what: str) -> list[str]:
    counts = sorted(Counter(values).items(), key=lambda item: (-item[1], item[0] or ""))
    lines = [f"- {value or f'no {what} given'}: {count:,}" for value, count in counts[:_SHOWN_CREATORS]]
    if len(counts) > _SHOWN_CREATORS:
        rest = sum(count for _, count in counts[_SHOWN_CREATORS:])
        lines.append(f"- {len(counts) - _SHOWN_CREATORS:,} others: {rest:,}")
    return lines


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _repeated(record: WorksRecord) -> bool:
    return record.trained != record.count


def _clip_name(screening: ScreeningRecord) -> str:
    if screening.directory:
        return f"the open_clip model in {Path(screening.directory).name}/ (weights {screening.digest[:12]})"
    return f"{screening.model} ({screening.pretrained})"


def _shape(shape: tuple[int, int, int]) -> str:
    channels, height, width = shape
    return f"{width} × {height} × {channels}"
