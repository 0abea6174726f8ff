"""What an index of n works takes, on paper: time, disk, memory and money from measured costs of one work.

Every quantity is a straight line in n but the kernel's, which is k² and doesn't grow. Measured with
the preset default are the seconds of a core for one (picture, timestep) pair (`das bench peers`) and those of wall
time for one work of a latent model (`das bench build`); economical is reckoned from them with the part that its probe
took on another network (`das bench features`). Sizes are those of the stored types; `Assumed` is what
nobody measured.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from das.config import FEATURE_BYTES, PRESETS
from measure.results.cells import table

WORKS = (10_000, 1_000_000, 100_000_000, 2_000_000_000)
DIMENSIONS = (256, 1024, 4096)
_EMBEDDING_BYTES = 4 * 512 + 33  # CLIP in single precision, and a PDQ hash with its quality
_THUMBNAIL_BYTES = 12_000
_HOUR_S, _DAY_S = 3600, 86_400

TO_CHANGE = {
    10_000: (
        "Nothing for a small network: one machine with a CPU builds overnight, and everything is held in memory."
        " A latent model wants a GPU already here."
    ),
    1_000_000: (
        "A GPU, or [several machines](#builds-by-several-machines). The service needs the features in memory:"
        " economical, or a smaller k."
    ),
    100_000_000: (
        "Machines by the dozen and a disk that they share. Only look-alikes are scored (`--screening`), for reading"
        " all features takes many seconds. Without thumbnails: they are most of the disk."
    ),
    2_000_000_000: (
        "Economical with k = 256 at most, features in shards on several machines, each answering for its own; the"
        " service here reads one disk, so that is still to be written. Sampling the works is the honest way before."
    ),
}
"""By number of works: what has to be done otherwise than at the size before."""


@dataclass(frozen=True)
class Assumed:
    """What isn't measured: change it to your own prices.

    Attributes:
        core_hour: dollars.
        gpu_hour: dollars.
        cores_of_a_gpu: cores whose work one GPU does; no GPU was measured here.
        disk_gb_month: dollars, of an SSD.
        memory_bytes_s: read by one machine in a second, for a question that goes through all features.
    """

    core_hour: float = 0.04
    gpu_hour: float = 2.0
    cores_of_a_gpu: float = 300.0
    disk_gb_month: float = 0.08
    memory_bytes_s: float = 1e10


@dataclass(frozen=True)
class UnitCosts:
    """Seconds of one core for one (picture, timestep) pair, by preset.

    Attributes:
        name: of the network.
        core_s: by the name of the preset; default as measured, economical reckoned.
        origin: what else to know of the measurement, in Markdown for a page in `docs`.
    """

    name: str
    core_s: dict[str, float]
    origin: str

    @classmethod
    def of(cls, results: Path) -> "tuple[UnitCosts, ...]":
        """Those of the networks that were measured, from a folder of results."""
        features = {tuple(row["probes"]): row for row in json.loads((results / "features.json").read_text())}
        activation = features["activation",]["ratio_to_floor"]
        both = features["loss", "activation"]["ratio_to_floor"]
        peers = json.loads((results / "peers.json").read_text())
        pixels = peers["networks"][-1]
        ours = pixels["contenders"]["das-default"]
        latent = json.loads((results / "full-size-stable-diffusion.json").read_text())
        threads = latent["machine"]["threads"]
        pair_s = latent["s_per_work"] / latent["timesteps"] * threads
        return (
            cls(
                f"a U-Net of {pixels['parameters'] / 1e6:.1f} M parameters at 32 × 32",
                {
                    "default": ours["cpu_s_per_pair"],
                    "economical": ours["plain_cpu_s_per_pair"] * activation,
                },
                # A note's links are those of the results' own page, a folder deeper.
                peers.get("note", "").replace("](../", "]("),
            ),
            # Its activations alone weren't timed; they are taken to be the same part of both as in features.json.
            cls(
                f"Stable Diffusion 1.5 with a LoRA of {latent['attributed'] / 1e6:.1f} M at 256 × 256",
                {"default": pair_s, "economical": pair_s * activation / both},
                f"Measured was wall time, counted for each of its {threads} threads.",
            ),
        )


def growth(results: Path, assumed: Assumed | None = None) -> str:
    """The section's tables, in Markdown."""
    assumed = assumed or Assumed()
    costs = UnitCosts.of(results)
    built = [_building(works, preset, costs, assumed) for works in WORKS for preset in PRESETS]
    kept = [_keeping(works, preset, k, assumed) for works in WORKS for preset in PRESETS for k in DIMENSIONS]
    head = ["works", "preset", *(f"building, {one.name}" for one in costs)]
    sizes = ["works", "preset", "k", "features", "beside them", "a month", "reading all", "building needs"]
    pairs = "\n".join(
        f"- {one.name}: default {one.core_s['default']:.2g} s measured, economical {one.core_s['economical']:.2g} s"
        f" reckoned. {one.origin}".rstrip()
        for one in costs
    )
    changes = "\n".join(f"- {works:,}: {words}" for works, words in TO_CHANGE.items())
    return f"""Seconds of one core for one (picture, timestep) pair; the preset default takes \
{_timesteps("default")} pairs a work, economical {_timesteps("economical")}:

{pairs}

Economical wasn't timed on these networks: it is reckoned with the part that activations alone took on the demo's \
small network ([features.json](results/features.json)).
Assumed, as no GPU was measured: a GPU does the work of {assumed.cores_of_a_gpu:g} such cores and costs \
{assumed.gpu_hour:g} $ an hour, a core {assumed.core_hour:g} $; an SSD {assumed.disk_gb_month:g} $ a GB and month;
a machine reads {assumed.memory_bytes_s / 1e9:g} GB of memory a second. Hours are divided by machines.

{table(head, built)}
What an index keeps is features, k numbers for each set of the preset, and beside them, the same for all, \
embeddings, hashes and at most {_THUMBNAIL_BYTES / 1000:g} kB of thumbnail a work.
`a month` is the price of both on disk, `reading all` a question that goes through every work's features, once they \
are in memory. Building needs, at most, the features in single precision beside the finished ones on disk;
its memory is the kernel's k × k and doesn't grow: {_kernel(DIMENSIONS)}.

{table(sizes, kept)}
What to change at each size:

{changes}
"""


def _timesteps(preset: str) -> int:
    chosen = PRESETS[preset]["timesteps"]
    return chosen if isinstance(chosen, int) else len(chosen)


def _building(works: int, preset: str, costs: tuple[UnitCosts, ...], assumed: Assumed) -> list[str]:
    cells = []
    for one in costs:
        core_s = works * _timesteps(preset) * one.core_s[preset]
        gpu_s = core_s / assumed.cores_of_a_gpu
        cells.append(
            f"{_time(core_s)} of a core, {_money(core_s / _HOUR_S * assumed.core_hour)};"
            f" {_time(gpu_s)} of a GPU, {_money(gpu_s / _HOUR_S * assumed.gpu_hour)}"
        )
    return [f"{works:,}", preset, *cells]


def _keeping(works: int, preset: str, dimension: int, assumed: Assumed) -> list[str]:
    chosen = PRESETS[preset]
    sets, stored = len(chosen["probes"]), FEATURE_BYTES[chosen.get("feature_dtype", "float16")]
    features = works * dimension * sets * stored
    beside = works * (_EMBEDDING_BYTES + _THUMBNAIL_BYTES)
    peak = works * dimension * sets * (4 + stored) + beside
    return [
        f"{works:,}",
        preset,
        f"{dimension:,}",
        _size(features),
        _size(beside),
        _money((features + beside) / 1e9 * assumed.disk_gb_month),
        _time(features / assumed.memory_bytes_s),
        _size(peak),
    ]


def _kernel(dimensions: tuple[int, ...]) -> str:
    """The square matrices held at once: the sums and a shard's of two forms, a factor, its inverse, a copy."""
    return ", ".join(f"{_size(7 * k * k * 8)} at k = {k:,}" for k in dimensions)


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} PB"


def _time(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms" if seconds > 0.001 else f"{seconds * 1e3:.2g} ms"
    if seconds < _HOUR_S:
        return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
    if seconds < 2 * _DAY_S:
        return f"{seconds / _HOUR_S:.3g} h"
    days = seconds / _DAY_S
    return f"{days:.0f} days" if days < 1000 else f"{days / 365:,.0f} years"


def _money(dollars: float) -> str:
    return f"{dollars:.2f} $" if dollars < 10 else f"{dollars:,.0f} $"
