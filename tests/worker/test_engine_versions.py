"""Versions that come while an engine is loaded: opened beside the others, kept while they are asked, let go."""

import gc
import shutil
import weakref
from pathlib import Path

import numpy as np
import pytest
from celery.exceptions import SoftTimeLimitExceeded

from das.errors import ModelError, SettingsError
from das.index import WORKS_NAME, AttributionIndex
from index_build.changing import remove
from jobs.settings import Settings
from worker import engine as engine_module
from worker.engine import AttributionEngine


@pytest.fixture(scope="module")
def second(tiny_index: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version of the tiny index without three of its works."""
    out = tmp_path_factory.mktemp("versions") / "second"
    remove(AttributionIndex.open(tiny_index), np.arange(3), out)
    return out


@pytest.fixture
def settings(tiny_index: Path, tmp_path: Path) -> Settings:
    folder = tmp_path / "indexes"
    folder.mkdir()
    (folder / "first").symlink_to(tiny_index)
    return Settings(_env_file=None, data_dir=tmp_path / "data", index_dir=folder, torch_threads=1)


def test_the_one_before_stays_while_a_question_names_it(
    settings: Settings, tiny_index: Path, second: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, later = AttributionIndex.open(tiny_index).id, AttributionIndex.open(second).id
    engine = AttributionEngine(settings)
    assert engine.describe()["indexes"] == [first]
    assert not engine.due()
    (settings.index_dir / "second").symlink_to(second)
    assert engine.due()
    assert engine.keep_up({first})
    assert engine.describe()["indexes"] == sorted([first, later])
    one, other = engine._attributors[first], engine._attributors[later]
    assert one.model is other.model, "a version has the model of the one before"
    assert engine.due(), "nothing else tells when the last question that names the first has gone"
    assert not engine.keep_up({first})
    assert engine.due()
    assert not engine.keep_up(())
    assert not engine.due(), "its minute runs"

    monkeypatch.setattr(engine_module, "LINGER_S", 0.0)
    assert engine.due(), "its minute is over"
    assert not engine.keep_up({first})
    assert engine.due()
    old = weakref.ref(one)
    del one, other
    assert engine.keep_up(())
    gc.collect()
    assert engine.describe()["indexes"] == [later]
    assert old() is None, "its memory is free again"
    assert not engine.due()
    # A question of an API process that hadn't seen the new one yet.
    assert engine.keep_up({first})
    assert engine.describe()["indexes"] == sorted([first, later])


def test_one_that_cant_be_loaded_is_refused_until_its_files_change(
    settings: Settings, tiny_index: Path, second: Path
) -> None:
    first, later = AttributionIndex.open(tiny_index).id, AttributionIndex.open(second).id
    engine = AttributionEngine(settings)
    copy = settings.index_dir / "second"
    shutil.copytree(second, copy)
    whole = (copy / WORKS_NAME).read_bytes()
    (copy / WORKS_NAME).write_bytes(whole[:-1])
    assert engine.keep_up()
    told = engine.describe()
    assert told["indexes"] == [first]
    assert WORKS_NAME in told["refused"][later]
    assert WORKS_NAME in told["failed"]["second"]
    assert not engine.due()
    assert not engine.keep_up()
    (copy / WORKS_NAME).write_bytes(whole)
    assert engine.due()
    assert engine.keep_up()
    told = engine.describe()
    assert (told["refused"], told["failed"]) == ({}, {})
    assert later in told["indexes"]


def test_a_worker_that_starts_loads_the_newest_alone(settings: Settings, second: Path) -> None:
    (settings.index_dir / "second").symlink_to(second)
    engine = AttributionEngine(settings)
    assert engine.describe()["indexes"] == [AttributionIndex.open(second).id]
    assert len(engine.found(settings)) == 2


def test_one_whose_digests_are_wrong_is_refused_from_the_start(
    settings: Settings, tiny_index: Path, second: Path
) -> None:
    first, later = AttributionIndex.open(tiny_index).id, AttributionIndex.open(second).id
    copy = settings.index_dir / "second"
    shutil.copytree(second, copy)
    shard = next(copy.rglob("shard-*.npy"))
    whole = shard.read_bytes()
    # As long as it was: it opens, and answers with numbers that nobody built.
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    engine = AttributionEngine(settings)
    assert engine.describe()["indexes"] == [first]
    assert f"{shard.relative_to(copy)} is damaged" in engine.describe()["refused"][later]
    (settings.index_dir / "first").unlink()
    with pytest.raises(SettingsError, match="is damaged"):
        AttributionEngine(settings)
    shard.write_bytes(whole)
    assert AttributionEngine(settings).describe()["indexes"] == [later]


def test_what_was_moved_is_read_where_it_is(settings: Settings, second: Path) -> None:
    (settings.index_dir / "first").unlink()
    shutil.copytree(second, settings.index_dir / "first")
    engine = AttributionEngine(settings)
    (loaded,) = engine.describe()["indexes"]
    (settings.index_dir / "first").rename(settings.index_dir / "moved")
    assert engine.due()
    assert engine.keep_up()
    assert engine._attributors[loaded].index.path == settings.index_dir / "moved"
    assert not engine.due()


def test_what_is_loaded_answers_on_where_nothing_in_its_place_can_be_used(
    settings: Settings, second: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = AttributionEngine(settings)
    loaded = engine.describe()["indexes"]
    (settings.index_dir / "first").unlink()
    shutil.copytree(second, settings.index_dir / "second")
    (settings.index_dir / "second" / WORKS_NAME).write_bytes(b"nothing")
    monkeypatch.setattr(engine_module, "LINGER_S", 0.0)
    assert engine.keep_up()
    assert not engine.keep_up()
    assert engine.describe()["indexes"] == loaded


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_version_isnt_refused_because_time_ran_out(
    settings: Settings, second: Path, monkeypatch: pytest.MonkeyPatch, wrapped: bool
) -> None:
    def overdue(*_: object) -> None:
        try:
            raise SoftTimeLimitExceeded
        except SoftTimeLimitExceeded as error:
            if wrapped:
                raise ModelError("The model can't be loaded.") from error
            raise

    engine = AttributionEngine(settings)
    (settings.index_dir / "second").symlink_to(second)
    with monkeypatch.context() as patched:
        patched.setattr(engine, "_warm_up", overdue)
        with pytest.raises(SoftTimeLimitExceeded):
            engine.keep_up()
    assert engine.describe()["refused"] == {}
    assert engine.due()
    assert engine.keep_up()
    assert AttributionIndex.open(second).id in engine.describe()["indexes"]
