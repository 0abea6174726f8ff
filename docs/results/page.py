"""Makes README.md of this folder from the JSON beside it: `python docs/results/page.py`. A test keeps the two in step."""

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def page() -> str:
    """The page, from the figures as they were printed by the commands named in it."""
    demo = json.loads((HERE / "demo.json").read_text())
    engine = "\n".join(engine_row(row) for row in json.loads((HERE / "features.json").read_text()))
    planted = demo["planted_total"]
    return f"""# Results

Made by `python docs/results/page.py` from the JSON files beside it. Two cores of a shared virtual machine (AMD EPYC), no
GPU; nothing here was measured on a GPU yet. How the estimators compare is in [evaluation.md](evaluation.md).

## The demo, from nothing

`das demo --check --queries {demo["queries"]}` with an empty data directory ([demo.json](demo.json)), {demo["queries"]} queries,
preset economical: three timesteps, the probe activation, k = 1,024 in eight bits, and no backward pass. With gradients of two probes
in its place (k = 512) the build took 71.6 s and the median was 0.19 s; with ten timesteps and k = 2,048, 156 s and 0.21 s.

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

On exact reproductions all three find the work, so this shows that DAS does not miss what is plain to see; it does not show
that DAS is better than similarity. That takes retraining (LDS).

## Memory

The same run, after {demo["queries"]} queries.

| process | resident | growth after the first 20 queries | aim |
|---|---|---|---|
| API | {demo["api_rss_mb"]} MB | {demo["api_rss_growth_mb"]} MB | under 900 MB |
| worker, parent and child | {demo["worker_rss_mb"]} MB | {demo["worker_rss_growth_mb"]} MB | stable |

## The feature engine

`das bench features --json --probe …` on the demo's model ([features.json](features.json)): the features of one (image,
timestep) pair against a plain batched forward and backward pass, alternating over 7 rounds.

| probes | features | plain pass | ratio, median and range | aim |
|---|---|---|---|---|
{engine}

Loss and activation are the default; activation alone is the preset economical.
"""


def engine_row(row: dict[str, Any]) -> str:
    """A line of the feature engine's table."""
    probes = " and ".join(row["probes"])
    milliseconds = f"{row['features_ms_per_pair']:.1f} ms | {row['floor_ms_per_pair']:.1f} ms"
    ratio = f"**{row['ratio_to_floor']:.2f}** ({row['ratio_low']:.2f} to {row['ratio_high']:.2f})"
    return f"| {probes} | {milliseconds} | {ratio} | {'≤ 2.5' if row['probes'] == ['loss'] else '–'} |"


if __name__ == "__main__":
    (HERE / "README.md").write_text(page())
