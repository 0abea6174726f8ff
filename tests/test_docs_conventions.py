"""The tables of conventions and of the service's contract name a test for each, and every one of them is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = {name: (ROOT / "docs" / name).read_text() for name in ("conventions.md", "service.md")}
NAMED = [named for page in PAGES.values() for named in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page)]


def rows() -> list[str]:
    lines = [line for page in PAGES.values() for line in page.splitlines() if line.startswith("| ")]
    return [line for line in lines if line not in ("| convention | test |", "| promise | test |")]


@pytest.mark.parametrize("row", rows())
def test_every_row_has_a_test(row: str) -> None:
    assert re.search(r"\| `tests/[\w/]+\.py::test_\w+` \|$", row)


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_the_test_is_there_and_asserts_something(file: str, name: str) -> None:
    """By itself, or by what compares a model with merged weights."""
    found = [node for node in ast.parse((ROOT / file).read_text()).body if isinstance(node, ast.FunctionDef)]
    (test,) = [node for node in found if node.name == name]
    calls = {
        ast.unparse(node.func).rpartition(".")[2] for node in ast.walk(test) if isinstance(node, ast.Call)
    }
    asserts = any(isinstance(node, ast.Assert) for node in ast.walk(test))
    assert asserts or calls & {"raises", "compare", "agree"}


def test_every_kind_of_what_people_bring_is_in_it() -> None:
    assert len(NAMED) == len(rows()) == len(set(NAMED))
    for word in (
        "A1111",
        "ComfyUI",
        "Fooocus",
        "InvokeAI",
        "NovelAI",
        "kohya",
        "ai-toolkit",
        "OneTrainer",
        "parquet",
    ):
        assert word in PAGES["conventions.md"]
