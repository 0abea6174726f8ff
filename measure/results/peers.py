"""The section on other libraries, from what `das bench peers` told."""

from typing import Any

from measure.report import NOTHING
from measure.results.cells import table

LIMITS = {
    "loop": "Nothing is shared between pairs: on a GPU each pass is one picture wide.",
    "vmap": (
        "All gradients of a batch exist at once, parameters × pairs numbers. The backward pass of torch's attention"
        " has no rule for `vmap` on a CPU and is looped, with a warning."
    ),
    "traker": (
        "No loss of a diffusion model comes with it; one was written here. On a CPU its projection is a dense normal"
        " matrix, drawn anew for every batch in blocks of 100 columns: parameters × 100 numbers of memory,"
        " parameters × k random numbers for each batch, and it needs all gradients of a batch at once."
    ),
    "traker-cuda": "Runs on CUDA alone, with a compiled extension.",
    "dattri-normal": "The same dense matrix, drawn again for every batch; the size of its blocks can't be chosen.",
    "dattri-mask": (
        "Needs no matrix: it keeps k of the gradient's numbers and drops the others. All gradients of a batch exist"
        " at once, flattened and copied. Features are kept in memory, for all works."
    ),
    "dattri-sjlt": "Its sparse projection, the nearest to a count sketch, isn't there on a CPU.",
    "dattri-logra": (
        "Linear layers alone: no convolutions or norms, so most of such a network is left out. k numbers for every"
        " layer."
    ),
    "kronfluence-scores": (
        "Linear layers and convolutions, no norms. No gradient is kept, so every question goes through all works"
        " again; a convolution with groups gets one averaged group's input."
    ),
    "kronfluence-ekfac": (
        "Two passes over the works and an eigendecomposition for every layer; a convolution's side is channels ×"
        " kernel, its cube the time. A work can't be added or removed without fitting again."
    ),
}
"""What each can't do, as seen when it was called here and in its source."""


def peers_section(told: dict[str, Any]) -> str:
    """A table for each network, and what each contender can't do."""
    libraries = ", ".join(
        f"{name} {version or 'not installed'}" for name, version in sorted(told["libraries"].items())
    )
    parts = [_network(network) for network in told["networks"]]
    names = {name for network in told["networks"] for name in network["contenders"]}
    limits = "\n".join(f"- `{name}`: {limit}" for name, limit in LIMITS.items() if name in names)
    note = f" {told['note']}" if "note" in told else ""
    return f"""
## Other libraries beside it

`{told["command"]}` ([peers.json](peers.json)): {libraries}; \
k = {told["dimension"]:,}, batches of at most {told["batch_size"]} pairs,
rounds: {told["rounds"]}, one thread, each time in a process of its own right after a plain forward and backward \
pass over the same pairs. Seconds are of CPU time;
other work on the machine ({told["machine"]["load_average_before"]} running on {told["machine"]["cores"]} cores when \
it began) delays, but isn't counted. The weights are random: on them neither time nor memory depends.
`dattri`'s cache includes the kernel that TRAK solves with, `kronfluence-ekfac` its eigendecompositions: costs of a \
run, divided by few pairs here.
What SIGKILL ended was probably out of memory. A contender that wanted more than {told["memory_limit_gb"]:g} GB, or \
{told["limit_s"]:g} s of CPU time, is told so.{note}

{"".join(parts)}
What each can't do:

{limits}
"""


def _network(network: dict[str, Any]) -> str:
    body = [_row(name, one) for name, one in network["contenders"].items()]
    head = ["contender", "", "a pair", "to a plain pass", "memory at most", "from das's"]
    return (
        f"A network of {(network['parameters'] or 0) / 1e6:.1f} M parameters, {network['pairs']} (picture, timestep) \
pairs:\n\n{table(head, body)}\n"
    )


def _row(name: str, one: dict[str, Any]) -> list[str]:
    if "failed" in one:
        return [f"`{name}`", f"{one['what']}: {one['failed'].replace('|', '/')}", *[NOTHING] * 4]
    plain = one["plain_memory_bytes"] / 1e9
    return [
        f"`{name}`",
        one["what"],
        _milliseconds(one["cpu_s_per_pair"]),
        f"**{one['ratio']:.2f}** ({one['ratio_low']:.2f} to {one['ratio_high']:.2f})",
        f"{one['memory_bytes'] / 1e9:.2f} GB (plain {plain:.2f})",
        NOTHING if one["differs"] is None else f"{one['differs']:.0e}",
    ]


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms" if seconds < 0.1 else f"{seconds * 1e3:,.0f} ms"
