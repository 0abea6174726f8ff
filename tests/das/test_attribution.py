from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import das.scoring
from das.answer import (
    CandidateSet,
    percent,
)
from das.attribution import Attributor
from das.config import BuildConfig, ClipSpec
from das.errors import IndexFormatError, ModelError, SettingsError
from das.gradients import FeatureConfig, FeatureExtractor
from das.index import AttributionIndex
from das.models import load_model
from index_build.build import build
from index_build.finish import in_eight_bits
from tests.conftest import make_model, make_picture

QUERIES = [make_picture(number) for number in (3, 7, 100, 101)]
DAMPING = 0.05


@pytest.fixture(scope="module")
def attributor(tiny_index: Path) -> Attributor:
    return Attributor(AttributionIndex.open(tiny_index), threads=1)


@pytest.fixture(scope="module")
def precise(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_works: Path, tiny_clip: Path
) -> Attributor:
    """An index in single precision with two probes for das-block, to compare with dense algebra."""
    config = BuildConfig(
        name="precise",
        model=str(tiny_model),
        works=tiny_works,
        timesteps=(50, 400),
        dimension=96,
        methods=("das", "das-block"),
        probes=("loss", "random"),
        damping=DAMPING,
        feature_dtype="float32",
        shard_size=15,
        clip=ClipSpec(directory=tiny_clip),
    )
    out = tmp_path_factory.mktemp("precise") / "index"
    build(config, out)
    return Attributor(AttributionIndex.open(out), threads=1)


@pytest.fixture(scope="module")
def raw(precise: Attributor, tiny_works: Path) -> dict[str, np.ndarray]:
    """Features of works and queries straight from the engine: by probe (N + B, T, k) float64; residual RMS."""
    config = FeatureConfig(dimension=96, probes=("loss", "random", "mean"), timesteps=(50, 400))
    extractor = FeatureExtractor(precise.model, config)
    files = sorted(tiny_works.glob("*.png"))
    features = extractor.features(
        precise.model.encode([np.array(Image.open(file)) for file in files] + QUERIES)
    )
    found = {name: values.double().numpy() for name, values in features.by_probe.items()}
    return found | {"rms": features.residual_rms.double().numpy()}


REPEATS = np.array([3.0 if row == 7 else 1.0 for row in range(40)])


def dense_block(raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """DAS-block by METHOD section 4 in dense float64 algebra: scores (B, N), and those among works (N, N)."""
    unit = raw / np.linalg.norm(raw, axis=2, keepdims=True)
    averages = unit.mean(1)
    kernel = np.einsum("i,itk,itl->kl", REPEATS, unit[:40], unit[:40])
    inverse = np.linalg.inv(kernel + DAMPING * np.trace(kernel) / REPEATS.sum() * np.eye(len(kernel)))
    among = averages[:40] @ inverse @ averages[:40].T
    left = 1 - REPEATS * raw.shape[1] * np.diag(among)
    return (averages[40:] @ inverse @ averages[:40].T) ** 2 * REPEATS**0.6 / left, among**2


def dense_das(raw: np.ndarray, rms: np.ndarray) -> np.ndarray:
    """The paper's DAS by METHOD section 2: (B, N)."""
    averages = (raw / np.linalg.norm(raw, axis=2, keepdims=True)).mean(1)
    works, queries = averages[:40], averages[40:]
    kernel = works.T @ np.diag(REPEATS) @ works
    inverse = np.linalg.inv(kernel + DAMPING * np.trace(kernel) / REPEATS.sum() * np.eye(len(kernel)))
    leverage = np.einsum("ik,kl,il->i", works, inverse, works)
    residual = (rms[:40] / np.average(rms[:40], axis=0, weights=REPEATS)).mean(1)
    return (queries @ inverse @ works.T * residual / (1 - REPEATS * leverage)) ** 2


def test_das_is_the_dense_reference(precise: Attributor, raw: dict[str, np.ndarray]) -> None:
    """The paper's kernel, answered from features that the block kernel whitened."""
    expected = dense_das(raw["mean"], raw["rms"])
    scores = precise.scores(QUERIES, "das")
    assert scores.shape == (4, 40)
    np.testing.assert_allclose(scores, expected, rtol=2e-3, atol=1e-5 * expected.max())


def test_das_block_is_the_dense_reference(precise: Attributor, raw: dict[str, np.ndarray]) -> None:
    expected = np.zeros((4, 40))
    for probe in ("loss", "random"):
        scores, among_works = dense_block(raw[probe])
        expected += scores / among_works.mean()
    np.testing.assert_allclose(
        precise.scores(QUERIES, "das-block"), expected, rtol=1e-3, atol=1e-5 * expected.max()
    )


def test_twenty_works_are_named_unless_asked_otherwise(attributor: Attributor) -> None:
    assert len(attributor.attribute(QUERIES[0]).works) == 20
    assert [len(each.works) for each in attributor.attribute_batch(QUERIES[:2])] == [20, 20]


def test_half_precision_keeps_the_scores(attributor: Attributor, tiny_index: Path) -> None:
    """fp16 features against the dense algebra over the same kernel factor in float64."""
    index = AttributionIndex.open(tiny_index)
    averages = attributor.averaged_features(QUERIES, "das-block")["loss"].double().numpy()
    query = np.linalg.solve(index.factor("loss", "block"), averages.T)
    products = (np.asarray(index.features("loss"), np.float64) @ query).T
    leverage = len(index.manifest.timesteps) * index.leverage("loss", "block")
    expected = products**2 * index.repeats**0.6 / (1 - index.repeats * leverage)
    np.testing.assert_allclose(attributor.scores(QUERIES), expected, rtol=1e-4, atol=1e-6 * expected.max())


def test_eight_bits_are_wrong_by_half_a_scale_at_most(
    precise: Attributor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """int8 against single precision: every product within the bound that rounding allows, however it is taken."""
    exact = precise.index
    build(exact.manifest.config.model_copy(update={"feature_dtype": "int8"}), tmp_path / "index")
    index = AttributionIndex.open(tmp_path / "index")
    for name in exact.manifest.features.sets:
        stored, scales = index.features(name), index.features(name).scales
        assert stored.dtype == np.int8
        assert scales is not None
        difference = np.abs(np.asarray(stored, np.float64) - np.asarray(exact.features(name), np.float64))
        assert (difference <= 0.5001 * scales[:, None]).all()
        np.testing.assert_array_equal(stored.take(np.array([33, 2])), np.asarray(stored)[[33, 2]])
    attributor = Attributor(index, threads=1)
    scores = attributor.scores(QUERIES)
    order = np.corrcoef(np.argsort(np.argsort(scores)), np.argsort(np.argsort(precise.scores(QUERIES))))
    assert np.diag(order[: len(QUERIES), len(QUERIES) :]).min() > 0.99
    # Too large for memory, and only some of the works: the same numbers.
    monkeypatch.setattr(das.scoring, "IN_MEMORY_BYTES", 0)
    mapped = Attributor(index, threads=1)
    np.testing.assert_allclose(mapped.scores(QUERIES), scores, rtol=1e-4, atol=1e-6 * scores.max())
    rows = np.array([30, 7, 2])
    some = mapped.attribute_batch(QUERIES[:1], candidates=[rows], top_k=[3])[0]
    assert {work.row: work.score for work in some.works} == pytest.approx(
        {row: scores[0, row] for row in rows}, rel=1e-3
    )
    (tmp_path / "index" / "kernel.safetensors").write_bytes((exact.path / "kernel.safetensors").read_bytes())
    with pytest.raises(IndexFormatError):
        AttributionIndex.open(tmp_path / "index")


def test_a_work_without_gradient_stays_zero_in_eight_bits() -> None:
    stored, scales = in_eight_bits(np.array([[0.0, 0.0], [0.5, -1.0]]))
    assert stored.tolist() == [[0, 0], [64, -127]]
    np.testing.assert_allclose(scales, [0, 1 / 127], rtol=1e-6)


def test_a_training_work_owes_most_to_itself(attributor: Attributor) -> None:
    for method in ("das-block", "das"):
        for number in (3, 7, 21):
            answer = attributor.attribute(make_picture(number), method=method, top_k=5)
            assert answer.works[0].row == number
            assert len(answer.works) == 5


def test_a_batch_answers_like_single_queries(attributor: Attributor) -> None:
    rows = np.array([30, 7, 2])
    together = attributor.attribute_batch(QUERIES, candidates=[None, rows, None, rows], top_k=[3, 2, 40, 20])
    for query, chosen, count, answer in zip(
        QUERIES, [None, rows, None, rows], [3, 2, 40, 20], together, strict=True
    ):
        alone = attributor.attribute(query, candidates=chosen, top_k=count)
        assert [work.row for work in alone.works] == [work.row for work in answer.works]
        np.testing.assert_allclose(
            [work.score for work in alone.works], [work.score for work in answer.works], rtol=1e-3
        )
    assert [len(answer.works) for answer in together] == [3, 2, 40, 3]
    assert attributor.attribute_batch([]) == []


def test_features_read_from_disk_give_the_scores_of_those_in_memory(
    attributor: Attributor, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.array([39, 0, 16, 15])
    for method in attributor.index.methods:
        resident = attributor.scores(QUERIES, method)
        monkeypatch.setattr(das.scoring, "IN_MEMORY_BYTES", 0)
        monkeypatch.setattr(das.scoring, "_CHUNK_BYTES", 5 * 4 * 128)  # five rows
        streaming = Attributor(attributor.index, attributor.model)
        np.testing.assert_allclose(streaming.scores(QUERIES, method), resident, rtol=1e-2)
        monkeypatch.undo()
        expected = attributor.attribute(QUERIES[0], candidates=rows, method=method)
        chosen = streaming.attribute(QUERIES[0], candidates=rows, method=method)
        assert [work.row for work in chosen.works] == [work.row for work in expected.works]
        np.testing.assert_allclose(
            [work.score for work in chosen.works], [work.score for work in expected.works], rtol=1e-2
        )


def test_shares_percentiles_and_groups(attributor: Attributor) -> None:
    answer = attributor.attribute(QUERIES[2], top_k=40)
    scores = attributor.scores(QUERIES[2:3])[0]
    assert answer.candidates == CandidateSet("all", 40)
    assert sum(work.share for work in answer.works) == pytest.approx(1)
    assert [work.row for work in answer.works] == np.argsort(-scores).tolist()
    assert [work.percentile for work in answer.works] == [100 * (39 - rank) / 40 for rank in range(40)]
    groups = answer.groups["creator"]
    assert {group.name: group.works for group in groups} == {
        "Ada Lovelace": 14,
        "Anna Atkins": 13,
        "Hokusai": 13,
    }
    for group in groups:
        creators = attributor.index.works.creators
        own = sum(work.share for work in answer.works if creators[work.row] == group.name)
        assert group.share == pytest.approx(own)
        assert group.factor == pytest.approx(own / (group.works / 40))
    result = answer.as_result()
    assert result["works"][0] == {
        "rank": 1,
        "work_id": attributor.index.works.id_of(answer.works[0].row),
        "score": answer.works[0].score,
        "share": answer.works[0].share,
        "percentile": 97.5,
        "low": None,
        "high": None,
    }
    assert set(result["timings_ms"]) == {"gradients", "scoring", "copies"}


def test_candidates_share_among_themselves(attributor: Attributor) -> None:
    rows = np.array([1, 5, 9])
    answer = attributor.attribute(QUERIES[0], candidates=rows)
    scores = attributor.scores(QUERIES[:1])[0][rows]
    assert answer.candidates == CandidateSet("screened", 3)
    assert {work.row: work.share for work in answer.works} == {
        int(row): pytest.approx(score / scores.sum(), rel=1e-3)
        for row, score in zip(rows, scores, strict=True)
    }
    assert attributor.attribute(QUERIES[0], candidates="all").candidates.mode == "all"


def test_progress_goes_through_the_stages_and_may_stop_the_query(attributor: Attributor) -> None:
    seen: list[tuple[str, int, int]] = []
    attributor.attribute_batch(QUERIES, progress=lambda *step: seen.append(step))
    assert seen[-1] == ("scored", 1, 1)
    assert seen[-2] == ("gradients", 12, 12)

    class StoppedError(Exception):
        pass

    def stop(stage: str, done: int, total: int) -> None:
        raise StoppedError

    with pytest.raises(StoppedError):
        attributor.attribute(QUERIES[0], progress=stop)


def test_images_come_in_several_forms(attributor: Attributor, tmp_path: Path) -> None:
    pixels = QUERIES[3]
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    (tmp_path / "query.png").write_bytes(buffer.getvalue())
    opaque = Image.fromarray(np.dstack([pixels, np.full((16, 16), 255, np.uint8)]), "RGBA")
    expected = attributor.attribute(pixels).works
    for image in (
        buffer.getvalue(),
        tmp_path / "query.png",
        str(tmp_path / "query.png"),
        opaque,
        Image.fromarray(pixels),
    ):
        assert attributor.attribute(image).works == expected


def test_another_model_is_refused(tiny_index: Path, tmp_path: Path, attributor: Attributor) -> None:
    make_model(tmp_path / "other", seed=1)
    index = AttributionIndex.open(tiny_index)
    with pytest.raises(ModelError, match=r"other isn't the model that tiny@\w{6} was built with"):
        Attributor(index, model=tmp_path / "other")
    with pytest.raises(ModelError, match="isn't the model"):
        Attributor(index, model=load_model(str(tmp_path / "other")))
    assert Attributor(index, model=attributor.model).model is attributor.model


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "trak"}, "wasn't built for 'trak'; it answers das-block, das"),
        ({"candidates": "some"}, "give 'all' or rows"),
        ({"candidates": [0, 40]}, "rows from 0 to 39"),
        ({"candidates": [-1]}, "rows from 0 to 39"),
        ({"candidates": []}, "at least one"),
        ({"candidates": [4, 4]}, "given twice"),
        ({"top_k": 0}, "at least one work"),
    ],
)
def test_questions_that_make_no_sense_are_refused(
    attributor: Attributor, options: dict, message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        attributor.attribute(QUERIES[0], **options)


def test_the_sentence_and_the_table_have_one_number(attributor: Attributor) -> None:
    creators = attributor.index.works.creators
    together = 0
    for number in range(20):
        answer = attributor.attribute(make_picture(number), top_k=1)
        own = next(one for one in answer.groups["creator"] if one.name == creators[answer.works[0].row])
        if answer.summary.startswith("The "):
            together += 1
            assert f"by {own.name} account for {percent(own.share)} of" in answer.summary
    assert together


def test_the_attributor_sets_the_threads_it_was_given(attributor: Attributor) -> None:
    assert torch.get_num_threads() == 1
