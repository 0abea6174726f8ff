"""The arrows between packages, what stays light, and what the repository must not contain."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "das": set(),
    "measure": {"das"},
    "index_build": {"das", "jobs"},
    "jobs": set(),
    "worker": {"das", "jobs"},
    "app": {"das", "jobs"},
    "demo": {"das", "measure", "index_build", "jobs", "worker", "app"},
    "client": set(),
}
# What jobs shares with das: the base class of errors that are meant for a person, how numbers of things are told, and
# how files are written.
SHARED = {"das.errors", "das.durable", "das.plurals"}
# Made by client/generate.py.
GENERATED = {ROOT / "client" / "das_client" / "models.py"}
HEAVY = ("torch", "torchvision", "open_clip", "faiss", "diffusers", "transformers", "peft")
SOURCES = sorted(path for package in ALLOWED for path in (ROOT / package).rglob("*.py"))


def imported_modules(path: Path) -> set[str]:
    """Every module that a file imports, at its top or inside a function."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the direction"
            found.add(str(node.module))
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_arrows(path):
    package = path.relative_to(ROOT).parts[0]
    ours = {m for m in imported_modules(path) if m.split(".")[0] in ALLOWED and m not in SHARED}
    wrong = {m for m in ours if m.split(".")[0] not in ALLOWED[package] | {package}}
    assert not wrong, f"{package} must not import {wrong}"


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if p.relative_to(ROOT).parts[0] == "app"], ids=lambda p: p.name
)
def test_the_app_never_imports_the_gradient_engine(path):
    engine = {"das.gradients", "das.layers", "das.attribution", "das.models", "das.kernel", "das.sketch"}
    assert not {m for m in imported_modules(path) if any(m == e or m.startswith(e + ".") for e in engine)}


@pytest.mark.parametrize("path", sorted((ROOT / "app" / "routes").glob("*.py")), ids=lambda p: p.name)
def test_no_route_imports_a_route(path):
    """What two routes have in common is a use case, in app/questions.py, or a part beside it."""
    assert not {module for module in imported_modules(path) if module.startswith("app.routes")}


@pytest.mark.parametrize(
    "module",
    [
        "das",
        "das.config",
        "das.registry",
        "das.index",
        "das.works",
        "das.images",
        "app.main",
        "jobs.store",
        "das.cli",
    ],
)
def test_importing_it_stays_light(module):
    script = f"import sys, {module}; print([m for m in {HEAVY!r} if m in sys.modules])"
    told = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert told.stdout.strip() == "[]"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_fit_in_the_head(path):
    assert len(path.read_text().splitlines()) <= 500 or path in GENERATED
    assert path.stem not in {"utils", "helpers", "manager", "misc", "common"}


def test_only_settings_reads_the_environment():
    readers = [
        str(path.relative_to(ROOT))
        for path in SOURCES
        if {"environ", "getenv"}
        & {n.attr for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Attribute)}
    ]
    # A child process gets its parent's environment, which takes naming it; nothing is read from it. The variables of
    # `jobs/tracing.py` are OpenTelemetry's own, that of `worker/__main__.py` is OpenMP's.
    assert set(readers) <= {
        "jobs/settings.py",
        "jobs/secret_files.py",
        "jobs/tracing.py",
        "app/serve.py",
        "demo/check.py",
        "jobs/process.py",
        "das/confined.py",
        "worker/__main__.py",
        "client/das_client/address.py",
    }


def test_the_results_hold_figures_pages_and_truths_and_no_programs():
    results = ROOT / "docs" / "results"
    kinds: dict[bool, set[str]] = {True: set(), False: set()}
    for path in filter(Path.is_file, results.rglob("*")):
        kinds[path.is_relative_to(results / "truths")].add(path.suffix)
    assert kinds[False] == {".json", ".md", ".svg", ".png"}
    assert kinds[True] == {".json", ".npz", ".safetensors"}


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-gpu.lock"])
def test_locks_are_exact_and_name_no_host(lock):
    lines = [line for line in (ROOT / lock).read_text().splitlines() if line and not line.startswith("#")]
    assert len(lines) > 50
    for line in lines:
        assert "==" in line, line
        assert "://" not in line, line
        assert " @ " not in line, line


def test_the_two_locks_differ_only_in_faiss_and_its_libraries():
    cpu, gpu = (
        set((ROOT / f).read_text().splitlines()) for f in ("requirements.lock", "requirements-gpu.lock")
    )
    assert {line.split("==")[0] for line in cpu - gpu} == {"faiss-cpu"}
    assert all(line.startswith(("faiss-gpu==", "nvidia-")) for line in gpu - cpu)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_are_renamed_and_locked_in_one_place(path):
    # The client has none of das.
    if path == ROOT / "das" / "durable.py" or path.is_relative_to(ROOT / "client"):
        return
    tree = ast.parse(path.read_text())
    called = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    renaming = [
        node.lineno
        for node in called
        if isinstance(node.func, ast.Attribute)
        # With one argument `replace` is a path's; a string's takes two and a record's takes names.
        and (
            node.func.attr == "rename"
            or (node.func.attr == "replace" and len(node.args) == 1 and not node.keywords)
        )
    ]
    assert not renaming, f"lines {renaming}: das.durable renames what has to survive a crash"
    assert "fcntl" not in imported_modules(path), "das.durable holds locks"


@pytest.mark.parametrize("room", ["das/methods.py", "das/durable.py", "app/questions.py", "measure/cli"])
def test_each_idea_has_its_room(room):
    assert (ROOT / room).exists()


def test_no_two_test_modules_have_one_name():
    names = [
        path.name
        for path in (ROOT / "tests").rglob("*.py")
        if path.name not in ("conftest.py", "__init__.py")
    ]
    assert sorted(names) == sorted(set(names))


def test_what_tests_share_is_in_no_test():
    """A file of tests may be parted or renamed by who works on what it tests, and breaks no other."""
    shared = {
        f"{path.relative_to(ROOT)}: {module}"
        for path in (ROOT / "tests").rglob("*.py")
        for module in imported_modules(path)
        if module.split(".")[0] == "tests" and module.split(".")[-1].startswith("test_")
    }
    assert not shared
