"""Near looks see what looks from a thread see, wait for nobody, and are only had of a file."""

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing

import pytest

from jobs.errors import StorageError
from jobs.models import Job
from jobs.near import Near
from jobs.settings import Settings
from jobs.store import JobStore

Ask = Callable[..., Job]


@pytest.fixture
def near(store: JobStore, settings: Settings) -> Near:
    near = Near.to(settings)
    assert near is not None
    return near


def test_they_see_what_the_store_sees(store: JobStore, ask: Ask, near: Near) -> None:
    job = ask()
    for _ in range(2):
        assert near.standing(job.id) == store.standing(job.id)
        assert [(one.id, one.kind) for one in near.events(job.id)] == [
            (one.id, one.kind) for one in store.events(job.id)
        ]
        store.cancel(job.id)
    assert [one.kind for one in near.events(job.id, after=near.events(job.id)[0].id)] == ["cancelled"]
    assert near.standing(job.id, job.owner) is not None
    assert near.standing(job.id, "somebody else") is None
    assert near.standing("att_" + "0" * 32) is None
    near.close()


def test_who_writes_is_in_nobodys_way(store: JobStore, ask: Ask, near: Near) -> None:
    job = ask()
    with store.database.write():
        assert near.standing(job.id) is not None
    near.close()


def test_who_holds_the_whole_file_is_not_waited_for(
    settings: Settings, store: JobStore, ask: Ask, near: Near
) -> None:
    job = ask()
    store.close()
    # Whoever opens a file in this mode keeps everybody else out.
    with closing(sqlite3.connect(settings.data_dir / "das.sqlite3", isolation_level=None)) as holder:
        holder.execute("PRAGMA locking_mode=EXCLUSIVE")
        holder.execute("BEGIN EXCLUSIVE")
        began = time.perf_counter()
        with pytest.raises(StorageError):
            near.standing(job.id)
        assert time.perf_counter() - began < Settings(_env_file=None).database_timeout_seconds
    assert near.standing(job.id) is not None
    near.close()


def test_a_server_is_not_near(settings: Settings) -> None:
    assert (
        Near.to(settings.model_copy(update={"database_url": "postgresql+psycopg://nobody@127.0.0.1:1/das"}))
        is None
    )
