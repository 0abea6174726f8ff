"""An estimator, a probe and a model family from a package of one's own: the one that docs/extending.md shows.

It is written as an installed distribution lies on the disk, found by its entry point, and goes the whole way: an
index is built with it, asked as a library and through a running service. What happens without it is tested too.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import pytest

from das.errors import IndexFormatError
from das.index import AttributionIndex, verify_index
from tests.browser.conftest import Site
from tests.conftest import make_works

ROOT = Path(__file__).parents[2]
DAS = Path(sys.executable).with_name("das")
WORKS, DAMPING = 10, 0.1

MODEL = """
import sys, torch
from diffusers import DDPMPipeline
from my_attribution.parts import GreyPipeline
found = DDPMPipeline.from_pretrained(sys.argv[1])
GreyPipeline(found.unet, found.scheduler).save_pretrained(sys.argv[2])
"""

ASK = """
import json, sys
import numpy as np
from pathlib import Path
from PIL import Image
from das.attribution import Attributor
from das.gradients import FeatureConfig, FeatureExtractor
from das.index import AttributionIndex
index = AttributionIndex.open(sys.argv[1])
attributor = Attributor(index, threads=1)
pictures = [np.asarray(Image.open(path)) for path in sorted(Path(sys.argv[2]).glob("*.png"))]
config = FeatureConfig.of(index.manifest.config, ("sign",), index.manifest.timesteps)
features = FeatureExtractor(attributor.model, config).features(attributor.model.encode(pictures))
answer = attributor.attribute(pictures[0], top_k=len(index))
print(json.dumps({
    "family": attributor.model.family,
    "features": features.by_probe["sign"].double().tolist(),
    "scores": attributor.scores(pictures[:1])[0].tolist(),
    "extensions": [record.model_dump() for record in index.manifest.extensions],
    "method": answer.method,
}))
"""


def written_package(site: Path) -> Path:
    """The package of docs/extending.md, as pip would have laid it out in `site`."""
    text = (ROOT / "docs" / "extending.md").read_text()
    files = dict(re.findall(r"```(?:toml|python)\n# (\S+)\n(.*?)```", text, re.DOTALL))
    project = tomllib.loads(files.pop("pyproject.toml"))["project"]
    for name, body in files.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(body)
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    groups = project["entry-points"].items()
    (info / "entry_points.txt").write_text(
        "\n".join(
            f"[{group}]\n" + "\n".join(f"{name} = {value}" for name, value in entries.items())
            for group, entries in groups
        )
    )
    return site


def environment(site: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{site}"}


def run(site: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command], env=environment(site), capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_clip: Path) -> Path:
    """`site` with the package, a pipeline of its family in `model`, `works`, and `index`, built by `das build`."""
    folder = tmp_path_factory.mktemp("extension")
    written_package(folder / "site")
    make_works(folder / "works", WORKS)
    made = run(folder / "site", sys.executable, "-c", MODEL, tiny_model, folder / "model")
    assert made.returncode == 0, made.stderr
    command = [
        DAS,
        "build",
        "--model",
        folder / "model",
        "--works",
        folder / "works",
        "--out",
        folder / "index",
    ]
    command += ["--method", "spread", "--timesteps", "50,400", "--dimension", "48", "--damping", str(DAMPING)]
    command += ["--feature-dtype", "float32", "--clip-dir", tiny_clip]
    built = run(folder / "site", *command)
    assert built.returncode == 0, built.stderr
    return folder


@pytest.fixture(scope="module")
def told(folder: Path) -> dict[str, Any]:
    """What the library says of the first work's picture."""
    asked = run(folder / "site", sys.executable, "-c", ASK, folder / "index", folder / "works")
    assert asked.returncode == 0, asked.stderr
    found: dict[str, Any] = json.loads(asked.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[Site]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", environment(folder / "site")["PYTHONPATH"])
        site = Site(folder, folder / "index", folder / "works")
    yield site
    site.stop()


def test_the_library_gives_the_estimators_formula_over_the_probes_features(told: dict[str, Any]) -> None:
    raw = np.array(told["features"])
    averages = raw.mean(1)
    repeats = np.array([3.0 if row == 7 else 1.0 for row in range(WORKS)])
    kernel = averages.T @ np.diag(repeats) @ averages
    inverse = np.linalg.inv(kernel + DAMPING * np.trace(kernel) / repeats.sum() * np.eye(len(kernel)))
    leverage = np.einsum("ik,kl,il->i", averages, inverse, averages)
    expected = (averages[0] @ inverse @ averages.T * repeats) ** 2 / (1 + repeats * leverage)
    np.testing.assert_allclose(told["scores"], expected, rtol=2e-3, atol=1e-5 * expected.max())
    assert told["family"] == "grey"


def test_the_manifest_says_what_came_from_where(told: dict[str, Any]) -> None:
    brought = {"distribution": "my-attribution", "version": "1.2.0"}
    assert told["extensions"] == [
        {"kind": "method", "name": "spread", **brought},
        {"kind": "probe", "name": "sign", **brought},
        {"kind": "family", "name": "GreyPipeline", **brought},
    ]


def test_the_service_answers_with_it(site: Site, folder: Path, told: dict[str, Any]) -> None:
    (listed,) = httpx.get(f"{site.url}/v1/indexes", timeout=30).json()["items"]
    assert listed["methods"] == ["spread"]
    picture = min((folder / "works").glob("*.png"))
    response = httpx.post(
        f"{site.url}/v1/attributions",
        data={"method": "spread", "top_k": str(WORKS), "seed": "3"},
        files={"image": picture.open("rb")},
        headers={"Prefer": "wait=60"},
        timeout=90,
    )
    answer = response.json()
    assert (response.status_code, answer["state"], answer["method"]) == (200, "succeeded", "spread"), answer
    scores = sorted((work["score"] for work in answer["works"]), reverse=True)
    np.testing.assert_allclose(scores, sorted(told["scores"], reverse=True), rtol=1e-3)
    assert any("seed" in note for note in answer["notes"])


def test_an_index_opens_without_torch(folder: Path) -> None:
    script = "import sys; from das.index import AttributionIndex; AttributionIndex.open(sys.argv[1])"
    script += "; print('torch' in sys.modules, 'my_attribution.parts' in sys.modules)"
    assert run(folder / "site", sys.executable, "-c", script, folder / "index").stdout == "False False\n"


def test_without_the_extension_the_index_is_refused_naming_it(folder: Path) -> None:
    needs = (
        "index needs the method 'spread' of the extension my-attribution 1.2.0, which isn't there. Install it"
    )
    with pytest.raises(IndexFormatError, match=needs):
        AttributionIndex.open(folder / "index")
    assert needs in verify_index(folder / "index").damages[0].message


@pytest.fixture
def broken(folder: Path, tmp_path: Path) -> Path:
    """A copy of the package to break."""
    return Path(shutil.copytree(folder / "site", tmp_path / "broken"))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "import nowhere\n",
            "(my_attribution:register) can't be loaded: ModuleNotFoundError: No module",
        ),
        ("import torch\ndef register(extension):\n    pass\n", "imports torch when it registers"),
        (
            "from das.registry import Probe\ndef register(extension):\n    extension.add(Probe('loss', 'a:b'))\n",
            "brings the probe 'loss', which das-attribution has already",
        ),
    ],
    ids=["not importable", "heavy", "clashing"],
)
def test_a_broken_extension_is_named_to_whoever_needs_it(
    body: str, message: str, broken: Path, folder: Path
) -> None:
    (broken / "my_attribution" / "__init__.py").write_text(body)
    asked = run(broken, DAS, "query", min((folder / "works").glob("*.png")), "--index", folder / "index")
    assert asked.returncode == 2
    assert "The extension my-attribution 1.2.0" in asked.stderr
    assert message in asked.stderr
    assert f"{folder / 'index'} needs the method 'spread'" in asked.stderr
    assert "Traceback" not in asked.stderr
    # Whoever doesn't need it goes on.
    assert run(broken, DAS, "build", "--help").returncode == 0


def test_another_version_is_refused(broken: Path, folder: Path) -> None:
    (info,) = broken.glob("*.dist-info")
    metadata = info / "METADATA"
    metadata.write_text(metadata.read_text().replace("1.2.0", "1.3.0"))
    asked = run(broken, DAS, "index", "info", folder / "index")
    assert asked.returncode == 2
    assert (
        "was built with the method 'spread' of my-attribution 1.2.0; here it is that of my-attribution 1.3.0"
        in (asked.stderr)
    )


def test_a_probe_that_fails_is_named(broken: Path, folder: Path) -> None:
    parts = broken / "my_attribution" / "parts.py"
    parts.write_text(parts.read_text().replace(".sign() / point.output[0].numel()", ".flatten(1)"))
    picture = min((folder / "works").glob("*.png"))
    asked = run(broken, DAS, "query", picture, "--index", folder / "index")
    assert asked.returncode == 2
    assert "The probe 'sign' gave a direction of shape" in asked.stderr
    parts.write_text(parts.read_text().replace(".flatten(1)", ".colour"))
    asked = run(broken, DAS, "query", picture, "--index", folder / "index")
    assert "The probe 'sign' of the extension my-attribution 1.2.0 failed: AttributeError" in asked.stderr
