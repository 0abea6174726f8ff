"""Builds by several workers over a real broker: the same bytes as by one process, whoever is lost on the way."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import psutil
import pytest
import redis

from das.config import BuildConfig
from das.errors import BuildError, SettingsError
from das.index import AttributionIndex
from index_build.build import build
from index_build.cluster.exchange import BEAT_S, Exchange, Shared
from index_build.cluster.queue import QUEUE, ShardQueue
from index_build.cluster.shard_worker import ShardWorker
from index_build.cluster.status import status
from index_build.gather import kernel_forms
from index_build.workspace import building_path
from jobs.broker import Broker
from jobs.settings import Settings
from tests.conftest import make_works
from tests.index_build.digests import digests
from tests.s3 import S3, running

PATIENCE_S = 240
SHARDS = 6

Start = Callable[..., "Future[dict[str, Any]]"]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    settings = Settings(data_dir=tmp_path_factory.mktemp("data"))
    broker = Broker(settings)
    broker.start()
    yield settings
    broker.stop()


@pytest.fixture
def queue(settings: Settings) -> Iterator[redis.Redis]:
    from jobs.broker import connect

    client = connect(settings)
    client.flushall()
    yield client
    client.close()


@pytest.fixture(scope="module")
def store() -> Iterator[S3]:
    with pytest.MonkeyPatch.context() as patch, running(patch) as server:
        fsspec.filesystem("s3").mkdir("bucket")
        yield server


@pytest.fixture(scope="module")
def environment(settings: Settings, store: S3) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "DAS_DATA_DIR": str(settings.data_dir)}


@pytest.fixture(scope="module")
def works(tmp_path_factory: pytest.TempPathFactory) -> Path:
    works = tmp_path_factory.mktemp("many") / "works"
    make_works(works, 23)
    (works / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    return works


@pytest.fixture(scope="module")
def options(works: Path, tiny_model: Path, tiny_clip: Path) -> dict[str, Any]:
    return {
        "name": "shared",
        "model": str(tiny_model),
        "works": str(works),
        "timesteps": [100, 500],
        "dimension": 32,
        "methods": ["das-block", "das"],
        "shard_size": 4,
        "clip": {"directory": str(tiny_clip)},
    }


def program(name: str, environment: dict[str, str]) -> "subprocess.Popen[str]":
    path = str(Path(__file__).with_name(name))
    return subprocess.Popen(
        [sys.executable, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )


@pytest.fixture(scope="module")
def start(options: dict[str, Any], environment: dict[str, str]) -> Iterator[Start]:
    """Begin a build in a process of its own; the future is what became of it."""
    with program("builders.py", environment) as process, ThreadPoolExecutor(1) as threads:

        def build(out: Path, **when: Any) -> "Future[dict[str, Any]]":
            def ordered() -> dict[str, Any]:
                assert process.stdin is not None
                assert process.stdout is not None
                config = options | when.pop("config", {})
                process.stdin.write(json.dumps({"config": config, "out": str(out), **when}) + "\n")
                process.stdin.flush()
                found: dict[str, Any] = json.loads(process.stdout.readline())
                return found

            return threads.submit(ordered)

        yield build
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture(scope="module")
def workers_program(environment: dict[str, str]) -> Iterator["subprocess.Popen[str]"]:
    with program("build_workers.py", environment) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
def worker(workers_program: "subprocess.Popen[str]") -> Iterator[Callable[[], int]]:
    """Start a build worker; returns its process id."""
    started: list[int] = []

    def worker() -> int:
        assert workers_program.stdin is not None
        assert workers_program.stdout is not None
        workers_program.stdin.write("one\n")
        workers_program.stdin.flush()
        started.append(int(workers_program.stdout.readline()))
        return started[-1]

    yield worker
    for pid in started:
        if psutil.pid_exists(pid):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def whole(start: Start, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The digests of what one process builds."""
    out = tmp_path_factory.mktemp("whole") / "index"
    assert start(out).result(PATIENCE_S)["state"] == "built"
    return digests(out)


def until(true: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (found := true()):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    return found


def shards_of(out: Path) -> Path:
    return out.with_name("index.shards")


def exchange_of(out: Path, url: str | None = None) -> Exchange:
    found: Exchange = until(lambda: [one for one in Shared(out, url).builds() if one.is_there])[0]
    return found


def left_in(place: str) -> list[str]:
    store = fsspec.filesystem("s3")
    store.invalidate_cache()
    found: list[str] = store.find(place)
    return found


def killed_at_work(out: Path, pid: int, url: str | None = None) -> None:
    """Kill a worker in the midst of a shard: one that it has claimed, and whose sums aren't there."""
    exchange = exchange_of(out, url)

    def shard() -> int | None:
        return next((claim.shard for claim in exchange.claims() if f":{pid} " in claim.worker), None)

    def stopped_at_work() -> bool:
        if shard() is None:
            return False
        os.kill(pid, signal.SIGSTOP)
        number = shard()
        if number is not None and not exchange.is_done(number):
            return True
        os.kill(pid, signal.SIGCONT)
        return False

    until(stopped_at_work)
    os.kill(pid, signal.SIGKILL)


def test_three_workers_of_which_one_is_killed_twice_give_the_same_bytes(
    start: Start, whole: dict[str, str], worker: Callable[[], int], queue: redis.Redis, tmp_path: Path
) -> None:
    out = tmp_path / "index"
    built = start(out, distributed=True, lost_s=2.5 * BEAT_S)
    for _ in range(2):
        killed_at_work(out, worker())
    others = [worker() for _ in range(3)]
    said = built.result(PATIENCE_S)
    assert said["state"] == "built", said
    assert digests(out) == whole
    assert not building_path(out).exists()
    assert not shards_of(out).exists()
    assert all(psutil.pid_exists(pid) for pid in others)
    assert status(out).state == "finished"


def test_shards_left_in_a_store_give_the_same_bytes_too(
    start: Start, whole: dict[str, str], worker: Callable[[], int], queue: redis.Redis, tmp_path: Path
) -> None:
    out, url = tmp_path / "index", "s3://bucket/builds"
    ours = {"distributed": True, "exchange": url, "lost_s": 2.5 * BEAT_S}
    built = start(out, **ours, die_at=9)
    killed_at_work(out, worker(), url)
    assert status(out, url).shards == SHARDS
    worker()
    # On its own disk it renames three files at its beginning, and two for each shard that it counts.
    assert built.result(PATIENCE_S) == {"killed": True}
    assert start(out, **ours).result(PATIENCE_S)["state"] == "built"
    assert digests(out) == whole
    assert not shards_of(out).exists()
    assert left_in("bucket/builds") == []


def test_strict_counts_for_shards_that_were_computed_before(
    start: Start, worker: Callable[[], int], queue: redis.Redis, tmp_path: Path
) -> None:
    out = tmp_path / "index"
    worker()
    # Without a shard of its own: they wait for it, of which the first lacks a work.
    assert start(out, distributed=True, die_at=4).result(PATIENCE_S) == {"killed": True}
    exchange = exchange_of(out)
    until(lambda: len(exchange.done()) == SHARDS)
    said = start(out, distributed=True, strict=True).result(PATIENCE_S)
    assert "broken.png can't be used" in said["error"], said
    assert start(out, distributed=True).result(PATIENCE_S)["state"] == "built"


def test_builds_of_equal_names_share_a_store_and_nothing_in_it(
    start: Start, whole: dict[str, str], worker: Callable[[], int], queue: redis.Redis, tmp_path: Path
) -> None:
    url = "s3://bucket/shared"
    ours, other = tmp_path / "ours" / "index", tmp_path / "other" / "index"
    worker()
    # Its machine is away for now, and all its shards wait for it.
    assert start(other, distributed=True, exchange=url, die_at=3).result(PATIENCE_S) == {"killed": True}
    waiting = exchange_of(other, url)
    until(lambda: len(waiting.done()) == SHARDS and not waiting.claims())
    left = left_in("bucket/shared")
    assert start(ours, distributed=True, exchange=url).result(PATIENCE_S)["state"] == "built"
    assert digests(ours) == whole
    assert not shards_of(ours).exists()
    assert left_in("bucket/shared") == left
    # One process ends the other, and finds what it left in the store.
    assert start(other).result(PATIENCE_S)["state"] == "built"
    assert digests(other) == whole
    assert left_in("bucket/shared") == []
    assert not shards_of(other).exists()


def test_a_store_that_is_away_for_a_while_is_waited_for(
    start: Start,
    whole: dict[str, str],
    worker: Callable[[], int],
    queue: redis.Redis,
    store: S3,
    tmp_path: Path,
) -> None:
    out, url = tmp_path / "index", "s3://bucket/away"
    built = start(out, distributed=True, exchange=url)
    exchange_of(out, url)
    # No key is good any more.
    store.tell("reset-auth", "0")
    try:
        worker()
        until(lambda: queue.llen(QUEUE) < SHARDS)
    finally:
        store.tell("reset-auth", "inf")
    assert built.result(PATIENCE_S)["state"] == "built"
    assert digests(out) == whole


def test_an_exchange_needs_workers_and_a_url_that_can_be_used(
    options: dict[str, Any], tmp_path: Path
) -> None:
    config = BuildConfig(**options)
    with pytest.raises(SettingsError, match="needs --distributed"):
        build(config, tmp_path / "index", exchange="s3://bucket/builds")
    with pytest.raises(SettingsError, match="can't be used: a key for S3 is given by"):
        build(config, tmp_path / "index", exchange="s3://key:secret@bucket/builds", distributed=True)


def test_a_coordinator_killed_again_and_again_goes_on(
    start: Start, whole: dict[str, str], worker: Callable[[], int], queue: redis.Redis, tmp_path: Path
) -> None:
    out = tmp_path / "index"
    worker()
    # Each run writes build.json, digests.txt and plan.json before the first shard, which takes two.
    for moment in (0, 1, 2, 3, 4, 5, 8):
        assert start(out, distributed=True, die_at=moment).result(PATIENCE_S) == {"killed": True}, moment
        assert not out.exists()
    assert start(out, distributed=True).result(PATIENCE_S)["state"] == "built"
    assert digests(out) == whole


def test_what_a_distributed_build_began_one_process_may_end(
    start: Start, whole: dict[str, str], worker: Callable[[], int], queue: redis.Redis, tmp_path: Path
) -> None:
    out = tmp_path / "index"
    worker()
    assert start(out, distributed=True, die_at=7).result(PATIENCE_S)["killed"]
    assert start(out).result(PATIENCE_S)["state"] == "built"
    assert digests(out) == whole
    assert not shards_of(out).exists()


def test_shards_that_the_broker_forgot_are_asked_for_again(
    start: Start, whole: dict[str, str], worker: Callable[[], int], queue: redis.Redis, tmp_path: Path
) -> None:
    out = tmp_path / "index"
    with pytest.raises(BuildError, match="neither an index nor a build"):
        status(out)
    built = start(out, distributed=True)
    until(out.with_name("index.lock").exists)
    assert status(out).state in ("starting", "waiting")
    until(lambda: queue.llen(QUEUE) == SHARDS)
    assert status(out).shards == SHARDS
    assert status(out).state == "waiting"
    queue.flushall()
    worker()
    assert built.result(PATIENCE_S)["state"] == "built"
    assert digests(out) == whole


def test_shards_that_come_twice_and_late_leave_nothing(
    start: Start,
    whole: dict[str, str],
    worker: Callable[[], int],
    queue: redis.Redis,
    settings: Settings,
    tmp_path: Path,
) -> None:
    out = tmp_path / "index"
    built = start(out, distributed=True)
    asking, exchange = ShardQueue(settings), exchange_of(out)
    asking.ask(exchange.location, [5, 0, 0, 3])
    worker()
    assert built.result(PATIENCE_S)["state"] == "built"
    asking.ask(exchange.location, [1, 4])
    until(lambda: queue.llen(QUEUE) == 0)
    asking.close()
    assert status(out).state == "finished"
    assert digests(out) == whole
    assert AttributionIndex.open(out).verify().ok
    assert not Path(exchange.location).exists()


def test_a_worker_that_has_other_works_says_so_and_the_same_command_goes_on(
    start: Start,
    whole: dict[str, str],
    worker: Callable[[], int],
    queue: redis.Redis,
    works: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "index"
    built = start(out, distributed=True)
    until(lambda: queue.llen(QUEUE) == SHARDS)
    metadata = works / "metadata.csv"
    before = metadata.read_bytes()
    metadata.write_bytes(before.replace(b"Study no. 7", b"Study no. 8"))
    try:
        worker()
        said = built.result(PATIENCE_S)
    finally:
        metadata.write_bytes(before)
    assert "has other works or metadata here than where the build was started" in said["error"], said
    assert f"{os.uname().nodename}:" in said["error"]
    assert start(out, distributed=True).result(PATIENCE_S)["state"] == "built"
    assert digests(out) == whole


def test_a_picture_that_changed_is_told_with_its_shard(
    start: Start, worker: Callable[[], int], queue: redis.Redis, works: Path, tmp_path: Path
) -> None:
    out = tmp_path / "index"
    built = start(out, distributed=True)
    until(lambda: queue.llen(QUEUE) == SHARDS)
    picture = works / "work-013.png"
    before = picture.read_bytes()
    picture.write_bytes((works / "work-014.png").read_bytes())
    try:
        worker()
        said = built.result(PATIENCE_S)
    finally:
        picture.write_bytes(before)
    assert "changed while the index was being built" in said["error"], said
    assert "shard 3 failed on" in said["error"]


def test_what_an_earlier_build_left_is_not_trusted(
    start: Start, whole: dict[str, str], worker: Callable[[], int], queue: redis.Redis, tmp_path: Path
) -> None:
    """Its directory was deleted, as messages advise, and not its shards; they may be of another version."""
    out = tmp_path / "index"
    built = start(out, distributed=True, die_at=6)
    worker()
    assert built.result(PATIENCE_S)["killed"]
    left = exchange_of(out)
    until(lambda: len(left.done()) > 1)
    first, second = sorted(left.done())[:2]
    place = Path(left.location)
    shutil.copy(place / f"shard-{second:05d}.npz", place / f"shard-{first:05d}.npz")
    shutil.rmtree(building_path(out))
    assert start(out, distributed=True).result(PATIENCE_S)["state"] == "built"
    assert digests(out) == whole


def test_sums_without_their_products_are_asked_for_again(
    start: Start,
    options: dict[str, Any],
    whole: dict[str, str],
    worker: Callable[[], int],
    queue: redis.Redis,
    tmp_path: Path,
) -> None:
    out = tmp_path / "index"
    built = start(out, distributed=True)
    exchange = exchange_of(out)
    sums = {
        f"{features.name}.{form}": np.ones((32, 32))
        for features, form in kernel_forms(BuildConfig(**options))
    }
    # Whole at once, as build workers write.
    np.savez(tmp_path / "sums.npz", **sums)
    (tmp_path / "sums.npz").rename(Path(exchange.location) / "sums-00000.npz")
    until(lambda: not exchange.is_done(0))
    worker()
    assert built.result(PATIENCE_S)["state"] == "built"
    assert digests(out) == whole


def test_a_place_that_is_gone_is_told(start: Start, queue: redis.Redis, tmp_path: Path) -> None:
    out = tmp_path / "index"
    built = start(out, distributed=True)
    shutil.rmtree(Path(exchange_of(out).location).parent)
    assert "is gone, where build workers leave shards" in built.result(PATIENCE_S)["error"]


def test_a_worker_tells_of_a_place_that_it_cannot_see(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ShardWorker("cpu").compute(str(tmp_path / "index.shards" / "5ca1ab1e"), 3)
    assert "isn't here: is that build over, or its disk not to be seen under this path?" in caplog.text
    assert not (tmp_path / "index.shards").exists()


def test_a_lock_that_a_killed_build_left_is_no_build(tmp_path: Path) -> None:
    (tmp_path / "index.lock").touch()
    with pytest.raises(BuildError, match="neither an index nor a build"):
        status(tmp_path / "index")
