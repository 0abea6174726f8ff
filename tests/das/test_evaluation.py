"""The study: its vectorised scores against the library's kernel, and every command on a tiny ground truth."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from das.cli import build_app
from das.errors import SettingsError
from das.estimators import das_scores, residual_weights
from das.evaluation.contact_sheet import CELL, GAP
from das.evaluation.counterfactual import query_sets, ranked_highest
from das.evaluation.curves import CURVES, curve_rows, dimensions, fewer
from das.evaluation.features import FeatureTable, extract
from das.evaluation.lds import predictions, resampled
from das.evaluation.methods import EVERY, FOUR, REFERENCE, Candidate
from das.evaluation.output_function import noises, outputs, simple
from das.evaluation.report import write_report
from das.evaluation.retraining import Retrainer
from das.evaluation.screening import recall, screened
from das.evaluation.spectrum import GRID, Spectrum, rounded
from das.evaluation.study import Options, Skipped, Study, as_pixels
from das.evaluation.subsets import Plan, Source, make_truth
from das.evaluation.training import LossConfig, Recipe, simple_losses
from das.gradients import FeatureConfig
from das.kernel import KernelAccumulator, damped_kernel, effective_dimension_target, normalised
from das.models import load_model

TIMESTEPS = (0, 100, 300, 500)
K = 64
DIFFERENCE = ("difference", "difference_low", "difference_high")


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    pictures = np.random.default_rng(0).integers(0, 256, size=(30, 8, 8, 1), dtype=np.uint8)
    plan = Plan(
        count=20,
        validation=3,
        generated=4,
        subsets=8,
        repeated=4,
        checkpoints=1,
        sampling_steps=3,
        recipe=Recipe(widths=(8, 16), steps=3, full_steps=6, batch_size=4),
        losses=LossConfig(timesteps=2, draws=1),
    )
    return make_truth(
        Source(pictures, np.zeros(30), None, None), tmp_path_factory.mktemp("truth") / "truth", plan
    )


@pytest.fixture(scope="module")
def study(truth, tmp_path_factory):
    return Study(
        truth, Options(TIMESTEPS, K, cache=tmp_path_factory.mktemp("cache"), feature_dtype="float32")
    )


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(20, 3, K, generator=generator), torch.randn(4, 3, K, generator=generator))


@pytest.mark.parametrize("form", ["block", "mean"])
@pytest.mark.parametrize("dimension", [8, K])
@pytest.mark.parametrize("activation", [False, True])
def test_a_spectrum_gives_what_a_factorised_kernel_gives(tensors, form, dimension, activation):
    # 60 rows of 64 dimensions take the dual form, 60 of 8 the primal one; with averages 20 rows.
    works, queries = (normalised(values[..., :dimension]) for values in tensors)
    spectrum = Spectrum.of(works, queries, form, activation=activation)
    accumulator = KernelAccumulator(form, dimension)
    accumulator.add(works, torch.ones(20))
    kernel = damped_kernel(accumulator.matrix, 20.0, damping=0.1)
    means, asked = works.mean(1), queries.mean(1)
    expected = kernel.whiten(asked) @ kernel.whiten(means).T
    assert np.allclose(spectrum.products(0.1), expected, rtol=1e-3, atol=1e-6)
    assert np.allclose(spectrum.leverage(0.1), kernel.leverage(means), rtol=1e-3)
    assert np.allclose(spectrum.solved_norms(0.1), kernel.solve(means).norm(dim=1), rtol=1e-3)
    assert np.allclose(spectrum.norms(), means.norm(dim=1), rtol=1e-4)
    among = kernel.whiten(means) @ kernel.whiten(means).T
    assert spectrum.mean_square(0.1) == pytest.approx(float(among.square().mean()), rel=1e-3)
    target = effective_dimension_target(form, 20, 3, dimension, activation=activation)
    by_rule = damped_kernel(accumulator.matrix, 20.0, target=target)
    assert spectrum.default_damping() * spectrum.unit == pytest.approx(by_rule.damping, rel=1e-3)


def test_half_precision_changes_products_a_little_and_never_underflows(tensors):
    spectrum = Spectrum.of(*tensors, "block")
    exact, half = spectrum.products(0.1), spectrum.products(0.1, "float16")
    assert not np.array_equal(exact, half)
    assert np.allclose(exact, half, atol=2e-3 * np.abs(exact).max())
    eight = spectrum.products(0.1, "int8")
    assert not np.array_equal(eight, half)
    assert np.allclose(exact, eight, atol=3e-2 * np.abs(exact).max())
    tiny = torch.full((2, 2), 1e-30, dtype=torch.float64)
    assert torch.allclose(rounded(tiny, "float16"), tiny, rtol=1e-3)


def test_folding_a_sketch_equals_extracting_with_a_smaller_one(truth):
    model = load_model(str(truth.pipeline))
    large, small = (
        extract(model, truth.queries, FeatureConfig(dimension, ("loss",), (100, 500)))
        for dimension in (K, K // 4)
    )
    assert np.allclose(large.folded(K // 4).by_probe["loss"], small.by_probe["loss"], rtol=1e-3, atol=1e-5)
    with pytest.raises(SettingsError, match="folded"):
        large.folded(48)


def test_some_of_the_timesteps_equal_extracting_at_those(truth):
    model = load_model(str(truth.pipeline))
    several = extract(model, truth.queries, FeatureConfig(K, ("loss",), (100, 300, 500)))
    two = extract(model, truth.queries, FeatureConfig(K, ("loss",), (500, 100)))
    assert np.allclose(several.at((500, 100)).by_probe["loss"], two.by_probe["loss"], rtol=1e-3, atol=1e-5)
    assert np.allclose(several.at((500, 100)).residual_rms, two.residual_rms, rtol=1e-4)
    with pytest.raises(SettingsError, match="700"):
        several.at((100, 700))


def test_features_come_from_the_cache_the_second_time(truth, tmp_path):
    model = load_model(str(truth.pipeline))
    calls = []

    def report(stage, done, total):
        calls.append((stage, done, total))

    config = FeatureConfig(16, ("mean",), (100,))
    first = extract(model, truth.queries, config, cache=tmp_path, progress=report)
    assert calls == [("features", 7, 7)]
    again = extract(model, truth.queries, config, cache=tmp_path, progress=report)
    assert len(calls) == 1
    assert np.array_equal(first.by_probe["mean"], again.by_probe["mean"])
    extract(
        model, truth.queries, FeatureConfig(16, ("mean",), (100,), seed=1), cache=tmp_path, progress=report
    )
    extract(model, truth.queries, config, cache=tmp_path, journey=True, progress=report)
    assert [stage for stage, _, _ in calls] == ["features", "features", "journeys"]


def test_das_is_the_papers_formula_on_the_studys_features(study):
    works, queries = study.features(FOUR)
    found = study.scores(Candidate("das", ("mean",), normalised=True), 0.1)
    rows = normalised(torch.from_numpy(np.array(works.by_probe["mean"]))).mean(1).double()
    asked = normalised(torch.from_numpy(np.array(queries.by_probe["mean"]))).mean(1).double()
    kernel = rows.T @ rows
    solved = torch.linalg.solve(kernel + 0.1 * kernel.trace() / 20 * torch.eye(K), rows.T)
    residuals = residual_weights(works.residual_rms, np.ones(20))
    expected = das_scores((asked @ solved).numpy(), (rows * solved.T).sum(1).numpy(), residuals, np.ones(20))
    assert np.allclose(found, expected, rtol=1e-3, atol=1e-9)


def test_the_sum_of_probes_weighs_them_alike(study):
    pair = study.scores(Candidate("das-block", ("loss", "random"), normalised=True, form="block"), 0.1)
    expected = 0
    for probe in ("loss", "random"):
        alone = study.scores(Candidate("das-block", (probe,), normalised=True, form="block"), 0.1)
        spectrum = study.spectrum(probe, "block", True, TIMESTEPS, K)
        expected = expected + alone / spectrum.mean_square(0.1)
    assert np.allclose(pair, expected)


def test_every_row_says_what_it_measured_or_why_not(study):
    rows = {row["label"]: row for row in study.rows(study.candidates())}
    assert len(rows) == len(study.candidates())
    assert rows["clip-dot"]["skipped"] == "no CLIP model was given"
    assert rows["tracincp"]["skipped"] == "no checkpoints were given"
    measured = [row for row in rows.values() if "skipped" not in row]
    assert len(measured) == len(rows) - 4
    for row in measured:
        assert -100 <= row["low"] <= row["high"] <= 100
        assert row["oracle_lds"] >= row["chosen_lds"] - 1e-9
        assert {"lds_validation", "lds_generated", "ceiling", "perfect"} <= row.keys()
        for kind in ("", "_validation", "_generated"):
            if row["label"] == "das":
                assert [row[f"{name}{kind}"] for name in DIFFERENCE] == [None] * 3
            else:
                assert row[f"difference{kind}"] == row[f"lds{kind}"] - rows["das"][f"lds{kind}"]
                assert row[f"difference_low{kind}"] <= row[f"difference_high{kind}"]
        if row["damping"] is None:
            assert "regret" not in row
        else:
            assert row["regret"] == pytest.approx(row["oracle_lds"] - row["lds"])
    das = rows["das-block loss+mean+square+random"]
    assert (das["forward_passes"], das["backward_passes"]) == (4, 4 * 4)
    assert das["bytes_per_work"] == 4 * K * 4
    assert das["oracle_damping"] in GRID
    assert [damping for damping, _ in das["curve"]] == list(GRID)
    assert rows["pixel-dot"]["bytes_per_work"] == 64 * 4
    assert rows["pixel-dot"]["forward_passes"] == 0
    assert rows["trak"]["damping"] > 0
    assert rows["pixel-dot"]["damping"] is None


def test_differences_are_to_the_papers_form_wherever_it_stands(study):
    chosen = [Candidate("trak", ("loss",)), REFERENCE, Candidate("d-trak", ("square",))]
    rows = {row["label"]: row for row in study.rows(chosen)}
    assert {row["label"]: row for row in study.rows(chosen[::-1])} == rows
    truth = study.truth
    own, paper = (
        resampled(predictions(study.scores(one), truth.members), truth.mean_losses()) for one in chosen[:2]
    )
    for kind, queries in (("", np.arange(7)), ("_generated", truth.queries_of("generated"))):
        draws = 100 * (own[:, queries] - paper[:, queries]).mean(1)
        found = [rows["trak"][f"difference_{end}{kind}"] for end in ("low", "high")]
        assert found == pytest.approx(np.quantile(draws, [0.025, 0.975]))
    assert [rows["das"][name] for name in DIFFERENCE] == [None] * 3
    alone = study.rows(chosen[:1])[0]
    assert [alone[name] for name in DIFFERENCE] == [None] * 3
    assert alone["lds"] == rows["trak"]["lds"]


def test_curves_are_held_against_the_papers_form_with_the_same_choices(study):
    rows = curve_rows(study)
    assert len(rows) == len(CURVES) * (len(dimensions(K)) + len(fewer(TIMESTEPS)))
    paper = {
        (row["varied"], tuple(row["timesteps"]), row["dimension"]): row["lds"]
        for row in rows
        if row["label"] == "das"
    }
    for row in rows:
        expected = row["lds"] - paper[row["varied"], tuple(row["timesteps"]), row["dimension"]]
        assert row["difference"] == (None if row["label"] == "das" else expected)


def test_checkpoints_are_averaged(truth, study):
    checkpoint = truth.directory / "checkpoints" / "step-000003"
    several = Study(truth, Options(TIMESTEPS, K, checkpoints=(checkpoint,), feature_dtype="float32"))
    found = several.scores(Candidate("tracincp", ("loss",), form="none"))
    expected = 0
    for directory in (truth.pipeline, checkpoint):
        model = load_model(str(directory))
        config = FeatureConfig(K, ("loss",), TIMESTEPS)
        works, queries = (
            extract(model, images, config).by_probe["loss"].mean(1) for images in (truth.works, truth.queries)
        )
        expected = expected + queries.astype(float) @ works.T.astype(float) / 2
    assert np.allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    row = several.row(Candidate("gas", ("loss",), form="none"))
    assert row["forward_passes"] == row["backward_passes"] == 2 * len(TIMESTEPS)
    with pytest.raises(Skipped):
        study.scores(Candidate("gas", ("loss",), form="none"))


def test_a_narrowed_study_shares_the_features(study):
    candidate = Candidate("das-block", ("loss",), normalised=True, form="block")
    narrow = study.narrowed((100, 300), K // 2)
    row = narrow.row(candidate)
    assert (row["timesteps"], row["dimension"], row["backward_passes"]) == ([100, 300], K // 2, 2)
    assert narrow.features(FOUR)[0] is study.features(FOUR)[0]
    assert dimensions(512) == [64, 128, 256, 512]
    assert fewer((0, 100, 200, 300)) == [(0,), (0, 100), (0, 100, 200), (0, 200), (0, 100, 200, 300)]


def test_tables_know_their_dimension():
    assert FeatureTable({"loss": np.zeros((2, 3, 5), np.float32)}, np.zeros((2, 3)), (1, 2, 3)).dimension == 5


def test_training_again_without_nothing_gives_the_full_model(truth, tmp_path):
    retrainer = Retrainer.of(truth, tmp_path)
    again = retrainer.without(np.array([], np.int64))
    for a, b in zip(again.parameters(), retrainer.full().parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    assert np.allclose(retrainer.regenerate(again), truth.queries[retrainer.generated()], atol=1e-3)
    other = retrainer.without(np.arange(5))
    assert not np.allclose(retrainer.regenerate(other), truth.queries[retrainer.generated()], atol=1e-3)
    cached = retrainer.without(np.arange(5))
    assert all(torch.equal(a, b) for a, b in zip(other.parameters(), cached.parameters(), strict=True))
    assert len(list(tmp_path.iterdir())) == 2


def test_the_loss_of_kept_predictions_is_the_simple_loss(truth):
    config = LossConfig(timesteps=3, draws=2, seed=1)
    network = Retrainer.of(truth).full()
    predicted = outputs(network, truth.queries, config)
    expected = simple_losses(network, torch.from_numpy(truth.queries), config).numpy()
    assert np.allclose(simple(predicted, noises(truth.queries.shape[1:], config)), expected, rtol=1e-4)


def test_the_works_removed_have_the_largest_sums():
    scores = np.array([[1.0, 5, 0, 2], [1, 0, 4, 3]])
    assert ranked_highest(scores, 2).tolist() == [1, 3]
    assert [group.tolist() for group in query_sets(5, 2, 2)] == [[0, 1], [2, 3]]
    with pytest.raises(SettingsError, match="3 sets of 2"):
        query_sets(5, 2, 3)


def test_recall_is_the_part_of_the_top_among_the_look_alikes():
    scores = np.array([[9.0, 8, 7, 0, 0], [0, 0, 7, 8, 9]])
    similarity = np.array([[5.0, 4, 0, 1, 2], [5, 4, 0, 1, 2]])
    kept = screened(similarity, 2)
    assert kept.tolist() == [[True, True, False, False, False]] * 2
    assert recall(scores, kept, top=2) == pytest.approx(0.5)


def test_pictures_for_clip_are_grey_or_colour_bytes():
    grey = as_pixels(np.array([[[[-1.0, 1.0]]]]))
    assert grey[0].tolist() == [[[0, 0, 0], [255, 255, 255]]]


def run(*words):
    result = CliRunner().invoke(build_app(), ["evaluate", *map(str, words)], catch_exceptions=False)
    assert result.exit_code == 0
    return [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]


def test_lds_prints_a_row_for_each_method(truth, tmp_path):
    report = tmp_path / "lds.json"
    options = ["--timesteps", "0,100", "--dimension", "32", "--method", "trak", "--method", "das-block loss"]
    rows = run("lds", "--truth", truth.directory, *options, "--out", report, "--json")
    assert [row["label"] for row in rows] == ["trak", "das-block loss"]
    names = "method lds low high ceiling damping oracle_lds timesteps probes dimension backward_passes"
    for row in rows:
        assert set(names.split()) | {"bytes_per_work"} <= row.keys()
    written = json.loads(report.read_text())
    assert written["rows"] == rows
    parameters = sum(weights.numel() for weights in load_model(str(truth.pipeline)).network.parameters())
    assert written["truth"] == {
        "works": 20,
        "shape": [1, 8, 8],
        "queries": {"validation": 3, "generated": 4},
        "subsets": 8,
        "share": 0.5,
        "seeds": 2,
        "repeated": 4,
        "models": 12,
        "parameters": parameters,
        "attributed": parameters,
        "lora": False,
        "training": {"steps": 3, "full_steps": 6, "batch_size": 4},
        "plan": json.loads((truth.directory / "plan.json").read_text()),
        "ceiling": rows[0]["ceiling"],
    }


def test_an_untrained_network_is_a_control_of_its_own(truth, tmp_path):
    options = Options((0, 100), 32, cache=tmp_path)
    trained, untrained = (
        Study(truth, dataclasses.replace(options, untrained=which)).features(EVERY)[0].by_probe
        for which in (False, True)
    )
    for probe in EVERY:
        assert not np.allclose(trained[probe], untrained[probe], rtol=0.1)
    again = Study(truth, dataclasses.replace(options, untrained=True, cache=None)).features(EVERY)[0].by_probe
    assert np.array_equal(again["loss"], untrained["loss"])
    rows = run(
        "lds",
        "--truth",
        truth.directory,
        "--timesteps",
        "0,100",
        "--dimension",
        "32",
        "--untrained",
        "--json",
    )
    assert {row["label"] for row in rows} > {"das", "das-block loss+activation"}


def test_counterfactual_has_a_row_for_random_removal(truth, tmp_path):
    options = ["--timesteps", "0,100", "--dimension", "32", "--method", "das-block loss"]
    options += ["--remove", "5", "--set-size", "2", "--sets", "2"]
    sheet = tmp_path / "new" / "sheet.png"
    rows = run("counterfactual", "--truth", truth.directory, *options, "--pictures", sheet, "--json")
    assert [row["label"] for row in rows] == ["random", "das-block loss"]
    drawn = np.asarray(Image.open(sheet))
    generated = as_pixels(truth.queries[truth.queries_of("generated")[:2]])
    side = len(generated[0])
    scale = round(CELL / side)
    # Row 0 is the first set as it was, from the right: the second picture, a gap, the first one.
    second = drawn[GAP : GAP + scale * side, -GAP - scale * side : -GAP]
    assert np.array_equal(second[::scale, ::scale], generated[1])
    assert len(drawn) == GAP + 3 * (scale * side + GAP)
    assert all(row["l2"] > 0 and row["queries"] == 4 for row in rows)
    assert all(np.mean(row["l2_of_sets"]) == pytest.approx(row["l2"]) for row in rows)


def test_output_function_correlates_both(truth):
    rows = run("output-function", "--truth", truth.directory, "--models", "2", "--remove", "5", "--json")
    assert [row["function"] for row in rows] == ["loss", "prediction"]
    assert all(-1 <= row["pearson"] <= 1 and row["pairs"] == 8 for row in rows)


def test_screening_with_every_work_loses_nothing(truth):
    options = [
        "--timesteps",
        "0,100",
        "--dimension",
        "32",
        "--method",
        "das-block loss",
        "--candidates",
        "5,100,200",
    ]
    rows = run("screening", "--truth", truth.directory, *options, "--json")
    assert [row["candidates"] for row in rows] == [5, 20]
    assert rows[0]["recall"] <= 5 / 20 + 1e-9
    assert rows[1]["recall"] == 1
    assert rows[1]["lds_lost"] == pytest.approx(0)
    assert {row["embedding"] for row in rows} == {"pixels"}


def test_a_table_is_printed_for_people(truth):
    result = CliRunner().invoke(
        build_app(), ["evaluate", "screening", "--truth", str(truth.directory), "--method", "pixel-cosine"]
    )
    assert result.exit_code == 0
    assert "recall" in result.stdout


def test_unknown_methods_and_odd_lists_are_refused(truth):
    for words, message in (
        (["--method", "guess"], "guess"),
        (["--timesteps", "many"], "--timesteps"),
        (["--timesteps", "0"], "--timesteps"),
    ):
        result = CliRunner().invoke(build_app(), ["evaluate", "lds", "--truth", str(truth.directory), *words])
        assert isinstance(result.exception, SettingsError)
        assert message in str(result.exception)


def test_a_report_keeps_no_paths_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "sys.argv", ["das", "evaluate", "lds", "--truth", f"{tmp_path}/digits", "--seed", "1"]
    )
    write_report(tmp_path / "report.json", [{"lds": 1.0}], 1)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["command"] == "das evaluate lds --truth digits --seed 1"
    assert report["seed"] == 1
    assert report["rows"] == [{"lds": 1.0}]
