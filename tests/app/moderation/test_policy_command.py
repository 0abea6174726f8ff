"""`das policy check`."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.examples import ATTRIBUTION
from das.cli import build_app
from das.errors import DasError
from tests.app.moderation.answers import answer

EXAMPLE = Path(__file__).parents[3] / "docs" / "policies" / "publish.yaml"


def run(*words: str | Path) -> str:
    done = CliRunner().invoke(build_app(), ["policy", "check", *map(str, words)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0
    return done.stdout


def test_a_policy_is_said_in_words():
    said = run(EXAMPLE).splitlines()
    assert said[0] == "publish: What our model makes, before it is published"
    assert said[1].startswith("- known-copy: block, where the copy verdict is copy.")
    assert (
        "Where no rule fires, none lacks what it needs, and the model likely made the picture: clear." in said
    )


def test_an_answer_is_decided_about(tmp_path):
    path = tmp_path / "answer.json"
    path.write_text(answer().model_dump_json(by_alias=True))
    said = run(EXAMPLE, "--answer", path)
    assert f"{ATTRIBUTION['id']}: Review: somebody has to look. (leans-on-one-work)" in said
    assert "- leans-on-one-work (review): The first work's share: 40 % (the rule asks: at least 20 %)" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("policy: p", "/rules (line 1) is missing."),
        (
            "policy: p\nrules: 1\ncolour: red",
            "/rules (line 2) has to be a list.\n  /colour (line 3) isn't known here",
        ),
        ("[", "isn't YAML"),
    ],
)
def test_every_mistake_is_told_with_its_place(tmp_path, text, said):
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    with pytest.raises(DasError) as caught:
        run(path)
    assert str(caught.value).startswith(f"{path} can't be used as a policy:\n  ")
    assert said in str(caught.value)


def test_files_that_are_not_there_or_something_else(tmp_path):
    with pytest.raises(DasError, match="none can't be read: No such file"):
        run(tmp_path / "none")
    with pytest.raises(DasError, match="can't be read: Is a directory"):
        run(tmp_path)
    (tmp_path / "answer.json").write_text(json.dumps({"id": 1}))
    with pytest.raises(DasError, match="isn't an answer of /v1/attributions"):
        run(EXAMPLE, "--answer", tmp_path / "answer.json")
