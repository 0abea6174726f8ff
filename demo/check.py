"""`das demo --check`: ask the running demo about every sample generation and look closely at the answers."""

import math
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from das.index import AttributionIndex
from demo.effects import SampleEffects, interval, read_effects
from demo.home import SAMPLES, DemoIndex
from demo.running import RunningDemo
from demo.samples import Sample, distances, read_samples
from jobs.settings import Settings

# The part of the reproductions whose planted work has to come first.
PLANTED_FIRST = 0.95
# The part of the samples that has to be found likely to be the model's own.
LIKELY = 0.95
# Memory is compared between the end and this many queries after the start, when caches are warm.
SETTLED_AFTER = 20
FAULTS_SHOWN = 10
SUM_TOLERANCE = 1e-3


def start(settings: Settings, index: DemoIndex) -> RunningDemo:
    """The demo's service as a child process, which inherits this process's environment."""
    return RunningDemo(settings, index.path, os.environ)


def check(
    settings: Settings, index: DemoIndex, queries: int, report: Callable[[int, int], None] = lambda *_: None
) -> dict[str, Any]:
    """Start the demo, upload each sample (again and again up to `queries`), check the answers.

    Returns the figures for the JSON line; `faults` is empty if all is well. `report` is called after every
    answer with the number of answers and how many there will be.
    """
    opened = AttributionIndex.open(index.path)
    table = opened.works.table
    work_ids = dict(zip(table["file"].to_pylist(), table["id"].to_pylist(), strict=True))
    files = {work_id: file for file, work_id in work_ids.items()}
    samples = read_samples(SAMPLES)
    total = max(queries, len(samples))
    faults: list[str] = []
    seconds: list[float] = []
    overheads: list[float] = []
    hits = dict.fromkeys(("planted_total", "planted_das_hits", "planted_clip_hits", "planted_pixel_hits"), 0)
    firsts: dict[str, str] = {}
    looks: dict[str, str] = {}
    likely = 0
    with start(settings, index) as demo:
        first_answer_s = 0.0
        settled = (0.0, 0.0)
        for number in range(total):
            sample = samples[number % len(samples)]
            image = (SAMPLES / sample.file).read_bytes()
            began = time.perf_counter()
            answer = demo.wait_for(demo.upload(sample.file, image)["id"])
            seconds.append(time.perf_counter() - began)
            if not number:
                first_answer_s = time.monotonic() - demo.began
            wrong = faults_of(answer, len(opened))
            faults += [f"{sample.file}: {fault}" for fault in wrong]
            if not wrong:
                overheads.append(seconds[-1] - answer["timings_ms"]["engine"] / 1000)
                if number < len(samples):
                    firsts[sample.file] = files[answer["works"][0]["work_id"]]
                    looks[sample.file] = files[answer["lookalikes"][0]["work_id"]]
                    likely += answer["in_model"] is not None and answer["in_model"]["verdict"] == "likely"
                    if sample.reproduction:
                        _count_hits(hits, sample, answer, work_ids)
            if number + 1 == min(SETTLED_AFTER, total):
                settled = demo.resident_mb()
                faults += _thumbnail_faults(demo, answer)
            report(number + 1, total)
        api_mb, worker_mb = demo.resident_mb()
    faults += _planted_faults(hits)
    agreement = agreement_with(read_effects(), samples, firsts, looks)
    faults += agreement_faults(agreement)
    if likely < LIKELY * len(samples):
        faults.append(
            f"only {likely} of the model's own {len(samples)} samples are found likely to be its own"
        )
    return {
        "build_s": round(index.build_s or sum(opened.manifest.build.seconds.values()), 1),
        "built": index.build_s > 0,
        "first_answer_s": round(first_answer_s, 2),
        "queries": total,
        "query_median_s": round(statistics.median(seconds), 4),
        "query_p95_s": round(float(np.quantile(seconds, 0.95)), 4),
        "overhead_median_s": round(statistics.median(overheads), 4) if overheads else None,
        **hits,
        **agreement,
        "samples_likely_own": likely,
        "api_pss_mb": round(api_mb, 1),
        "worker_pss_mb": round(worker_mb, 1),
        "api_pss_growth_mb": round(api_mb - settled[0], 1),
        "worker_pss_growth_mb": round(worker_mb - settled[1], 1),
        "ok": not faults,
        "faults": faults[:FAULTS_SHOWN],
    }


def faults_of(answer: dict[str, Any], index_size: int) -> list[str]:
    """What is wrong with an answer, in words: its state, ranks, order, shares, credits, groups, look-alikes."""
    if answer.get("state") != "succeeded":
        return [f"state is {answer.get('state')}: {answer.get('error') or answer}"]
    works = answer["works"]
    wanted = min(answer["top_k"], index_size)
    scores = [work["score"] for work in works]
    shares = [work["share"] for work in works]
    groups = answer["groups"]["creator"]
    lookalikes = answer["lookalikes"] or []
    similarities = [lookalike["similarity"] for lookalike in lookalikes]
    expectations = {
        f"{len(works)} works instead of {wanted}": len(works) == wanted,
        "ranks aren't 1, 2, 3, …": [work["rank"] for work in works] == list(range(1, len(works) + 1)),
        "a work is named twice": len({work["work_id"] for work in works}) == len(works),
        "a score isn't a number": all(math.isfinite(score) for score in scores),
        "scores aren't in order": scores == sorted(scores, reverse=True),
        "a share isn't between 0 and 1": all(0 <= share <= 1 for share in shares),
        "the shares are more than all": sum(shares) <= 1 + SUM_TOLERANCE,
        "a work has no title, creator, licence or source": all(
            work[name] for work in works for name in ("title", "creator", "licence", "source_url")
        ),
        f"{answer['candidates']['count']} candidates instead of {index_size}": answer["candidates"]["count"]
        == index_size,
        "the creators' shares don't add up to 1": abs(sum(group["share"] for group in groups) - 1)
        < SUM_TOLERANCE,
        "there are no look-alikes": bool(lookalikes),
        "look-alikes aren't in order": similarities == sorted(similarities, reverse=True),
        "there is no summary": bool(answer["summary"]),
        "the worker's compute isn't among the timings": "engine" in (answer["timings_ms"] or {}),
    }
    return [fault for fault, fine in expectations.items() if not fine]


def _count_hits(
    hits: dict[str, int], sample: Sample, answer: dict[str, Any], work_ids: dict[str, str]
) -> None:
    """Count whether DAS, CLIP and the plain pixels name the reproduced work first."""
    planted = work_ids[sample.nearest_planted]
    hits["planted_total"] += 1
    hits["planted_das_hits"] += answer["works"][0]["work_id"] == planted
    hits["planted_clip_hits"] += answer["lookalikes"][0]["work_id"] == planted
    hits["planted_pixel_hits"] += _pixel_nearest(SAMPLES / sample.file) == sample.nearest_planted


def _pixel_nearest(path: Path) -> str:
    from demo.crops import all_crops

    with Image.open(path) as image:
        return all_crops()[int(distances(np.asarray(image.convert("RGB"))).argmin())].file_name


def _thumbnail_faults(demo: RunningDemo, answer: dict[str, Any]) -> list[str]:
    if answer.get("state") != "succeeded":
        return []
    link = answer["works"][0]["thumbnail"]
    status, body = demo.get(link)
    return [] if status == 200 and body else [f"{link} was answered with {status}"]


def _planted_faults(hits: dict[str, int]) -> list[str]:
    if not hits["planted_total"]:
        return ["no sample reproduces a planted work, so nothing is known about the ranking"]
    part = hits["planted_das_hits"] / hits["planted_total"]
    if part < PLANTED_FIRST:
        return [
            f"DAS has the planted work first in {part:.0%} of its reproductions; {PLANTED_FIRST:.0%} are wanted"
        ]
    return []


def agreement_with(
    effects: SampleEffects, samples: list[Sample], firsts: dict[str, str], looks: dict[str, str]
) -> dict[str, Any]:
    """How the answers' first works go with what leaving out photographs changed, and how far that agrees with itself.

    Args:
        firsts: the file of each sample's first work.
        looks: the file of the work that looks most like each sample, by CLIP.
    """
    others = [sample.file for sample in samples if not sample.reproduction and sample.file in firsts]
    planted = {sample.nearest_planted for sample in samples if sample.reproduction}
    agree = {file: photograph_of(firsts[file]) == effects.first(file) for file in firsts}
    alikes = {file: photograph_of(looks[file]) == effects.first(file) for file in firsts}
    certain = [file for file in firsts if effects.is_significant(file)]
    alike, of = effects.seeds_agree()
    return {
        "first_photograph_agrees": sum(agree.values()),
        "first_photograph_total": len(agree),
        "first_photograph_agrees_where_significant": sum(agree[file] for file in certain),
        "first_photograph_significant": len(certain),
        "clip_first_photograph_agrees": sum(alikes.values()),
        "clip_first_photograph_agrees_where_significant": sum(alikes[file] for file in certain),
        "das_alone_agrees_where_significant": sum(agree[file] and not alikes[file] for file in certain),
        "clip_alone_agrees_where_significant": sum(alikes[file] and not agree[file] for file in certain),
        "truth_agrees_with_itself": alike,
        "truth_agrees_interval": [round(part, 3) for part in interval(alike, of)],
        "planted_first_elsewhere": sum(firsts[file] in planted for file in others),
        "planted_first_elsewhere_total": len(others),
        "truth_planted_first_elsewhere": effects.planted_first(others),
        "truth_planted_interval": [
            round(part, 3) for part in interval(effects.planted_first(others), max(1, len(others)))
        ],
    }


def photograph_of(work_file: str) -> str:
    """The photograph that a work was cut from, by the work's file name."""
    return work_file.split("-")[0]


def agreement_faults(agreement: dict[str, Any]) -> list[str]:
    """What lies outside the truth's own 95 %, in words."""
    faults = []
    part = agreement["first_photograph_agrees"] / max(1, agreement["first_photograph_total"])
    least = agreement["truth_agrees_interval"][0]
    if part < least:
        faults.append(
            f"the first photograph is the one whose absence changes most for {part:.0%} of the samples; of one"
            f" training and another it is the same for {least:.0%} at least"
        )
    elsewhere = agreement["planted_first_elsewhere"] / max(1, agreement["planted_first_elsewhere_total"])
    most = agreement["truth_planted_interval"][1]
    if elsewhere > most:
        faults.append(
            f"a planted work is first for {elsewhere:.0%} of the samples that don't reproduce one; by training again"
            f" it is for {most:.0%} at most"
        )
    return faults
