"""Whether a picture is the model's own: p-values that hold, verdicts, and the sentences made of them."""

from pathlib import Path

import numpy as np
import pytest

from das.answer import caveats_of, headline_of
from das.errors import IndexFormatError
from das.references import AS_MADE, HELD_OUT_LEVEL, References, ReferenceSet

COUNT, DIMENSION = 120, 15
SAYS = "The eight works by Ada account for 44 % of the measured influence among 100 works."


def drawn(count: int, seed: int, shift: float = 0.0) -> np.ndarray:
    """Statistics of some unequal, correlated, lopsided distribution, (count, DIMENSION)."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(5).normal(size=(DIMENSION, DIMENSION))
    return np.exp(0.3 * rng.normal(size=(count, DIMENSION))) @ mixing + shift


def references(shares: float = 0.1) -> References:
    sets = {AS_MADE: drawn(COUNT, 1), "jpeg-75": drawn(50, 2, 40.0)}
    return References(sets, {"das-block": np.linspace(0, shares, COUNT)})


@pytest.mark.parametrize("level", [0.02, 0.05, 0.2])
def test_of_the_models_own_no_more_than_the_level_are_refused(level: float) -> None:
    refused = [
        np.mean(ReferenceSet(drawn(COUNT, s)).p_values(drawn(200, 1000 + s)) <= level) for s in range(40)
    ]
    error = 3 * np.std(refused) / np.sqrt(len(refused))
    assert np.mean(refused) < level + error
    assert np.mean(refused) > level / 3, "a test that never refuses would tell nothing"


def test_nearly_none_of_the_models_own_is_beyond_all_references() -> None:
    beyond = [np.mean(ReferenceSet(drawn(COUNT, s)).beyond(drawn(200, 1000 + s))) for s in range(40)]
    assert np.mean(beyond) < 1 / COUNT
    assert ReferenceSet(drawn(COUNT, 1)).beyond(drawn(200, 2, 100.0)).all()


def test_what_is_farther_than_all_has_the_least_p_value() -> None:
    assert ReferenceSet(drawn(COUNT, 1)).p_values(drawn(5, 2, 1e4)) == pytest.approx(1 / (COUNT + 1))


def test_a_statistic_that_never_varies_is_no_obstacle() -> None:
    constant = drawn(COUNT, 1)
    constant[:, 3] = 7.0
    asked = drawn(100, 2)
    asked[:, 3] = 7.0
    assert np.mean(ReferenceSet(constant).p_values(asked) > 0.05) > 0.8
    asked[:, 3] = 100.0
    assert (ReferenceSet(constant).p_values(asked) < 0.05).all()


@pytest.mark.parametrize(
    ("shift", "verdict"), [(0.0, "likely"), (40.0, "unsure"), (1e4, "unlikely"), (1e200, "unlikely")]
)
def test_the_verdict(shift: float, verdict: str) -> None:
    told = references().in_model(drawn(1, 1, shift))[0]
    assert told["verdict"] == verdict
    assert told["references"] == COUNT
    assert 0 < told["p_value"] <= told["p_value_re_encoded"] <= 1  # type: ignore[operator]


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_statistics_that_are_no_numbers_are_nobodys(broken: float) -> None:
    asked = drawn(2, 1)
    asked[0, 4] = broken
    first, second = references().in_model(asked)
    assert (first["verdict"], second["verdict"]) == ("unlikely", "likely")


def test_the_percentile_of_a_first_work() -> None:
    assert references().percentile("das-block", 0.05) == pytest.approx(50, abs=1)
    assert references().percentile("das-block", 0.0) == 0
    assert references().percentile("das-block", 1.0) == 100
    assert references().percentile("trak", 0.05) is None


def test_what_is_written_is_read(tmp_path: Path) -> None:
    written = references()
    written.write(tmp_path / "references.safetensors")
    read = References.read(tmp_path / "references.safetensors")
    asked = drawn(9, 3)
    assert read.in_model(asked) == written.in_model(asked)
    assert read.percentile("das-block", 0.03) == written.percentile("das-block", 0.03)


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"no tensors at all"])
def test_a_damaged_file_is_said(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "references.safetensors"
    path.write_bytes(content)
    with pytest.raises(IndexFormatError, match="damaged"):
        References.read(path)


def test_references_of_other_statistics_are_said(tmp_path: Path) -> None:
    with pytest.raises(IndexFormatError, match="another version"):
        references().in_model(drawn(2, 1)[:, :-1])
    path = tmp_path / "references.safetensors"
    References({AS_MADE: drawn(COUNT, 1), "jpeg-75": drawn(50, 2)[:, :-1]}, {}).write(path)
    with pytest.raises(IndexFormatError, match="build the index again"):
        References.read(path)


def in_model(verdict: str) -> dict[str, object]:
    p = 0.4 if verdict == "likely" else 1 / 201
    return {"verdict": verdict, "p_value": p, "p_value_re_encoded": p, "references": 200}


def test_only_of_the_models_own_a_creator_is_named_on_top() -> None:
    assert headline_of(SAYS, None) == SAYS
    assert headline_of(SAYS, in_model("likely")) == SAYS
    for verdict in ("unsure", "unlikely"):
        assert "Ada" not in headline_of(SAYS, in_model(verdict))
        assert headline_of(SAYS, in_model(verdict)).startswith("No creator is named")


def test_what_has_to_be_said_below() -> None:
    sharp, flat = {"stands_out": True, "percentile": 60.0}, {"stands_out": True, "percentile": 1.0}
    assert caveats_of(SAYS, None, None) == []
    assert caveats_of(SAYS, in_model("likely"), sharp) == []
    assert ["ranking is flat" in said for said in caveats_of(SAYS, in_model("likely"), flat)] == [True]
    assert caveats_of(SAYS, in_model("likely"), {"stands_out": True, "percentile": None}) == []
    unsure = caveats_of(SAYS, in_model("unsure"), flat)
    assert unsure[1] == f"If it is the model's: t{SAYS[1:]}"
    assert "Ada" not in " ".join(caveats_of(SAYS, in_model("unlikely"), sharp))


def with_held_out(shift: float) -> References:
    """References, and held-out pictures that lie a little aside of them in every statistic."""
    made = references()
    return References(made.statistics, made.top_shares, drawn(60, 77) + shift)


def test_what_looks_like_held_out_pictures_isnt_likely() -> None:
    known = with_held_out(1.5)
    taken = [told["verdict"] == "likely" for told in known.in_model(drawn(400, 78) + 1.5)]
    assert np.mean(taken) < 0.05, "without the rule nearly all are"
    assert (
        np.mean([told["verdict"] == "likely" for told in references().in_model(drawn(400, 78) + 1.5)]) > 0.5
    )
    own = known.in_model(drawn(400, 79))
    assert np.mean([told["verdict"] == "likely" for told in own]) > 0.9
    for told in own:
        assert (told["p_value_held_out"] <= HELD_OUT_LEVEL) <= (told["verdict"] != "likely")  # type: ignore[operator]


def test_held_out_pictures_that_look_the_same_cost_only_their_level() -> None:
    """Where nothing tells them apart, no more of the model's own are doubted than the level says."""
    own = with_held_out(0.0).in_model(drawn(1000, 80))
    assert np.mean([told["verdict"] == "likely" for told in own]) > 0.9


def test_held_out_pictures_are_written_and_read(tmp_path: Path) -> None:
    written = with_held_out(1.0)
    written.write(tmp_path / "references.safetensors")
    read = References.read(tmp_path / "references.safetensors")
    asked = drawn(9, 3)
    assert read.in_model(asked) == written.in_model(asked)
    assert references().in_model(asked)[0]["p_value_held_out"] is None
    wrong = References(written.statistics, {}, drawn(60, 77)[:, :-1])
    wrong.write(tmp_path / "wrong.safetensors")
    with pytest.raises(IndexFormatError, match="build the index again"):
        References.read(tmp_path / "wrong.safetensors")


def test_the_reason_is_the_one_that_holds() -> None:
    far = in_model("unsure") | {"p_value_held_out": None}
    like_held_out = far | {"p_value": 0.3, "p_value_re_encoded": 0.3, "p_value_held_out": 0.01}
    assert "less like them than any of 200" in caveats_of(SAYS, far, None)[0]
    assert "was not trained on than like the 200" in caveats_of(SAYS, like_held_out, None)[0]
    # Farther than most references, not than all of them.
    unlikely = like_held_out | {"verdict": "unlikely", "p_value": 0.03, "p_value_re_encoded": 0.03}
    said = " ".join(caveats_of(SAYS, unlikely, None))
    assert "was not trained on than like the 200" in said
    assert "than any of" not in said
    assert "than any of 200" in " ".join(caveats_of(SAYS, in_model("unlikely"), None))
