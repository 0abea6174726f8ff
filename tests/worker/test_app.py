"""The Celery settings that were measured to matter, and what may not be in the parent process."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.errors import StorageError
from jobs.outages import Outage
from jobs.queue import TASK
from jobs.settings import Settings
from worker.app import celery_settings, create_app, new_worker_id
from worker.engine import AttributionEngine

ROOT = Path(__file__).parents[2]


def test_the_settings_that_matter(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, data_dir=tmp_path)
    celery = celery_settings(settings)
    expected = {
        "worker_pool": "prefork",
        "worker_concurrency": 1,
        "task_acks_late": True,
        "task_reject_on_worker_lost": False,
        "task_acks_on_timeout": True,
        "worker_prefetch_multiplier": 1,
        "result_backend": None,
        "accept_content": ["json"],
        "broker_connection_max_retries": None,
    }
    assert {name: celery[name] for name in expected} == expected
    assert celery["worker_proc_alive_timeout"] >= 300
    options = celery["broker_transport_options"]
    assert options["visibility_timeout"] > 2 * celery["task_time_limit"] > 2 * celery["task_soft_time_limit"]
    assert options["socket_timeout"] == options["socket_connect_timeout"] == settings.broker_timeout_seconds


def test_the_parent_imports_no_torch() -> None:
    script = (
        "import sys, worker.app, worker.engine, worker.__main__\n"
        "print([name for name in ('torch', 'faiss', 'open_clip', 'diffusers') if name in sys.modules])"
    )
    shown = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == "[]"


def test_the_app_side_imports_no_worker() -> None:
    script = (
        "import sys, jobs.store, jobs.queue, jobs.sweeper, jobs.notify, jobs.broker\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('worker', 'app', 'torch')])"
    )
    shown = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == "[]"


def test_worker_ids_differ_within_one_process() -> None:
    assert new_worker_id() != new_worker_id()


def test_a_bell_while_the_database_is_away_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(_env_file=None, data_dir=tmp_path, redis_url="redis://127.0.0.1:1/0")
    app = create_app(settings, AttributionEngine, "w")
    monkeypatch.setattr("worker.app.OUTAGE", Outage())

    def away(*_: object) -> None:
        raise StorageError("the database can't be reached")

    monkeypatch.setattr("worker.child.Child.drain", away)
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            assert app.tasks[TASK].apply(("att_0",)).successful()
    assert [record.getMessage() for record in caplog.records] == [
        "waiting (bells): the database can't be reached"
    ]
    assert caplog.records[0].exc_info is None
