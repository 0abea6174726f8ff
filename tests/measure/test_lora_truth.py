"""A ground truth of LoRAs: the base stays as it is, and only the low-rank matrices are trained and attributed."""

import shutil

import numpy as np
import pytest
import torch
from test_truth import PLAN, RECIPE

from das.errors import SettingsError
from das.gradients import FeatureConfig, FeatureExtractor
from measure.fleet import train
from measure.methods import Variant
from measure.plan import Plan
from measure.report import truth_record
from measure.retraining import Retrainer
from measure.rows import Comparison
from measure.scores import Options, Study
from measure.source import read_source
from measure.subsets import make_truth
from measure.training import Recipe, forget, losses_on, seed_of
from measure.truth import load_truth

RANK = 2
LORA = Plan(
    **{**PLAN.__dict__, "seed": 1, "recipe": Recipe(**{**RECIPE.__dict__, "rank": RANK, "steps": 12})}
)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "pictures.npz"
    pictures = np.random.default_rng(5).integers(0, 256, size=(30, 8, 8, 3), dtype=np.uint8)
    np.savez(path, images=pictures)
    return read_source(path)


@pytest.fixture(scope="module")
def base(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("base") / "truth"
    return make_truth(source, out, PLAN).pipeline


@pytest.fixture(scope="module")
def made(source, base, tmp_path_factory):
    out = tmp_path_factory.mktemp("lora") / "truth"
    return make_truth(source, out, LORA, base=base)


def test_the_base_is_the_one_given_and_the_lora_lies_on_it(made, base):
    from diffusers import UNet2DModel

    given, copied = (UNet2DModel.from_pretrained(path / "unet") for path in (base, made.pipeline))
    under = dict(made.model().network.named_parameters())
    for name, weights in given.named_parameters():
        assert torch.equal(weights, copied.get_parameter(name))
        layer, _, kind = name.rpartition(".")
        assert torch.equal(weights, under.get(f"{layer}.base_layer.{kind}", under.get(name)))
    matrices = {name: weights for name, weights in under.items() if ".lora_" in name}
    assert matrices
    assert all(RANK in weights.shape[:2] for weights in matrices.values())
    # The second matrix of a pair starts at zero: it was trained.
    assert all(float(weights.detach().norm()) > 0 for weights in matrices.values())


def test_only_the_matrices_are_attributed_and_told_of(made):
    model = made.model()
    extractor = FeatureExtractor(model, FeatureConfig(16, ("loss",), (500,)))
    assert extractor.parameters
    assert all(".lora_" in name for name in extractor.parameters)
    record = truth_record(made)
    assert record["lora"]
    assert record["attributed"] == sum(weights.numel() for weights in extractor.parameters.values())
    assert record["attributed"] < record["parameters"]
    assert record["plan"]["recipe"]["rank"] == RANK


def test_subsets_differ_by_their_works_and_generated_queries_are_the_tuned_models(made, base):
    first = made.losses[:, 0]
    assert len(np.unique(first, axis=0)) == len(first)
    network = made.model().network
    again = train(
        torch.from_numpy(made.works[made.members[0]]),
        LORA.recipe,
        seed=seed_of(LORA.seed, "subset model", 0),
        base=base,
    )
    losses = losses_on(again, torch.from_numpy(made.queries), LORA.losses).numpy()
    assert np.allclose(losses, first[0], rtol=1e-5)
    tuned = losses_on(network, torch.from_numpy(made.queries), LORA.losses).numpy()
    assert not np.allclose(tuned, first[0], rtol=1e-4)


def test_estimators_and_checkpoints_are_of_the_lora(made):
    checkpoints = sorted((made.directory / "checkpoints").iterdir())
    assert len(checkpoints) == 2
    study = Study(made, Options((200, 600), 64, checkpoints=tuple(checkpoints)))
    for variant in (
        Variant("das-block", ("loss", "activation"), normalised=True),
        Variant("tracincp", ("loss",)),
    ):
        row = Comparison(study).row(variant)
        assert np.isfinite(row["lds"])
        assert np.isfinite(study.scores(variant)).all()
    early, late = study.features(("loss",), 1)[0], study.features(("loss",), 2)[0]
    assert not np.allclose(early.by_probe["loss"], late.by_probe["loss"])


def test_an_untrained_lora_does_nothing_to_the_base_as_a_control(made, base):
    from das.models import load_model

    model, plain = made.model(), load_model(str(base))
    forget(model.network, 0)
    x, t = torch.from_numpy(made.works[:2]), torch.tensor([100, 700])
    with torch.no_grad():
        assert torch.allclose(model.predict(x, t, {}), plain.predict(x, t, {}), atol=1e-6)
        assert not torch.allclose(made.model().predict(x, t, {}), plain.predict(x, t, {}), atol=1e-4)


def test_a_lora_is_trained_again_without_some_works(made, tmp_path):
    retrainer = Retrainer.of(made, tmp_path)
    whole = retrainer.without(np.array([], int))
    full = dict(retrainer.full().named_parameters())
    for name, weights in whole.named_parameters():
        assert torch.allclose(weights, full[name], atol=1e-6), name
    lacking = dict(retrainer.without(np.array([0, 1, 2])).named_parameters())
    kept = dict(retrainer.without(np.array([0, 1, 2])).named_parameters())  # from the cache
    assert all(torch.equal(weights, kept[name]) for name, weights in lacking.items())
    assert any(not torch.equal(weights, full[name]) for name, weights in lacking.items())


def test_it_goes_on_with_the_same_base_only(source, base, made, tmp_path):
    copy = tmp_path / "truth"
    shutil.copytree(made.directory, copy)
    (copy / "runs" / "subset-0001-seed-0.npz").unlink()
    (copy / "subsets.npz").unlink()
    make_truth(source, copy, LORA, base=base)
    assert np.array_equal(load_truth(copy).losses, made.losses, equal_nan=True)
    other = make_truth(source, tmp_path / "other", Plan(**{**PLAN.__dict__, "seed": 9})).pipeline
    with pytest.raises(SettingsError, match="base was"):
        make_truth(source, copy, LORA, base=other)


def test_a_rank_without_a_base_and_a_base_without_a_rank_are_refused(source, base, tmp_path):
    with pytest.raises(SettingsError, match="needs both"):
        make_truth(source, tmp_path / "a", LORA)
    with pytest.raises(SettingsError, match="needs both"):
        make_truth(source, tmp_path / "b", PLAN, base=base)
    with pytest.raises(SettingsError, match="rank must be"):
        Recipe(rank=0)
