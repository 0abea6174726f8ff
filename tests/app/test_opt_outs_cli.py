"""`das opt-outs` as a command, on a database of its own."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.spreadsheets import cell
from das.cli import build_app
from das.errors import DasError, SettingsError
from das.index import AttributionIndex
from jobs.audit import Actor
from jobs.database import Database, upgrade
from jobs.opt_outs import NewOptOut, OptOut, OptOuts
from jobs.settings import Settings, get_settings


@pytest.fixture
def settings(tmp_path: Path, tiny_index: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    monkeypatch.setenv("DAS_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("DAS_INDEX_DIR", str(tiny_index))
    monkeypatch.setenv("COLUMNS", "300")
    get_settings.cache_clear()
    upgrade(get_settings())
    yield get_settings()
    get_settings.cache_clear()


@pytest.fixture
def received(settings: Settings) -> Callable[..., OptOut]:
    opt_outs = OptOuts(Database(settings, pooled=False))

    def received(**about: object) -> OptOut:
        wanted = NewOptOut(owner="key_a", index_name="tiny", contact="a@b.c", **about)  # type: ignore[arg-type]
        return opt_outs.create(wanted, Actor("das_a"), hide=False).opt_out

    return received


def das(*words: str) -> Result:
    return CliRunner().invoke(build_app(), ["opt-outs", *words])


def test_an_operator_goes_through_them(
    settings: Settings, received: Callable[..., OptOut], tiny_index: Path
) -> None:
    index = AttributionIndex.open(tiny_index)
    name = next(filter(None, index.works.creators))
    one, other = received(works=[index.works.id_of(2), "w_gone"]), received(creator=name)
    assert list(csv.DictReader(io.StringIO(das("export").output))) == []
    assert f"{one.id} is verified" in das("verify", one.id).output
    (row,) = csv.DictReader(io.StringIO(das("export").output))
    assert (row["index"], row["work_id"], row["opt_out"]) == ("tiny", index.works.id_of(2), one.id)
    assert row["sha256"] == index.works.row(2)["digest"]
    das("verify", other.id)
    applied = das("apply", other.id, "--left-out", "2026-02-03")
    assert "applied: left out since 2026-02-03." in applied.output
    still = index.works.creators.count(name)
    assert f"But {index.id}, as it is in DAS_INDEX_DIR now, still has {still} works of it" in applied.stderr
    lines = [json.loads(line) for line in das("export", "--json").output.splitlines()]
    assert sum(line["opt_out"] == other.id for line in lines) == index.works.creators.count(name)
    listed = [json.loads(line) for line in das("list", "--json", "--state", "applied").output.splitlines()]
    assert [(row["id"], row["hidden"], row["contact"]) for row in listed] == [(other.id, True, "a@b.c")]
    assert "token_digest" not in listed[0]
    assert one.id in das("list").output
    refused = das("reject", other.id, "--reason", "late")
    assert isinstance(refused.exception, DasError)
    assert "it is applied" in str(refused.exception)


@pytest.mark.parametrize("text", ["tomorrow", "2999-01-01", "", "0001-01-01T00:00+14:00", "2026-13-01"])
def test_a_moment_that_is_none(received: Callable[..., OptOut], text: str) -> None:
    refused = das("apply", received(creator="x").id, "--left-out", text)
    assert isinstance(refused.exception, SettingsError)
    assert "--left-out" in str(refused.exception)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@a", "\t=1", " =1", "＝1", "\r=1"])
def test_no_cell_is_a_formula(text: str) -> None:
    assert cell(text) == f"'{text}"
    assert cell("a=1") == "a=1"
    assert (cell(None), cell(-1.5)) == ("", "-1.5")
