"""Every code block of the documentation is run, in the order in which a reader meets it, and gives what it shows.

A page is followed from its top in a folder of its own, in which the names that the pages use lie ready: `PIPELINE`
(a diffusion model), `FOLDER` (its works), `index/` where the page doesn't build it, and so on. What can't be run in
a test is in `NOT_RUN` with the reason, and numbers that would take hours are in `SMALLER`.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2 as httpx
import numpy as np
import pytest
from documents import PAGES, ROOT, Block, blocks, commands, indented_blocks
from PIL import Image

from app.moderation.policy import read_policy

PATIENCE_S = 300
BIN = Path(sys.executable).parent
SERVICE = re.compile(r"(\w+=\S+ )*das serve\b")
NAMED_FILE = re.compile(r"# ([\w/]+\.\w+)\n")
"""How a block begins that is a file: with its name in a comment."""
DOCUMENTED_ADDRESS = "http://127.0.0.1:8000"

NOT_RUN = {
    "make demo": "runs until it is ended; tests/demo and `das demo --check` do the same",
    "make setup": "has been run where this test runs",
    "make setup && . .venv/bin/activate": "the same; the reader's PATH has das already",
    "export DAS_DATABASE_URL=postgresql+psycopg://das@db/das DAS_REDIS_URL=redis://:PASSWORD@queue:6379/0"
    " DAS_BLOB_URL=s3://bucket/das": "names servers that aren't here; tests/jobs start real ones",
    "das serve --no-worker --index /srv/index": "takes two machines; tests/app runs it beside a worker",
    "DAS_DEVICE=cuda:0 DAS_INDEX_DIR=/srv/index das worker": "needs a GPU",
    "das build-worker --device cpu": "needs a broker; tests/index_build/test_cluster.py runs it",
    "das build --distributed --model PIPELINE --works FOLDER --out shared/": "the same",
    "das build-status shared/": "the same",
    "das build --distributed --exchange s3://bucket/builds --model PIPELINE --works FOLDER --out index/": "the same",
    "das build-status index/ --exchange s3://bucket/builds": "the same",
    "das index remove /srv/indexes/photographs --creator Hokusai --out /srv/indexes/photographs-2": (
        "names a folder that isn't here; the page's other removals run"
    ),
    "das index approximate index/ --out index-approximate/": (
        "takes a thousand works; tests/index_build/test_approximating.py has them"
    ),
    "das index push index-2/ s3://bucket/indexes": "names a bucket; tests/index_build/test_storage.py has one",
    "das index mirror s3://bucket/indexes /srv/indexes --every 60": "the same",
    "make test": "runs this test",
    "make test-long": "takes an hour",
    "npx -p typescript@5 -p openapi-typescript openapi-typescript http://127.0.0.1:8000/openapi.json -o das.ts": (
        "needs npm and its registry"
    ),
    "curl -s -X POST http://127.0.0.1:8000/v1/attributions/att_0193a6c1f3d07e52b3a1c5d4e6f70819/shares"
    """ -H 'Content-Type: application/json' -d '{"leave_out": ["picture"], "works": 5}'""": (
        "an answer that isn't here; tests/app does it"
    ),
    "das-client ask generation.png --top 5": "needs das-client installed; tests/client runs it",
    "das opt-outs verify opt_0193a6c1f3d07e52b3a1c5d4e6f70819": "an opt-out that isn't here; tests/app does it",
    "das opt-outs apply opt_0193a6c1f3d07e52b3a1c5d4e6f70819 --left-out 2026-02-03": "the same",
    "DAS_C2PA_CERTIFICATE_FILE=chain.pem DAS_C2PA_KEY_FILE=signer.pem das serve --index index/": (
        "needs a certificate; tests/app/test_report_pdf.py makes one"
    ),
    "das report verify report.pdf --trust root.pem": "the same",
    "docker compose run --rm api das keys create NAME --scope ask --scope read": "needs Docker",
    "docker compose up --detach": "the same",
    "OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318 das serve --index index/": (
        "names a collector that isn't here; tests/jobs/test_tracing.py runs one"
    ),
    "mkdir -m 700 backup": "tests/jobs/test_backups.py runs these, and restores",
    'python -c "import sqlite3;'
    " sqlite3.connect('var/das.sqlite3').backup(sqlite3.connect('backup/das.sqlite3'))\"": "the same",
    "cp -r var/blobs var/*.key backup/": "the same",
    'pg_dump --format=custom --file=backup/das.dump "$DATABASE"': "the same",
    'pg_restore --no-owner --exit-on-error --dbname="$DATABASE" backup/das.dump': "the same",
    "mkdir -m 700 var": "the same",
    "cp -r backup/blobs backup/*.key var/": "the same",
    "das-client batch FOLDER --out results.jsonl": "the same",
}
"""Commands of the pages that no test runs, each with the reason."""

SMALLER = {
    "--count 1000 --subsets 36 --steps 600 --batch 32": "--count 12 --subsets 4 --steps 3 --batch 4"
    " --full-steps 4 --validation 4 --generated 0 --repeated 2 --width 8,16",
    "--rank 8 --steps 400": "--rank 8 --steps 3 --count 12 --subsets 4 --full-steps 4 --batch 4 --validation 4"
    " --generated 0 --repeated 2",
    "--cache features/ --checkpoint truth/checkpoints/step-000600": "--cache features/ --timesteps 2 --dimension 128"
    " --splits 2 --checkpoint truth/checkpoints/step-000002",
}
"""Parts of commands that train for hours, and what a test takes in their place."""

PAGE_WITH_REFERENCES = "README.md"
"""The page whose build makes its hundred reference generations, as a reader's does. They are most of a build of
tiny works, and nothing that the other pages show depends on them: those builds leave them out."""

TUNED = """
from pathlib import Path
import families, single_files
from diffusers import DiffusionPipeline
families.make_stable_diffusion(Path("sd"))
pipeline = DiffusionPipeline.from_pretrained("sd")
single_files.write(pipeline, Path("model.safetensors"))
pipeline.unet.save_pretrained("run/checkpoint-200/unet")
"""
"""What lies ready for the page about models: a small pipeline `sd/`, a single file, and a training run's folder."""

UNREAD = {
    "mermaid": "a drawing",
    "nginx": "another program's settings",
    "text": "formulas and listings",
    "typescript": "needs npm and its registry",
}
"""Languages of blocks that hold nothing to run."""

NOT_SOURCE = shutil.ignore_patterns(
    ".git", ".venv", "__pycache__", ".*_cache", ".hypothesis", "var", "build", "dist"
)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hub cache (HF_HOME) as after the download of the CLIP model that indexes screen with by default.

    The architecture is the real one; the weights, which nothing here depends on, are random.
    """
    import open_clip
    import torch
    from safetensors.torch import save_file

    home = tmp_path_factory.mktemp("hub")
    repository = home / "hub" / "models--laion--CLIP-ViT-B-32-laion2B-s34B-b79K"
    revision = "0" * 40
    snapshot = repository / "snapshots" / revision
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    shapes = open_clip.create_model("ViT-B-32", load_weights=False, device="meta").state_dict()
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: 0.02 * torch.randn(tensor.shape, generator=generator).half() for name, tensor in shapes.items()
    }
    save_file(weights, snapshot / "open_clip_model.safetensors")
    return home


class Reader:
    """Somebody who types what a page says, in a folder where the names that it uses lie ready."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self._environment = environment
        self._services: list[subprocess.Popen[bytes]] = []
        self._address: str | None = None

    def type(self, command: str) -> str:
        """Run a line of the shell; returns what it prints. A service goes on in the background."""
        if SERVICE.match(command):
            self._serve(command)
            return ""
        return self._run(["bash", "-euo", "pipefail", "-c", self._at_the_service(command)])

    def python(self, text: str) -> str:
        """Run a Python block; returns what it prints."""
        text = self._at_the_service(text)
        return self._run([sys.executable, "-W", "error::DeprecationWarning:__main__", "-c", text])

    def save(self, file: str, text: str) -> None:
        """Write a block that is a file's content."""
        (self.folder / file).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / file).write_text(text)

    def leave(self) -> None:
        for service in self._services:
            service.terminate()
        for service in self._services:
            service.wait(PATIENCE_S)

    def _at_the_service(self, text: str) -> str:
        """A command or program with the service's real address, which is started where none runs."""
        if DOCUMENTED_ADDRESS in text:
            if self._address is None:
                self._serve("das serve --index index/")
            text = text.replace(DOCUMENTED_ADDRESS, str(self._address))
        return text

    def _run(self, arguments: list[str]) -> str:
        done = subprocess.run(
            arguments,
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        assert done.returncode == 0, f"{arguments[-1]}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def _serve(self, command: str) -> None:
        log = self.folder / f"service-{len(self._services)}.log"
        with log.open("w") as stream:
            self._services.append(
                subprocess.Popen(
                    ["bash", "-c", f"exec env {command}"],
                    cwd=self.folder,
                    env=self._environment,
                    stdout=stream,
                    stderr=stream,
                )
            )
        deadline = time.monotonic() + PATIENCE_S
        while True:
            assert self._services[-1].poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            told = re.search(r"Open (http://\S+)", log.read_text())
            if told and httpx.get(told[1] + "/readyz", timeout=30).json()["ready"]:
                self._address = told[1]
                return
            time.sleep(0.2)


def make_own_runs(folder: Path, model: Path) -> None:
    """What somebody has who trained on three halves of six works and computed the losses."""
    pictures = np.random.default_rng(0).uniform(-1, 1, (9, 3, 16, 16)).astype(np.float32)
    for number in range(3):
        (folder / "models" / f"{number}").mkdir(parents=True)
        np.save(folder / "models" / f"{number}" / "members.npy", np.arange(3) + number)
        np.save(folder / "models" / f"{number}" / "losses.npy", np.array([0.1, 0.2, 0.3]) * (number + 1))
    np.savez(folder / "works.npz", images=pictures[:6])
    np.savez(folder / "queries.npz", images=pictures[6:])
    (folder / "pipeline").symlink_to(model)


def make_further_works(folder: Path) -> None:
    """Two pictures that the index doesn't have."""
    folder.mkdir()
    for number, pixels in enumerate(
        np.random.default_rng(2).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    ):
        Image.fromarray(pixels).save(folder / f"further-{number}.png")


@pytest.fixture
def reader(
    tmp_path: Path, hub: Path, tiny_model: Path, tiny_works: Path, tiny_index: Path
) -> Iterator[Callable[[Path], Reader]]:
    """A reader of a page. Who reads about contributing has a copy of the repository around them."""
    readers: list[Reader] = []

    def reader(page: Path) -> Reader:
        if page.name == "CONTRIBUTING.md":
            shutil.copytree(ROOT, tmp_path, ignore=NOT_SOURCE, dirs_exist_ok=True)
        (tmp_path / ".venv").symlink_to(sys.prefix)
        (tmp_path / "PIPELINE").symlink_to(tiny_model)
        (tmp_path / "FOLDER").symlink_to(tiny_works)
        shutil.copy(tiny_works / "work-011.png", tmp_path / "generation.png")
        if "--out index/" not in page.read_text():
            (tmp_path / "index").symlink_to(tiny_index)
        pictures = np.random.default_rng(0).integers(0, 256, (30, 16, 16, 3), dtype=np.uint8)
        np.savez(tmp_path / "pictures.npz", images=pictures)
        (tmp_path / "base").mkdir()
        (tmp_path / "base" / "pipeline").symlink_to(tiny_model)
        if page.name == "deployment.md":
            shutil.copy(ROOT / ".env.example", tmp_path)
        if page.name == "operations.md":
            make_own_runs(tmp_path / "own-runs", tiny_model)
            make_further_works(tmp_path / "MORE")
        if page.name == "moderation.md":
            shutil.copy(ROOT / "docs" / "policies" / "publish.yaml", tmp_path)
            (tmp_path / "queue").mkdir()
            shutil.copy(tiny_works / "work-011.png", tmp_path / "queue" / "first.png")
            noise = np.random.default_rng(1).integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(noise).save(tmp_path / "queue" / "second.png")
            whole = (tmp_path / "queue" / "second.png").read_bytes()
            (tmp_path / "queue" / "third.png").write_bytes(whole[: len(whole) // 2])
        if page.name == "models.md":
            (tmp_path / "made.py").write_text(TUNED)
            subprocess.run(
                [sys.executable, "made.py"],
                cwd=tmp_path,
                env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT}/tests/das"},
                check=True,
            )
        environment = {n: value for n, value in os.environ.items() if not n.startswith(("DAS_", "PYTEST_"))}
        environment |= {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "PYTHONPATH": str(tmp_path) if page.name == "CONTRIBUTING.md" else f"{ROOT}:{ROOT / 'client'}",
            "HOME": str(tmp_path / "home"),
            "HF_HOME": str(hub),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "DAS_TORCH_THREADS": "1",
            "DAS_PORT": "0",
            "NO_COLOR": "1",
        }
        readers.append(Reader(tmp_path, environment))
        return readers[-1]

    yield reader
    for one in readers:
        one.leave()


def all_blocks() -> list[Block]:
    return [block for page in PAGES for block in blocks(page)]


PAGES_WITH_CODE = [page for page in PAGES if {b.language for b in blocks(page)} - set(UNREAD)]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", PAGES_WITH_CODE, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_says_can_be_done(page, reader):
    someone = reader(page)
    for block in blocks(page):
        match block.language:
            case "console":
                for command in commands(block):
                    if without_comment(command.text) not in NOT_RUN:
                        printed = someone.type(smaller(command.text, page))
                        check_answer(command.text, printed)
                        assert_shown(command.shown, printed, f"{block.place}: {command.text}")
            case "python" if named := NAMED_FILE.match(block.text):
                someone.save(named[1], block.text)
                someone.python(f"import {module(named[1])}")
            case "python":
                someone.python(block.text)
            case "toml":
                tomllib.loads(block.text)
                if named := NAMED_FILE.match(block.text):
                    someone.save(named[1], block.text)
            case "json":
                json.loads(block.text)
            case "yaml":
                read_policy(block.text)
            case unread:
                assert unread in UNREAD


def module(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def without_comment(command: str) -> str:
    return command.split("  #")[0].strip()


def smaller(command: str, page: Path) -> str:
    for part, less in SMALLER.items():
        command = command.replace(part, less)
    if page.name != PAGE_WITH_REFERENCES:
        command = re.sub(r"^das build ", "das build --references 0 ", command)
    return command


def check_answer(command: str, printed: str) -> None:
    """A service's refusal is no success, though curl takes it for one; what is JSON has to be whole."""
    if command.startswith("curl") and printed:
        answer = json.loads(printed)
        assert answer.get("state") != "failed", printed
        assert not ({"type", "title", "status"} <= set(answer)), printed


def assert_shown(shown: str, printed: str, place: str) -> None:
    """What a block shows is what was printed; an ellipsis stands for anything."""
    if shown.strip():
        pattern = ".*".join(re.escape(part.strip()) for part in shown.strip().split("…"))
        assert re.fullmatch(pattern, printed.strip(), re.DOTALL), f"{place}\nprinted:\n{printed}"


@pytest.mark.parametrize("block", all_blocks(), ids=lambda block: block.place)
def test_every_block_names_a_language_that_is_tested(block):
    assert block.language in {"console", "python", "json", "toml", "yaml", *UNREAD}
    if block.language == "text":
        for line in block.text.splitlines():
            assert not re.match(r"\s*(\$|das|curl|make|import|from|python|pip|docker)\b", line), line


def test_no_block_is_only_indented():
    assert [place for page in PAGES for place in indented_blocks(page)] == []


def test_no_exception_is_left_over():
    told = [
        without_comment(c.text)
        for block in all_blocks()
        if block.language == "console"
        for c in commands(block)
    ]
    assert [command for command in NOT_RUN if command not in told] == []
    assert [part for part in SMALLER if not any(part in command for command in told)] == []


def test_one_page_builds_with_references_and_no_page_names_another_number_of_them():
    builds = [
        (block.page.name, command.text)
        for block in all_blocks()
        if block.language == "console"
        for command in commands(block)
        if command.text.startswith("das build ")
    ]
    assert [command for _, command in builds if "--references" in command] == []
    smallest = [smaller(command, ROOT / page) for page, command in builds]
    assert [
        page for (page, _), command in zip(builds, smallest, strict=True) if "--references" not in command
    ] == [PAGE_WITH_REFERENCES]


def test_the_console_of_a_page_is_read_as_commands_and_output(tmp_path):
    page = ROOT / "README.md"
    block = Block(page, 1, "console", "$ echo a \\\n    b\na b\n$ true")
    assert [(c.text, c.shown) for c in commands(block)] == [("echo a \\\n    b", "a b\n"), ("true", "")]
    assert_shown("a …\nz", "a b\nc\nz\n", "")
    with pytest.raises(AssertionError):
        assert_shown("a b", "a c", "")
