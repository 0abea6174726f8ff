"""The Dockerfile by the rules that hadolint has, since no Docker engine may be assumed where tests run."""

import json
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "docker" / "Dockerfile"
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|_KEY\b|PRIVATE", re.IGNORECASE)


@dataclass(frozen=True)
class Instruction:
    """One instruction, its lines put together."""

    name: str
    rest: str


def instructions(text: str) -> list[Instruction]:
    """The instructions of a Dockerfile in their order, without comments."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [
        Instruction(word.upper(), rest.strip())
        for line in joined.splitlines()
        if line.strip()
        for word, _, rest in [line.strip().partition(" ")]
    ]


def objections(text: str) -> list[str]:
    """What hadolint would object to, as far as it is looked for here."""
    found: list[str] = []
    stages: set[str] = set()
    user: dict[str, str] = {}
    stage = ""
    arguments: dict[str, str] = {}
    for step in instructions(text):
        if step.name == "ARG":
            name, _, value = step.rest.partition("=")
            arguments[name] = value
        if step.name == "FROM":
            source, _, stage = step.rest.partition(" AS ")
            for name, value in arguments.items():
                source = source.replace(f"${{{name}}}", value)
            if source not in stages:
                tag = source.rpartition(":")[2] if ":" in source else ""
                if not tag or tag.startswith("latest"):
                    found.append(f"DL3006/DL3007 {source} has no tag, or latest")
                elif not re.match(r"\d+\.\d+", tag):
                    found.append(f"{source} isn't pinned to a version")
            user[stage] = user.get(source, "root")
            stages.add(stage)
        if step.name == "USER":
            user[stage] = step.rest
        if step.name == "RUN":
            if "apt-get install" in step.rest and "rm -rf /var/lib/apt/lists" not in step.rest:
                found.append("DL3009 apt's lists are left")
            if "apt-get install" in step.rest and "--no-install-recommends" not in step.rest:
                found.append("DL3015 apt installs what is only recommended")
            if "pip install" in step.rest and step.rest.count("pip install") > step.rest.count(
                "--no-cache-dir"
            ):
                found.append("DL3042 pip's cache is left")
            if "sudo" in step.rest.split():
                found.append("DL3004 sudo")
        if step.name in ("CMD", "ENTRYPOINT") and not step.rest.startswith("["):
            found.append(f"DL3025 {step.name} isn't in exec form")
        if step.name in ("ENV", "ARG") and SECRET.search(step.rest.partition("=")[0]):
            found.append(f"a secret in {step.name} {step.rest}")
        if step.name == "ADD":
            found.append("DL3020 ADD for COPY")
        if step.name == "WORKDIR" and not step.rest.startswith("/"):
            found.append("DL3000 a relative WORKDIR")
        if step.name == "MAINTAINER":
            found.append("DL4000 MAINTAINER")
    found += [
        f"DL3002 {name} ends as root" for name, who in user.items() if who == "root" and name != "packages"
    ]
    return found


def test_the_dockerfile_has_nothing_to_object_to() -> None:
    assert objections(DOCKERFILE.read_text()) == []


@pytest.mark.parametrize(
    ("text", "objection"),
    [
        ("FROM python:latest AS a\nUSER x", "DL3006/DL3007"),
        ("FROM python AS a\nUSER x", "DL3006/DL3007"),
        ("FROM python:slim AS a\nUSER x", "isn't pinned"),
        ("FROM python:3.12 AS a\nRUN apt-get install -y x\nUSER x", "DL3009"),
        ("FROM python:3.12 AS a\nRUN pip install \\\n x\nUSER x", "DL3042"),
        ("FROM python:3.12 AS a\nUSER x\nCMD das serve", "DL3025"),
        ("FROM python:3.12 AS a\nENV DAS_SESSION_SECRET=x\nUSER x", "a secret"),
        ("FROM python:3.12 AS a", "DL3002 a ends as root"),
        ("FROM python:3.12 AS a\nUSER x\nFROM a AS b\nUSER root", "DL3002 b ends as root"),
    ],
)
def test_what_is_wrong_is_objected_to(text: str, objection: str) -> None:
    assert any(objection in said for said in objections(text)), objections(text)


def test_every_package_of_the_project_is_in_the_image() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    copied = {step.rest.split()[0] for step in instructions(DOCKERFILE.read_text()) if step.name == "COPY"}
    assert set(packages) <= copied
    extras = project["project"]["optional-dependencies"]
    installed = [s.rest for s in instructions(DOCKERFILE.read_text()) if s.name == "RUN" and '".[' in s.rest]
    assert len(installed) == 1
    named = re.search(r"\.\[([^\]]*)\]", installed[0])
    assert named is not None
    asked = set(named[1].replace("${FAISS}", "cpu").split(","))
    assert asked <= set(extras)
    # Nothing of the tools of development or the demo's photographs.
    assert not asked & {"dev", "demo"}


def test_the_api_says_by_readyz_whether_it_is_well_and_a_worker_has_no_port() -> None:
    text = DOCKERFILE.read_text()
    worker, api = text.index("AS worker"), text.index("AS api")
    assert "HEALTHCHECK NONE" in text[worker:api]
    assert "/readyz" in text[api:]
    assert json.loads(instructions(text)[-1].rest) == ["das", "serve", "--no-worker"]


def test_secrets_do_not_get_into_the_build() -> None:
    ignored = (ROOT / "docker" / "Dockerfile.dockerignore").read_text().split()
    assert {".env", "secrets", ".git", "var"} <= set(ignored)
    assert {".env", "/secrets/"} <= set((ROOT / ".gitignore").read_text().split())
