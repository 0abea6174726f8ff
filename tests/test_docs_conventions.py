"""The table of conventions names a test for each, and every one of them is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "conventions.md").read_text()
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)


def rows() -> list[str]:
    return [line for line in PAGE.splitlines() if line.startswith("| ") and line != "| convention | test |"]


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
        assert word in PAGE
