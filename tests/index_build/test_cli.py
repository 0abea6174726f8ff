import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from das.answer import NOT_IN_MODEL
from das.cli import build_app
from das.errors import SettingsError, WorksError
from das.manifest import NOT_MEASURED
from das.query import register as register_query
from index_build.cli import register
from tests.conftest import make_works

runner = CliRunner()


@pytest.fixture(scope="module")
def app() -> typer.Typer:
    cli = typer.Typer()
    register(cli)
    register_query(cli)
    return cli


def test_build_verify_and_query_from_the_command_line(
    app: typer.Typer, tiny_model: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    make_works(tmp_path / "works", 6)
    (tmp_path / "works/broken.png").write_bytes(b"broken")
    out = tmp_path / "My Index"
    command = ["build", "--model", str(tiny_model), "--works", str(tmp_path / "works"), "--out", str(out)]
    command += [
        "--clip-dir",
        str(tiny_clip),
        "--timesteps",
        "100,600",
        "--dimension",
        "32",
        "--method",
        "das",
    ]
    command += [
        "--method",
        "das-block",
        "--probe",
        "loss",
        "--probe",
        "random",
        "--shard-size",
        "4",
        "--json",
    ]
    result = runner.invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0
    said = json.loads(result.stdout)
    assert said["index"].startswith("my-index@")
    assert (said["state"], said["works"]) == ("built", 6)
    assert [entry["file"] for entry in said["unreadable"]] == ["broken.png"]
    assert set(said["seconds"]) == {"loading", "estimating", "gradients", "finishing", "references"}
    lines = [json.loads(line) for line in result.stderr.splitlines() if line.startswith("{")]
    assert lines[0] == {"message": "7 works, read as imagefolder"}
    assert next(line for line in lines if "stage" in line) == {
        "stage": "reading works",
        "done": 0,
        "total": 7,
        "elapsed_s": 0.0,
        "left_s": None,
    }
    assert [line["done"] for line in lines if line.get("stage") == "gradients"][-1] == 7
    assert any("7 works: about" in line.get("message", "") for line in lines)

    again = runner.invoke(app, command[:-1], catch_exceptions=False)
    assert again.exit_code == 0
    assert "is there already" in " ".join(again.stderr.split())

    verified = runner.invoke(app, ["index", "verify", str(out)], catch_exceptions=False)
    assert verified.exit_code == 0
    assert "all as they were built" in verified.stdout

    picture = str(tmp_path / "works/work-003.png")
    query = ["query", picture, "--index", str(out), "--top-k", "2", "--json"]
    answer = json.loads(runner.invoke(app, query, catch_exceptions=False).stdout)
    assert answer["method"] == "das"
    assert answer["works"][0]["title"] == "Study no. 3"
    assert answer["quality"] is None
    assert answer["notes"][-1] == NOT_MEASURED
    assert answer["in_model"]["references"] == 100
    assert NOT_IN_MODEL not in answer["notes"]
    screened = runner.invoke(
        app, [*query, "--candidates", "3", "--method", "das-block"], catch_exceptions=False
    )
    assert json.loads(screened.stdout)["candidates"] == {"mode": "screened", "count": 3}
    table = runner.invoke(app, query[:-1], catch_exceptions=False).stdout
    # A model of a few steps' training takes its works for its own or not by the processor's rounding.
    assert ("accounts for" in table) == (answer["in_model"]["verdict"] != "unlikely")
    assert table.count("│ Study no. ") == 2
    assert all(note in " ".join(table.split()) for note in answer["notes"])


def test_the_economical_preset_takes_no_gradient_and_a_kilobyte_a_work(
    app: typer.Typer, tiny_model: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    make_works(tmp_path / "works", 6)
    out = str(tmp_path / "index")
    command = ["build", "--model", str(tiny_model), "--works", str(tmp_path / "works"), "--out", out]
    command += ["--clip-dir", str(tiny_clip), "--preset", "economical"]
    assert runner.invoke(app, command, catch_exceptions=False).exit_code == 0
    info = json.loads(runner.invoke(app, ["index", "info", out, "--json"]).stdout)
    assert info["features"]["sets"] == ["activation"]
    assert (info["timesteps"], info["model"]["attributed_parameters"]) == ([100, 300, 500], 0)
    stored = sum(path.stat().st_size for path in Path(out, "features").rglob("*.npy"))
    assert stored < 6 * 1024 + 200  # and a scale for each in kernel.safetensors
    assert "parameters**: none; the features are" in Path(out, "card.md").read_text()
    query = ["query", str(tmp_path / "works/work-003.png"), "--index", out, "--json"]
    answer = json.loads(runner.invoke(app, query, catch_exceptions=False).stdout)
    assert answer["works"][0]["title"] == "Study no. 3"


def test_info_and_card(app: typer.Typer, tiny_index: Path) -> None:
    table = runner.invoke(app, ["index", "info", str(tiny_index)], catch_exceptions=False).stdout
    assert "das-block, das" in table
    assert "0, 333, 666" in table
    info = json.loads(runner.invoke(app, ["index", "info", str(tiny_index), "--json"]).stdout)
    assert info["id"] == f"tiny@{info['content_digest'][:6]}"
    assert info["works"]["count"] == 40
    card = runner.invoke(app, ["index", "card", str(tiny_index)]).stdout
    assert card == (tiny_index / "card.md").read_text()
    assert json.loads(runner.invoke(app, ["index", "card", str(tiny_index), "--json"]).stdout)["card"] == card


def test_verify_names_the_damaged_file_and_exits_with_one(
    app: typer.Typer, tiny_index: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(tiny_index, tmp_path / "copy"))
    path = copy / "thumbnails/shard-00001.bin"
    data = bytearray(path.read_bytes())
    data[10] ^= 4
    path.write_bytes(data)
    plain = runner.invoke(app, ["index", "verify", str(copy)])
    assert plain.exit_code == 1
    assert "thumbnails/shard-00001.bin" in plain.stdout
    found = json.loads(runner.invoke(app, ["index", "verify", str(copy), "--json"]).stdout)
    assert (found["ok"], [damage["file"] for damage in found["damages"]]) == (
        False,
        ["thumbnails/shard-00001.bin"],
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--timesteps", "few"], "--timesteps is 'few'"),
        (["--timesteps", "0"], "--timesteps is 0: .*at least one timestep"),
        (["--method", "guess"], "--method"),
        (["--damping", "-1"], "--damping is -1"),
        (["--damping", "nan"], "--damping is nan"),
        (["--damping", "inf"], "--damping is inf"),
        (["--prompt-dropout", "nan"], "--prompt-dropout is nan"),
        (["--seed", "9223372036854775808"], "--seed is 9223372036854775808"),
        (["--attributed", "("], "neither 'all' nor a regular expression"),
        (["--clip", "ViT-B-32"], "MODEL:PRETRAINED"),
        (["--feature-dtype", "int4"], "--feature-dtype is 'int4'"),
        (["--preset", "economical", "--attributed", "up-blocks"], "together: .*activations have none"),
        (["--checkpoint", "c"], "^these options don't go together: checkpoints are read by"),
    ],
)
def test_options_that_cant_be_used_are_named(app: typer.Typer, options: list[str], message: str) -> None:
    command = ["build", "--model", "m", "--works", "w", "--out", "o", *options]
    with pytest.raises(SettingsError, match=message):
        runner.invoke(app, command, catch_exceptions=False)


def numbers_in(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[Any, Any]]:
    """Every command's options that are numbers, but of `das build`, which BuildConfig reads."""
    for name, inner in getattr(command, "commands", {}).items():
        if (*path, name) != ("build",):
            yield from numbers_in(inner, (*path, name))
    for option in command.params:
        if option.type.name.split()[0] in ("float", "int", "integer"):
            yield command, option


def test_no_option_takes_a_number_that_is_none() -> None:
    tried = 0
    for command, option in numbers_in(typer.main.get_command(build_app())):
        if option.type.name.startswith("float"):
            values = ("nan", "inf", "-inf", "1e300")
        elif option.name == "seed":
            values = ("-1", str(2**63))
        else:
            continue
        for value in values:
            with pytest.raises(Exception, match=r"isn't a number|is not in the range"):
                option.process_value(command.context_class(command), value)
            tried += 1
    assert tried > 40


def test_works_that_arent_there_are_named(app: typer.Typer, tmp_path: Path) -> None:
    command = ["build", "--model", "owner/m", "--works", str(tmp_path / "w"), "--out", str(tmp_path / "o")]
    with pytest.raises(WorksError, match="don't exist"):
        runner.invoke(app, [*command, "--no-screening"], catch_exceptions=False)
    assert list(tmp_path.iterdir()) == []
