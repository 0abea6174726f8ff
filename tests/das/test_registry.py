"""Records of estimators, probes and families: what doesn't go together is refused, and names have one holder."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from das import registry
from das.activations import Activations
from das.config import BuildConfig
from das.errors import ExtensionError, IndexFormatError, SettingsError
from das.methods import ACTIVATION, METHODS, PROBES, Method
from das.probes import direction_of
from das.registry import Extension, Family, Probe, Registry

ROOT = Path(__file__).parents[2]


def unsound(products: np.ndarray, colour: np.ndarray) -> np.ndarray:
    return products * colour


def leveraged(products: np.ndarray, leverage: np.ndarray) -> np.ndarray:
    return products / (1 - leverage)


def repeated(products: np.ndarray, repeats: np.ndarray) -> np.ndarray:
    return products * repeats


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "Upper Case"}, "small letters"),
        ({"name": "x" * 41}, "small letters"),
        ({"score": unsound}, r"score of \(products, colour\)"),
        ({"score": leveraged, "form": "none"}, "no kernel, and so no leverage"),
        ({"score": repeated, "form": "none", "compares": "clip"}, "norms and query_norms only"),
        ({"probes": None}, "squared scores and a kernel"),
        ({"probes": ("loss", "mean"), "squared": True, "form": "none"}, "squared scores and a kernel"),
        ({"probes": ()}, "names no probe"),
    ],
)
def test_a_record_whose_parts_dont_go_together_is_refused(options: dict, message: str) -> None:
    with pytest.raises(ExtensionError, match=message):
        Method(**{"name": "own", "formula": "", "score": repeated, **options})


def test_scores_of_another_shape_are_refused() -> None:
    method = Method("own", "", lambda products, repeats: products.sum(1))
    with pytest.raises(ExtensionError, match=r"'own' made scores of shape \(2,\) from products of \(2, 3\)"):
        method.scores(np.ones((2, 3)), {"repeats": np.ones(3)})


@pytest.mark.parametrize(
    "taken", [METHODS[1], Probe("loss", "elsewhere:loss"), Family("FluxPipeline", "elsewhere:Flux")]
)
def test_a_name_that_das_has_is_refused_and_nothing_of_the_extension_is_kept(taken) -> None:
    found = Registry()
    before = found.names(type(taken))
    fresh = Probe("fresh", "elsewhere:fresh")
    with pytest.raises(ExtensionError, match=f"late 2 .* {taken.name!r}, which das-attribution has already"):
        found.install(Extension("late", "2", [fresh, taken]))
    assert found.names(type(taken)) == before
    assert found.find(Probe, "fresh") is None


def test_a_name_that_another_extension_has_is_refused() -> None:
    found = Registry()
    found.install(Extension("early", "1", [Probe("fresh", "early:fresh")]))
    with pytest.raises(ExtensionError, match="which early 1 has already"):
        found.install(Extension("late", "2", [Probe("fresh", "late:fresh")]))
    with pytest.raises(ExtensionError, match="brings the probe 'own', which twice 3 has"):
        found.install(Extension("twice", "3", [Probe("own", "a:b"), Probe("own", "a:c")]))


def test_every_probe_and_family_of_das_is_where_its_record_says() -> None:
    assert direction_of("random").__name__ == "random"
    for name in PROBES:
        found = registry.resolve(registry.probe(name).direction, name, None)
        assert found is Activations if name == ACTIVATION else callable(found)
    for name in registry.families():
        family = registry.family(name)
        assert family is not None
        assert registry.resolve(family.adapter, name, None).parts


def test_names_that_arent_there_are_answered_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="There is no method 'trac'; there are das-block, das, trak"):
        registry.method("trac")
    with pytest.raises(SettingsError, match="There is no probe 'losses'; there are loss, mean"):
        registry.probe("losses")
    with pytest.raises(ValueError, match="There is no method 'trac'"):
        BuildConfig(name="a", model="m", works=tmp_path, methods=("trac",))
    with pytest.raises(
        IndexFormatError, match="here needs the method 'spread' of the extension gone 1, which isn't"
    ):
        registry.require("method", "spread", "gone", "1", needed_by="here")


def test_every_method_is_documented() -> None:
    page = (ROOT / "docs" / "method.md").read_text()
    for method in METHODS:
        assert f"| `{method.name}`" in page
        assert f"| {method.formula} |" in page


def test_records_are_known_without_torch() -> None:
    script = "import sys, das.registry; das.registry.methods(); print('torch' in sys.modules)"
    told = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert told.stdout.strip() == "False"


def test_a_signed_and_a_squared_method_dont_share_a_kernel_whose_damping_is_chosen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = Registry()
    found.install(Extension("own", "1", [Method("own", "", repeated, squared=True)]))
    monkeypatch.setattr(registry, "_REGISTRY", found)
    options = {"name": "a", "model": "m", "works": tmp_path}
    with pytest.raises(ValueError, match="trak and own read one kernel"):
        BuildConfig(**options, methods=("trak", "own"))
    assert len(BuildConfig(**options, methods=("trak", "own"), damping=0.1).kernels) == 2
    assert BuildConfig(**options, methods=("own", "das-block", "das")).kernels[0].form == "mean"
