"""The distribution: what is made of other files is current, it is light, and both clients can do the same."""

import inspect
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import das_client
import generate
from das_client import AsyncClient, Client, models

ROOT = Path(__file__).parents[2]
HEAVY = ("das", "app", "torch", "numpy", "fastapi", "starlette", "typer")


def test_what_is_made_of_other_files_is_current():
    for path, content in generate.generated().items():
        assert path.read_text(encoding="utf-8") == content, f"{path.name}: run python client/generate.py"


def test_importing_it_stays_light():
    script = (
        "import sys, das_client, das_client.cli, das_client.das_commands;"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    told = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": "client"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.strip() == "[]"


def test_it_needs_httpx_and_pydantic_alone():
    project = tomllib.loads((ROOT / "client" / "pyproject.toml").read_text())["project"]
    assert {need.partition(">")[0] for need in project["dependencies"]} == {"httpx", "pydantic"}
    whole = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == whole["version"]


def test_both_clients_have_the_same_methods_with_the_same_arguments():
    def described(kind):
        members = {
            name: value
            for part in reversed(kind.__mro__[:-1])
            for name, value in vars(part).items()
            if not name.startswith("_") and name not in ("close", "aclose")
        }
        return {name: list(inspect.signature(value).parameters) for name, value in members.items()}

    assert described(Client) == described(AsyncClient)
    assert len(described(Client)) > 50


def test_the_wheel_has_the_types_and_the_commands(tmp_path):
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path],
        cwd=ROOT / "client",
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = tmp_path.glob("das_client-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (entries,) = [archive.read(name).decode() for name in names if name.endswith("entry_points.txt")]
    assert "das_client/py.typed" in names
    assert {name.split("/")[0] for name in names if not name.startswith("das_client-")} == {"das_client"}
    assert "das-client = das_client.cli:main" in entries
    assert "client = das_client.das_commands:register" in entries


def test_what_this_version_does_not_know_is_kept():
    told = {"id": "k", "prefix": "das_k", "kind": "robot", "name": "n",
            "rights_holders": [], "state": "paused", "scopes": ["fly"],
            "created_at": "2026-01-31T12:00:00Z", "colour": "red"}  # fmt: skip
    key = models.Key.model_validate(told)
    assert (key.kind, key.state, key.scopes, key.expires_at) == ("robot", "paused", ["fly"], None)
    assert key.model_dump(mode="json")["colour"] == "red"


def test_every_public_name_is_there():
    for name in das_client.__all__:
        assert getattr(das_client, name) is not None


@pytest.mark.parametrize("name", ["copy"])
def test_a_field_that_pydantic_has_a_method_for_is_written_by_its_own_name(name):
    document = {"verdict": "none", "method": "pdq", "mirrored": False, "score": 0.5}
    part = models.Lookalike.model_validate(
        {"work_id": "w", "similarity": 0.5, name: {**document, "verdict": "near"}}
    )
    assert part.copied is not None
    assert part.copied.verdict == "near"
    assert part.model_dump(by_alias=True)[name]["verdict"] == "near"
