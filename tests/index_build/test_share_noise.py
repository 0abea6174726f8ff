"""Intervals of shares as a build measures them: the replicates are the works' own, and answers carry them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from das import intervals
from das.attribution import Attributor
from das.config import BuildConfig, ClipSpec
from das.index import AttributionIndex
from index_build import share_noise
from index_build.approximating import approximate
from index_build.build import build
from index_build.workspace import Workspace
from measure.enlarged import enlarge
from tests.conftest import make_picture, make_works

TIMESTEPS = (50, 200, 400, 700)


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_clip: Path) -> dict[str, Any]:
    works = tmp_path_factory.mktemp("noise") / "works"
    make_works(works, 24)
    return {
        "name": "noisy",
        "model": str(tiny_model),
        "works": works,
        "timesteps": TIMESTEPS,
        "dimension": 64,
        "methods": ("das-block", "das"),
        "clip": ClipSpec(directory=tiny_clip),
        "shard_size": 10,
        "references": 100,
    }


@pytest.fixture(scope="module")
def index(options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> AttributionIndex:
    out = tmp_path_factory.mktemp("noise") / "index"
    build(BuildConfig(**options), out)
    return AttributionIndex.open(out)


def test_an_answer_has_intervals(index: AttributionIndex) -> None:
    references = index.references
    assert references is not None
    assert set(references.noise) == {"das-block"}, (
        "not the paper's form, whose kernel has no sum over timesteps"
    )
    noise = references.noise["das-block"]
    assert 0 < noise.works.deviation(0.1) < 1
    assert 0 < noise.creators.deviation(0.3) < 1
    attributor = Attributor(index)
    answer = attributor.attribute(make_picture(3))
    for work in answer.works:
        assert (work.low, work.high) == noise.interval(work.share, "works")
    for group in answer.groups["creator"]:
        assert (group.low, group.high) == noise.interval(group.share, "creators")
    assert answer.certainty is not None
    first, second = answer.works[0].share, answer.works[1].share
    assert answer.certainty["clearly_first"] is noise.clear(first, second)
    screened = attributor.attribute(make_picture(3), candidates=[0, 1, 2])
    assert screened.works[0].low is None
    assert screened.certainty is not None
    assert screened.certainty["clearly_first"] is None
    plain = attributor.attribute(make_picture(3), method="das")
    assert plain.works[0].low is None


def test_the_sentence_carries_the_interval(index: AttributionIndex, options: dict[str, Any]) -> None:
    attributor = Attributor(index)
    from das.models import load_model

    model: Any = load_model(options["model"])
    answers = attributor.attribute_batch(model.generate([None] * 20, range(7000, 7020)))
    named = [
        answer.summary for answer in answers if " account" in answer.summary and answer.summary[0] != "N"
    ]
    assert named
    assert all(" to " in summary.split("(")[1].split("%)")[0] for summary in named)


def test_a_replicate_of_all_timesteps_is_the_answer_itself(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the stored replicates are those of the right works, and are scored like the features they come from."""
    found: list[tuple[np.ndarray, np.ndarray]] = []
    whole = tuple(range(len(TIMESTEPS)))
    for module in (intervals, share_noise, __import__("index_build.gather", fromlist=["x"])):
        monkeypatch.setattr(module, "replicates_of", lambda timesteps: (whole, whole))
    replicated = share_noise._replicated_scores

    def listening(attributor: Attributor, method: str, workspace: Workspace, *rest: Any) -> np.ndarray:
        scores = replicated(attributor, method, workspace, *rest)
        found.append((scores, attributor.scores(rest[1], method)))
        return scores

    monkeypatch.setattr(share_noise, "_replicated_scores", listening)
    build(BuildConfig(**options | {"feature_dtype": "float32"}), tmp_path / "index")
    assert found
    for replicates, scores in found:
        assert torch.tensor(replicates.shape).tolist() == [2, *scores.shape]
        for one in replicates:
            np.testing.assert_allclose(one, scores, rtol=0.02, atol=2e-3 * scores.max())


def test_too_few_timesteps_have_none(options: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "index"
    build(BuildConfig(**options | {"timesteps": (100, 500), "methods": ("das-block",)}), out)
    index = AttributionIndex.open(out)
    assert index.references is not None
    assert index.references.noise == {}
    answer = Attributor(index).attribute(make_picture(3))
    assert answer.works[0].low is None
    assert answer.certainty is not None
    assert answer.certainty["clearly_first"] is None


def test_an_estimates_interval_is_of_the_noise_and_of_the_sampling_together(
    index: AttributionIndex, tmp_path: Path
) -> None:
    enlarge(index, 1200, "float16", tmp_path / "large")
    approximate(AttributionIndex.open(tmp_path / "large"), tmp_path / "index", size=8, depth=50, sample=150)
    searched = AttributionIndex.open(tmp_path / "index")
    assert searched.references is not None
    noise = searched.references.noise["das-block"]
    attributor = Attributor(searched, threads=1)
    answer = attributor.attribute(make_picture(3))
    averages = attributor.averaged_features([make_picture(3)], "das-block")
    (tally,) = attributor._searched(averages, "das-block", [0], [20])
    codes = {name: code for code, name in enumerate(searched.works.grouping("creator").names())}
    for group in answer.groups["creator"]:
        told, share = noise.interval(group.share, "creators"), group.share
        estimate = tally.groups["creator"].sampled
        assert estimate is not None
        sampled = estimate.interval(codes[group.name])
        assert sampled[0] < share < sampled[1]
        assert told[0] < share < told[1]
        below, above = share - np.array([told[0], sampled[0]]), np.array([told[1], sampled[1]]) - share
        assert group.low == pytest.approx(max(0.0, share - np.sqrt(np.square(below).sum())))
        assert group.high == pytest.approx(min(1.0, share + np.sqrt(np.square(above).sum())))
    for work in answer.works:
        assert (work.low, work.high) == noise.interval(work.share, "works")
    # The noise of rights holders wasn't measured: theirs is the sampling's.
    holders = tally.groups["rights_holder"].by_holder(attributor.ranking.holders)
    assert holders.sampled is not None
    names = attributor.ranking.holders.names
    for group in answer.groups["rights_holder"]:
        assert (group.low, group.high) == holders.sampled.interval(names.index(group.name))
    exact = attributor.attribute(make_picture(3), exact=True)
    assert answer.certainty is not None
    assert exact.certainty is not None
    assert answer.certainty["percentile"] == exact.certainty["percentile"]
    assert answer.certainty["clearly_first"] is not None
