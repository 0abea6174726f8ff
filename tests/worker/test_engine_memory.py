"""A budget of memory: real indexes of several models, of which not all are loaded at once."""

import logging
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from celery.exceptions import SoftTimeLimitExceeded

from das.footprint import index_bytes, model_bytes
from das.index import AttributionIndex
from jobs.models import JsonObject
from jobs.settings import Settings
from tests.worker.questions import question
from worker import engine as engine_module
from worker.engine import AttributionEngine
from worker.memory import settled

PICTURE = np.random.default_rng(3).integers(0, 256, (16, 16, 3), dtype=np.uint8)


Serve = Callable[..., Settings]


@pytest.fixture
def serve(shelf: Path, tmp_path: Path) -> Serve:
    """Settings of a worker whose folder has these indexes."""
    folder = tmp_path / "indexes"

    def serve(*names: str, budget: float | None = None) -> Settings:
        folder.mkdir(exist_ok=True)
        for name in names:
            (folder / name).symlink_to(shelf / name)
        return Settings(
            _env_file=None,
            data_dir=tmp_path / "data",
            index_dir=folder,
            torch_threads=1,
            memory_budget_gb=None if budget is None else budget / 1e9,
        )

    return serve


def ids(shelf: Path, *names: str) -> list[str]:
    return [AttributionIndex.open(shelf / name).id for name in names]


def ask(engine: AttributionEngine, index_id: str) -> JsonObject:
    (answer,) = engine.run([question(index_id, 5)], [PICTURE], lambda *_: None)
    return {"works": [(work["work_id"], pytest.approx(work["score"], rel=1e-4)) for work in answer["works"]]}


def memory_of(engine: AttributionEngine) -> JsonObject:
    told: JsonObject = engine.describe()["memory"]
    return told


@pytest.fixture(scope="module")
def alone(shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, JsonObject]]:
    """What each index takes by itself, in bytes, and what it answers."""
    found = {}
    for name in ("north", "northern", "south", "later"):
        settings = Settings(
            _env_file=None,
            data_dir=tmp_path_factory.mktemp("data"),
            index_dir=shelf / name,
            torch_threads=1,
        )
        engine = AttributionEngine(settings)
        (index_id,) = engine.describe()["indexes"]
        found[index_id] = (memory_of(engine)["taken"], ask(engine, index_id))
    return found


Alone = dict[str, tuple[int, JsonObject]]


def test_without_a_budget_all_are_loaded_and_a_model_of_several_once(
    serve: Serve, shelf: Path, alone: Alone
) -> None:
    engine = AttributionEngine(serve("north", "northern", "south"))
    north, northern, south = ids(shelf, "north", "northern", "south")
    told = engine.describe()
    assert told["loaded"] == told["indexes"] == sorted((north, northern, south))
    assert engine._attributors[north].model is engine._attributors[northern].model
    parameters = AttributionIndex.open(shelf / "south").manifest.model.identity["parameters"]
    memory = told["memory"]
    assert memory["taken"] < sum(memory["indexes"].values()) - 3.5 * parameters
    assert memory["indexes"][south] > 3.5 * parameters
    assert (memory["budget"], memory["loads"], memory["evictions"]) == (None, 3, 0)
    for index_id in (north, northern, south):
        assert ask(engine, index_id) == alone[index_id][1]


def test_with_room_for_one_model_both_are_answered_in_turn(
    serve: Serve, shelf: Path, alone: Alone, caplog: pytest.LogCaptureFixture
) -> None:
    north, south = ids(shelf, "north", "south")
    budget = 1.5 * max(alone[north][0], alone[south][0])
    engine = AttributionEngine(serve("north", "south", budget=budget))
    told = engine.describe()
    assert told["indexes"] == sorted((north, south))
    assert told["loaded"] == [north], "the first that fits"
    model = weakref.ref(engine._attributors[north].model.network)
    resident = []
    caplog.set_level(logging.INFO)
    for round_, index_id in enumerate((south, north) * 2):
        engine.load(index_id)
        told = engine.describe()
        assert told["loaded"] == [index_id]
        assert told["indexes"] == sorted((north, south))
        assert told["memory"]["taken"] <= budget
        assert told["memory"]["evictions"] == round_ + 1
        assert ask(engine, index_id) == alone[index_id][1]
        resident.append(settled("cpu"))
    assert model() is None, "nothing holds what made way"
    assert max(resident[1:]) - min(resident[1:]) < alone[south][0] / 4, "what made way is given back"
    assert f"index {north} makes way: {south} is loaded" in caplog.text
    assert told["memory"]["loads"] == 5
    assert engine.load_seconds(south) > 0


def test_memory_falls_when_a_large_one_makes_way_for_a_small_one(
    serve: Serve, shelf: Path, tiny_index: Path, alone: Alone
) -> None:
    (north,) = ids(shelf, "north")
    settings = serve("north", budget=alone[north][0] * 0.9)
    (settings.index_dir / "tiny").symlink_to(tiny_index)
    engine = AttributionEngine(settings)
    small = AttributionIndex.open(tiny_index).id
    # Once each, so that what the libraries keep for themselves is there already.
    for index_id in (small, north):
        if index_id not in engine.describe()["loaded"]:
            engine.load(index_id)
    large = settled("cpu")
    taken = memory_of(engine)["taken"]
    engine.load(small)
    assert engine.describe()["loaded"] == [small]
    fallen = large - settled("cpu")
    assert fallen > 0.8 * (taken - memory_of(engine)["taken"])
    assert fallen > 3 * AttributionIndex.open(shelf / "north").manifest.model.identity["parameters"]


def test_a_version_comes_and_the_one_before_is_answered_from_the_disk(
    serve: Serve, shelf: Path, alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    north, south, later = ids(shelf, "north", "south", "later")
    budget = 1.5 * max(alone[north][0], alone[south][0])
    engine = AttributionEngine(serve("north", "south", budget=budget))
    assert engine.describe()["loaded"] == [north]
    serve("later", budget=budget)
    assert engine.due()
    assert engine.keep_up({south})
    told = engine.describe()
    assert told["indexes"] == sorted((north, south, later)), "a question still names the one before"
    assert told["loaded"] == [later], "only what was loaded can take another's place"
    assert ask(engine, later) == alone[later][1]
    engine.load(south)
    told = engine.describe()
    assert told["loaded"] == sorted((south, later)), "they share their model, so that there is room for both"
    assert told["memory"]["taken"] <= budget
    assert ask(engine, south) == alone[south][1]

    monkeypatch.setattr(engine_module, "LINGER_S", 0.0)
    engine.keep_up()
    assert engine.describe()["indexes"] == sorted((north, later))
    # It is still in the folder: a question that comes late finds it, loaded when its turn comes.
    engine.load(north)
    assert engine.keep_up({south})
    assert south in engine.describe()["indexes"]
    assert engine.describe()["loaded"] == [north], "asking isn't loading"
    engine.load(south)
    assert ask(engine, south) == alone[south][1]


def test_one_larger_than_the_budget_is_loaded_alone_and_that_is_told(
    serve: Serve, shelf: Path, alone: Alone, caplog: pytest.LogCaptureFixture
) -> None:
    north, south = ids(shelf, "north", "south")
    engine = AttributionEngine(serve("north", "south", budget=1000))
    assert engine.describe()["loaded"] == engine.describe()["oversized"] == [north]
    engine.load(south)
    assert engine.describe()["loaded"] == engine.describe()["oversized"] == [south]
    assert f"{south} alone takes more than DAS_MEMORY_BUDGET_GB" in caplog.text
    assert ask(engine, south) == alone[south][1]


def test_where_memory_runs_out_it_goes_on_alone_and_else_is_refused(
    serve: Serve, shelf: Path, alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    north, south = ids(shelf, "north", "south")
    engine = AttributionEngine(serve("north", "south", budget=1e12))
    assert engine.describe()["loaded"] == sorted((north, south))
    attributor = engine._attributors[south]
    compute = attributor.attribute_batch

    def beside_others(*args: object, **options: object) -> object:
        if len(engine.describe()["loaded"]) > 1:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return compute(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(attributor, "attribute_batch", beside_others)
    assert ask(engine, south) == alone[south][1]
    assert engine.describe()["loaded"] == [south]
    assert engine.describe()["indexes"] == sorted((north, south))

    def never(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(engine, "_warm_up", never)
        engine.load(north)
    told = engine.describe()
    assert told["indexes"] == [south]
    assert "needs more memory than there is on cpu" in told["refused"][north]


def test_what_takes_too_long_to_load_is_refused_for_an_hour(
    serve: Serve, shelf: Path, alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    north, south = ids(shelf, "north", "south")
    engine = AttributionEngine(serve("north", "south", budget=1.5 * alone[north][0]))
    assert engine.describe()["loaded"] == [north]

    def overdue(*_: object) -> None:
        raise SoftTimeLimitExceeded

    with monkeypatch.context() as patched:
        patched.setattr(engine, "_warm_up", overdue)
        engine.load(south)
    told = engine.describe()
    assert told["indexes"] == [north]
    assert "isn't loaded after 600 s" in told["refused"][south]
    assert not engine.due()
    hour = time.monotonic() + 3601
    monkeypatch.setattr(engine_module.time, "monotonic", lambda: hour)
    assert engine.due()
    assert engine.keep_up()
    assert engine.describe()["loaded"] == [south]
    assert engine.describe()["refused"] == {}


def test_what_isn_t_in_memory_is_no_longer_answered_about_once_it_is_gone(
    serve: Serve, shelf: Path, alone: Alone
) -> None:
    north, south = ids(shelf, "north", "south")
    settings = serve("north", "south", budget=1.5 * alone[north][0])
    engine = AttributionEngine(settings)
    (settings.index_dir / "south").unlink()
    engine.load(south)
    assert engine.describe()["indexes"] == [north]
    (settings.index_dir / "south").symlink_to(shelf / "south")
    assert engine.keep_up()
    assert engine.describe()["loaded"] == [south]
    (settings.index_dir / "north").rename(settings.index_dir / "renamed")
    assert not engine.keep_up(), "a link to the same place"
    (settings.index_dir / "renamed").unlink()
    assert engine.keep_up()
    assert engine.describe()["indexes"] == [south]


def test_what_is_expected_is_near_what_is_measured(shelf: Path, alone: Alone) -> None:
    index = AttributionIndex.open(shelf / "south")
    expected = model_bytes(index) + index_bytes(index)
    assert 0.5 < alone[index.id][0] / expected < 2
