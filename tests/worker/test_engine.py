"""The engine that computes: answers as `das` gives them, each job with its own candidates and length."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from das.errors import SettingsError
from das.images import encode_png
from jobs.models import ClaimedJob
from jobs.settings import Settings
from worker.engine import AttributionEngine, usable_cores


@pytest.fixture(scope="module")
def engine(tiny_index: Path, tmp_path_factory: pytest.TempPathFactory) -> AttributionEngine:
    data_dir = tmp_path_factory.mktemp("data")
    return AttributionEngine(
        Settings(_env_file=None, data_dir=data_dir, index_dir=tiny_index, torch_threads=1)
    )


def question(
    index_id: str,
    top_k: int,
    rows: list[int] | None = None,
    *,
    method: str = "das-block",
    prompt: str | None = None,
    seed: int | None = None,
) -> ClaimedJob:
    return ClaimedJob(
        id="att_1",
        token="token",
        attempt=1,
        index_id=index_id,
        method=method,
        candidates="auto",
        candidate_rows=rows,
        top_k=top_k,
        prompt=prompt,
        seed=seed,
        created_at=datetime.now(UTC),
        queue_wait_ms=0.0,
    )


def test_a_batch_is_answered_as_each_alone(engine: AttributionEngine) -> None:
    (index_id,) = engine.describe()["indexes"]
    rng = np.random.default_rng(5)
    pictures = [rng.integers(0, 256, (20, 24, 3), dtype=np.uint8) for _ in range(2)]
    images = [engine.decode(encode_png(picture)) for picture in pictures]
    assert np.array_equal(images[0], pictures[0])
    jobs = [question(index_id, 3), question(index_id, 5, rows=[9, 4, 30, 2])]
    steps: list[tuple[str, int, int]] = []
    everything, screened = engine.run(jobs, images, lambda *step: steps.append(step))
    assert len(everything["works"]) == 3
    assert everything["candidates"] == {"mode": "all", "count": 40}
    assert screened["candidates"]["count"] == 4
    assert {work["row"] for work in screened["works"]} == {2, 4, 9, 30}
    assert sum(work["share"] for work in screened["works"]) == pytest.approx(1.0)
    assert everything["summary"]
    assert steps[-1][0] == "scored"
    assert [step[1] for step in steps if step[0] == "gradients"][-1] == steps[-2][2]
    for job, image, together in zip(jobs, images, (everything, screened), strict=True):
        (alone,) = engine.run([job], [image], lambda *step: None)
        assert [work["row"] for work in alone["works"]] == [work["row"] for work in together["works"]]
        scores = [[work["score"] for work in answer["works"]] for answer in (alone, together)]
        assert scores[0] == pytest.approx(scores[1], rel=1e-4)


def test_an_index_that_is_not_there_is_named(engine: AttributionEngine) -> None:
    picture = np.zeros((16, 16, 3), np.uint8)
    with pytest.raises(SettingsError, match="the worker has no index other@1; it has tiny@"):
        engine.run([question("other@1", 3)], [picture], lambda *step: None)


def test_threads_are_the_cores_this_process_may_use() -> None:
    assert usable_cores() >= 1
