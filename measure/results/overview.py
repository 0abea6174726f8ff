"""The page README.md of the results: the demo, the feature engine, other libraries, the service under load."""

import json
from pathlib import Path
from typing import Any

from measure.results.approximate import approximate_section
from measure.results.cells import table
from measure.results.changing import changes_section
from measure.results.peers import peers_section
from measure.results.questions import questions_section, search_section
from measure.results.services import services_section

DEMO, FEATURES, LOAD, THROUGHPUT = "demo.json", "features.json", "load.json", "throughput.json"
DEMO_DEFAULT, PEERS, CHANGES = "demo-default.json", "peers.json", "changes*.json"
QUESTIONS, SEARCH = "questions*.json", "search*.json"
"""What `das bench query` and `das bench search` told, of an index each."""
SERVICES = "services*.json"
"""What `das bench services` told, of two services each."""
FULL_SIZE = "full-size-*.json"
"""What `das bench build` wrote."""

_OF = {
    "first_photograph_agrees": "first_photograph_total",
    "first_photograph_agrees_where_significant": "first_photograph_significant",
    "planted_first_elsewhere": "planted_first_elsewhere_total",
    "planted_das_hits": "planted_total",
}


def _agreement(demo: dict[str, Any]) -> str:
    """What `das demo --check` found beside the truth's own figures."""
    total, certain = demo["first_photograph_total"], demo["first_photograph_significant"]
    low, high = demo["truth_agrees_interval"]
    planted_low, planted_high = demo["truth_planted_interval"]
    elsewhere = demo["planted_first_elsewhere_total"]
    rows = [
        (
            "the first work's photograph is the one whose absence changes most",
            f"{demo['first_photograph_agrees']} of {total}",
            f"{demo['clip_first_photograph_agrees']} of {total}",
            f"{demo['truth_agrees_with_itself']} of {total} ({100 * low:.0f} to {100 * high:.0f} %)",
        ),
        (
            "the same where the truth is certain",
            f"{demo['first_photograph_agrees_where_significant']} of {certain}",
            f"{demo['clip_first_photograph_agrees_where_significant']} of {certain}",
            "–",
        ),
        (
            "of these, right where the other is wrong",
            str(demo["das_alone_agrees_where_significant"]),
            str(demo["clip_alone_agrees_where_significant"]),
            "–",
        ),
        (
            "a planted work is first though the sample reproduces none",
            f"{demo['planted_first_elsewhere']} of {elsewhere}",
            "–",
            f"{demo['truth_planted_first_elsewhere']} of {elsewhere}"
            f" ({100 * planted_low:.0f} to {100 * planted_high:.0f} %)",
        ),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _by_default_preset(path: Path) -> str:
    """The same figures of an index of the preset default, where they were taken."""
    if not path.is_file():
        return ""
    demo = json.loads(path.read_text())
    told = {name: f"{demo[name]} of {demo[of]}" for name, of in _OF.items()}
    return f"""
The preset default (`das demo --check --preset default`, [{path.name}]({path.name}), on a machine busy with other \
things) says the same: {told["first_photograph_agrees"]}, \
{told["first_photograph_agrees_where_significant"]} where the truth is certain, a planted work first elsewhere \
{told["planted_first_elsewhere"]}, reproductions {told["planted_das_hits"]}. Before repeats were weighed by \
measurement ([decision 18](../decisions/0018-repeats-were-measured.md)) it ranked a planted work first on 67 % of \
those elsewhere.
"""


def overview_page(folder: Path) -> str:
    """The page, from the figures as they were printed by the commands named in it."""
    demo = json.loads((folder / DEMO).read_text())
    engine = "\n".join(engine_row(row) for row in json.loads((folder / FEATURES).read_text()))
    planted = demo["planted_total"]
    under_load = load_section(json.loads((folder / LOAD).read_text())) if (folder / LOAD).is_file() else ""
    peers = peers_section(json.loads((folder / PEERS).read_text())) if (folder / PEERS).is_file() else ""
    changes = changes_section(_all_of(folder, CHANGES))
    several = folder / THROUGHPUT
    together = throughput_section(json.loads(several.read_text())) if several.is_file() else ""
    questions = questions_section(_all_of(folder, QUESTIONS)) + search_section(_all_of(folder, SEARCH))
    beside = services_section(_all_of(folder, SERVICES))
    full_size = full_size_section(_all_of(folder, FULL_SIZE))
    return f"""# Results

Made by `das results write` from the JSON files beside it. Two cores of a shared virtual machine (AMD \
EPYC), no
GPU; nothing here was measured on a GPU yet. How the estimators compare is in [evaluation.md](evaluation.md).

## The demo, from nothing

`das demo --check --queries {demo["queries"]}` with an empty data directory ([demo.json](demo.json)), \
{demo["queries"]} queries,
preset economical: three timesteps, the probe activation, k = 1,024 in eight bits, and no backward pass. \
With gradients of two probes
in its place (k = 512) the build took 71.6 s and the median was 0.19 s; with ten timesteps and k = 2,048, \
156 s and 0.21 s.

| figure | value | aim |
|---|---|---|
| building the index | {demo["build_s"]} s | page answers within 150 s in all |
| first answer after starting the service | {demo["first_answer_s"]} s | – |
| upload to answer, median | {demo["query_median_s"]} s | ≤ 2 s |
| upload to answer, 95th percentile | {demo["query_p95_s"]} s | – |
| added by the service, median | {demo["overhead_median_s"]} s | ≤ 0.05 s |
| reproductions with the planted work first: DAS | {demo["planted_das_hits"]} of {planted} | ≥ 95 % |
| the same by CLIP | {demo["planted_clip_hits"]} of {planted} | – |
| the same by pixels | {demo["planted_pixel_hits"]} of {planted} | – |

On exact reproductions all three find the work, so this shows that DAS does not miss what is plain to see; \
it does not show
that DAS is better than similarity. That takes retraining (LDS). The demo's own retraining, without each \
photograph, says this of its
samples ([decision 19](../decisions/0019-a-work-is-left-out-whole.md)):

| figure | DAS | CLIP | the truth against itself |
|---|---|---|---|
{_agreement(demo)}
{_by_default_preset(folder / DEMO_DEFAULT)}
## Memory

The same run, after {demo["queries"]} queries.

| processes | proportional memory (PSS) | growth after the first 20 queries | aim |
|---|---|---|---|
| API, CLIP and decoders | {demo["api_pss_mb"]} MB | {demo["api_pss_growth_mb"]} MB | under 900 MB |
| worker: keeper, parent and child | {demo["worker_pss_mb"]} MB | {demo["worker_pss_growth_mb"]} MB | stable |

## The feature engine

`das bench features --model demo/assets/pipeline --json --probe …` on the demo's model \
([features.json](features.json)): the features of one (image,
timestep) pair against a plain batched forward and backward pass, alternating over 7 rounds.

| probes | features | plain pass | ratio, median and range | aim |
|---|---|---|---|---|
{engine}

Loss and activation are the default; activation alone is the preset economical.
{peers}{full_size}{changes}{questions}{under_load}{together}{beside}{approximate_section(folder)}"""


def _all_of(folder: Path, pattern: str) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in sorted(folder.glob(pattern))]


def engine_row(row: dict[str, Any]) -> str:
    """A line of the feature engine's table."""
    probes = " and ".join(row["probes"])
    milliseconds = f"{row['features_ms_per_pair']:.1f} ms | {row['floor_ms_per_pair']:.1f} ms"
    ratio = f"**{row['ratio_to_floor']:.2f}** ({row['ratio_low']:.2f} to {row['ratio_high']:.2f})"
    return f"| {probes} | {milliseconds} | {ratio} | {'≤ 2.5' if row['probes'] == ['loss'] else '–'} |"


def full_size_section(builds: list[dict[str, Any]]) -> str:
    """Builds of models of published sizes, as `das bench build` told of them; nothing where there are none."""
    if not builds:
        return ""
    body = [
        [
            told["family"],
            f"{told['parameters'] / 1e6:,.0f} M",
            f"{told['attributed'] / 1e6:.1f} M (rank {told['rank']})",
            f"{told['works']} of {told['size']} px, {told['timesteps']} timesteps",
            told["device"],
            f"{told['s_per_work']:.1f} s",
            f"{told['seconds']['loading']:.0f} s",
            f"{told['peak_memory_bytes'] / 1e9:.1f} GB",
            f"{told['machine']['load_average_before']:.1f}",
        ]
        for told in builds
    ]
    head = [
        "family",
        "network",
        "attributed",
        "works",
        "device",
        "a work",
        "loading",
        "memory at most",
        "load before",
    ]
    return f"""
## Models of a published size

`das bench build --folder DIR --family …`: the published classes and sizes with random weights, on which neither \
time nor memory depends,
a LoRA on the attention matrices as in the paper, the default preset's probes, in single precision.

{table(head, body)}"""


def load_section(load: dict[str, Any]) -> str:
    """The service under load, as `das bench service` told of it."""
    body = [
        [
            kind,
            f"{told['count']:,}",
            f"{told['per_s']:.1f}",
            f"{told['p50_ms']:.0f} ms",
            f"{told['p99_ms']:.0f} ms",
            f"{told['max_ms']:.0f} ms",
            ", ".join(f"{status}: {count:,}" for status, count in told["statuses"].items()),
        ]
        for kind, told in load["requests"].items()
    ]
    memory = ", ".join(
        f"{name} {told['peak_rss_mb']:.0f} MB (at first {told['first_rss_mb']:.0f} MB)"
        for name, told in load["memory"].items()
    )
    questions = load["questions"]
    answered = (
        f"{questions['answered']:,} answered within the time, {questions['answered_per_s']:.1f} a second"
    )
    return f"""
## The service under load

`{load["command"]}` ([{LOAD}]({LOAD})): {load["clients"]} clients that ask {load["polls_per_s"]:g} times a \
second each,
{f"{load['streamers']} that follow events " if load.get("streamers") else ""}and {load["uploaders"]} that upload\
{", each with an API key" if load.get("with_key") else ""}, for {load["seconds"]:g} s, from a process of their own
on the machine of the service.

{table(["request", "number", "a second", "p50", "p99", "longest", "statuses"], body)}
{questions["accepted"]:,} questions were accepted and {answered}. Faults: {sum(load["faults"].values())}.
{f"Memory at most: {memory}. " if memory else ""}The client itself took {load["client_cpu_share"]:.0%} of a core.
Load average of the machine before it began: {load["load_average_before"]:.1f}.
"""


def throughput_section(told: dict[str, Any]) -> str:
    """Several clients at once against one, and one beside pictures of batches, as `das bench throughput` told."""
    asking = [("one client", told["one"]), (f"{told['clients']} clients", told["several"])]
    bulk = told["bulk"]
    if bulk is not None:
        asking.append((f"one client beside {bulk['pictures']:,} pictures of batches", bulk["questions"]))
    body = [
        [
            who,
            f"{one['answered']:,}",
            f"{one['refused']:,}",
            f"{one['per_s']:.1f}",
            f"{one['p50_ms']:.0f} ms",
            f"{one['p95_ms']:.0f} ms",
            f"{one['parts_ms']['queue_wait']:.0f} ms",
            f"{one['parts_ms']['engine']:.0f} ms",
        ]
        for who, one in asking
    ]
    head = [
        "who asks",
        "answers",
        "refused",
        "a second",
        "p50",
        "p95",
        "waiting for the worker",
        "its computation",
    ]
    ratio = f"**{told['ratio']:.2f}** times as many ({told['ratio_low']:.2f} to {told['ratio_high']:.2f}; aim: ≥ 2)"
    machine = told["machine"]
    note = f" {told['note']}" if "note" in told else ""
    beside = ""
    if bulk is not None:
        beside = (
            f"Beside the batches, {bulk['answered']:,} of whose pictures were answered at {bulk['per_s']:.1f} a"
            f" second meanwhile, the 95th percentile is **{bulk['p95_ratio']:.2f}** times that without them"
            " (aim: < 3).\n"
        )
    return f"""
## Several questions at once

`{told["command"]}` ([{THROUGHPUT}]({THROUGHPUT})): everybody asks again as soon as the answer is there, one client \
and {told["clients"]} in turn, {told["rounds"]} rounds
of {told["seconds"]:g} s each; {machine["cores"]} cores (load average before: \
{machine["load_average_before"]:.1f}).{note}

{table(head, body)}
{told["clients"]} clients are answered {ratio}.
{beside}"""
