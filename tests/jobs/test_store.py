"""What the app does to jobs, in every state that a job can be in."""

import errno
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from jobs.blobs import BlobStore
from jobs.errors import BadCursor, JobNotFound, QueueFull, StorageError
from jobs.ids import new_job_id
from jobs.models import LOCAL_OWNER, OPEN_STATES, Job, JobFilters, JobState, NewJob, utc_now
from jobs.settings import Settings
from jobs.store import JobStore

Ask = Callable[..., Job]
HELD = ("photographs@3f9c2a", "drawings@1")


def bring_to(store: JobStore, ask: Ask, state: str) -> Job:
    """A job in the given state, reached the way the service reaches it."""
    job = ask(client_tag="tag", prompt="a prompt", lookalikes=[{"work_id": "w_1", "similarity": 0.5}])
    if state == JobState.CANCELLED:
        store.cancel(job.id)
    elif state != JobState.QUEUED:
        (claimed,) = store.leases.claim("worker", 1, HELD)
        if state == JobState.SUCCEEDED:
            assert store.leases.finish(claimed.token, {"works": []}, {"engine_ms": 1.0})
        elif state == JobState.FAILED:
            assert store.leases.fail(claimed.token, "It didn't work.", "internal-error")
        elif state == JobState.ERASED:
            store.erase(job.id)
    now = store.get(job.id)
    assert now is not None
    assert now.state == state
    return now


def test_a_new_job_is_queued_with_its_image(png: bytes, store: JobStore, ask: Ask) -> None:
    job = ask(
        candidates="1000", candidate_works=["w_3", "w_1"], lookalikes=[{"work_id": "w_3", "similarity": 0.9}]
    )
    kept = store.get(job.id)
    assert kept is not None
    assert (kept.state, kept.stage, kept.version, kept.attempt) == ("queued", "screened", 1, 0)
    assert kept.candidate_works == ["w_3", "w_1"]
    assert kept.created_at.tzinfo is not None
    assert abs(utc_now() - kept.created_at) < timedelta(seconds=5)
    assert store.image(job.id) == png
    assert [event.kind for event in store.events(job.id)] == ["created"]


def test_ids_sort_by_the_time_they_were_given() -> None:
    ids = [new_job_id() for _ in range(5000)]
    assert ids == sorted(set(ids))
    assert all(len(name) == 36 and name[16] == "7" and name[20] in "89ab" for name in ids)


def test_a_full_queue_takes_no_more_and_keeps_no_image(
    png: bytes, settings: Settings, store: JobStore, ask: Ask
) -> None:
    small = JobStore(settings.model_copy(update={"queue_limit": 2}), database=store.database, notify=print)
    first, second = ask(), ask()
    with pytest.raises(QueueFull, match="2 pictures are already waiting") as full:
        small.create(_question(first), png)
    assert full.value.limit == 2
    assert {path.stem for path in _blobs(settings)} == {first.id, second.id}
    store.leases.claim("worker", 1, HELD)
    small.create(_question(first), png)


def test_the_limit_of_one_owner_leaves_room_for_others(
    png: bytes, settings: Settings, store: JobStore, ask: Ask
) -> None:
    first = ask(owner="bulk")
    small = JobStore(
        settings.model_copy(update={"owner_queue_limit": 1}), database=store.database, notify=print
    )
    with pytest.raises(QueueFull, match="1 of your pictures is already waiting"):
        small.check_room("bulk")
    with pytest.raises(QueueFull, match="1 of your pictures"):
        small.create(replace(_question(first), owner="bulk"), png)
    small.create(replace(_question(first), owner="ada"), png)


def test_an_upload_that_cannot_be_stored_leaves_nothing(
    settings: Settings, store: JobStore, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, target: Path) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full)
        with pytest.raises(StorageError, match=r"blobs \(No space left on device\): make room"):
            ask()
    assert list((settings.data_dir / "blobs").iterdir()) == []
    assert store.list().jobs == []


@pytest.mark.sqlite
def test_a_full_database_leaves_nothing(settings: Settings, store: JobStore, ask: Ask) -> None:
    with store.database.read() as session:
        pages = session.connection().exec_driver_sql("PRAGMA page_count").scalar()
    store.close()
    # A limit for every connection of this store: from here on the file can't grow.
    from sqlalchemy import event

    event.listen(
        store.database.engine,
        "connect",
        lambda connection, _: connection.execute(f"PRAGMA max_page_count={pages}"),
    )
    # SQLite asks for a page more than it needs, so even the first may fail; one of these has to.
    with pytest.raises(StorageError, match=r"database or disk is full.*make room on its disk"):
        [ask(prompt="x" * 2000) for _ in range(1000)]
    store.close()
    rows = {job.id for job in store.list(limit=1000).jobs}
    assert {path.stem for path in _blobs(settings)} == rows


def test_a_list_tells_sentence_and_verdicts(store: JobStore, ask: Ask) -> None:
    full = {"works": [], "summary": "x", "in_model": {"verdict": "likely"}, "copy": {"verdict": "none"}}
    for result in (full, {"works": [], "summary": "y", "in_model": None, "copy": None}, {"works": []}):
        ask()
        (claimed,) = store.leases.claim("worker", 1, HELD)
        store.leases.finish(claimed.token, result, {})
    told = [(job.summary, job.in_model, job.copied) for job in store.list().jobs]
    assert told == [(None, None, None), ("y", None, None), ("x", "likely", "none")]


def test_pages_follow_each_other_without_gap_or_repetition(store: JobStore, ask: Ask) -> None:
    made = [ask(client_tag="even" if number % 2 == 0 else "odd").id for number in range(7)]
    seen, cursor = [], None
    while True:
        page = store.list(cursor=cursor, limit=3)
        seen += [job.id for job in page.jobs]
        if (cursor := page.next_cursor) is None:
            break
        ask()  # what arrives meanwhile is newer and doesn't shift the pages
    assert seen == made[::-1]
    assert [job.id for job in store.list(JobFilters(client_tag="odd")).jobs] == made[5::-2]
    with pytest.raises(BadCursor, match="start again without one"):
        store.list(cursor="page 2")
    with pytest.raises(BadCursor):
        store.list(cursor="att_\x00")


def test_filters(store: JobStore, ask: Ask) -> None:
    done = bring_to(store, ask, "succeeded")
    gone = bring_to(store, ask, "erased")
    between = utc_now()
    later = ask()
    assert [job.id for job in store.list(JobFilters(state="succeeded")).jobs] == [done.id]
    assert [job.id for job in store.list(JobFilters(state="erased")).jobs] == [gone.id]
    assert [job.id for job in store.list(JobFilters(created_after=between)).jobs] == [later.id]
    assert [job.id for job in store.list().jobs] == [later.id, done.id]


@pytest.mark.parametrize("state", [state for state in JobState if state != "erased"])
def test_cancelling(
    png: bytes, store: JobStore, ask: Ask, announced: list[tuple[str, int]], state: str
) -> None:
    job = bring_to(store, ask, state)
    after = store.cancel(job.id)
    if state in OPEN_STATES:
        assert (after.state, after.version, after.lease_token) == ("cancelled", job.version + 1, None)
        assert after.finished_at is not None
        assert announced[-1] == (job.id, after.version)
        assert store.leases.claim("worker", 1, HELD) == []
    else:
        assert (after.state, after.version) == (state, job.version)
    assert store.image(job.id) == png


def test_what_is_not_there_cannot_be_cancelled_or_erased(store: JobStore, ask: Ask) -> None:
    with pytest.raises(JobNotFound, match="no attribution 'att_0'"):
        store.cancel("att_0")
    with pytest.raises(JobNotFound):
        store.erase("att_0")
    with pytest.raises(JobNotFound):
        store.cancel(bring_to(store, ask, "erased").id)
    assert store.get("att_0") is None


@pytest.mark.parametrize("state", list(JobState))
def test_erasing_leaves_a_tombstone(settings: Settings, store: JobStore, ask: Ask, state: str) -> None:
    job = bring_to(store, ask, state)
    store.erase(job.id)
    left = store.get(job.id)
    assert left is not None
    assert left.state == "erased"
    assert left.version > job.version or state == "erased"
    kept = {"id", "owner", "state", "version", "created_at", "started_at", "finished_at"}
    for column in Job.__table__.columns:
        if column.name not in kept:
            assert not getattr(left, column.name), column.name
    assert left.created_at == job.created_at
    assert left.finished_at is not None
    assert [event.kind for event in store.events(job.id)] == ["erased"]
    assert _blobs(settings) == []


def test_the_jobs_of_another_owner_are_not_there(store: JobStore, ask: Ask) -> None:
    mine, theirs = ask(), ask(owner="ada")
    assert mine.owner == LOCAL_OWNER
    assert store.get(theirs.id, LOCAL_OWNER) is None
    assert store.get(theirs.id, "ada") is not None
    assert store.get(theirs.id) is not None, "operators see all"
    assert [job.id for job in store.list(JobFilters(owner="ada")).jobs] == [theirs.id]
    assert [job.id for job in store.list().jobs] == [theirs.id, mine.id]
    assert [store.queue_depth(owner) for owner in ("ada", LOCAL_OWNER, "nobody", None)] == [1, 1, 0, 2]
    for take_away in (store.cancel, store.erase):
        with pytest.raises(JobNotFound, match=f"there is no attribution '{theirs.id}'"):
            take_away(theirs.id, LOCAL_OWNER)
    assert store.cancel(theirs.id, "ada").state == "cancelled"
    store.erase(theirs.id, "ada")
    left = store.get(theirs.id, "ada")
    assert left is not None, "a tombstone still has its owner"
    assert (left.state, left.owner) == ("erased", "ada")
    assert store.get(theirs.id, LOCAL_OWNER) is None


def test_how_a_job_stands_is_what_the_whole_job_says(store: JobStore, ask: Ask) -> None:
    assert store.standing("att_unheard") is None
    running, cancelled, erased, theirs = ask(), ask(), ask(), ask(owner="ada")
    store.leases.claim("worker", 1, HELD)
    store.cancel(cancelled.id)
    store.erase(erased.id)
    for owner in (None, LOCAL_OWNER, "ada"):
        for asked in (running, cancelled, erased, theirs):
            job, standing = store.get(asked.id, owner), store.standing(asked.id, owner)
            assert (job is None) == (standing is None)
            for name in ("id", "owner", "state", "version", "finished"):
                assert getattr(job, name, None) == getattr(standing, name, None)


def test_lookalikes_may_come_after_the_worker_began(store: JobStore, ask: Ask) -> None:
    early, late = ask(), ask()
    assert store.set_screened(early.id, [{"work_id": "w_7", "similarity": 0.8}]).stage == "screened"  # type: ignore[union-attr]
    tokens = [claimed.token for claimed in store.leases.claim("worker", 2, HELD)]
    store.leases.progress(tokens, "gradients", 3, 10)
    after = store.set_screened(late.id, [{"work_id": "w_9", "similarity": 0.4}])
    assert after is not None
    assert (after.stage, after.lookalikes, after.state) == (
        "gradients",
        [{"work_id": "w_9", "similarity": 0.4}],
        "running",
    )
    store.erase(late.id)
    assert store.set_screened(late.id, [{"work_id": "w_9", "similarity": 0.4}]) is None
    assert store.get(late.id).lookalikes is None  # type: ignore[union-attr]


def test_no_event_comes_after_the_last(store: JobStore, ask: Ask) -> None:
    job = ask()
    store.cancel(job.id)
    screened = store.set_screened(job.id, [{"work_id": "w_9", "similarity": 0.4}])
    assert screened is not None
    assert screened.lookalikes == [{"work_id": "w_9", "similarity": 0.4}]
    assert [event.kind for event in store.events(job.id)] == ["created", "cancelled"]


def test_versions_are_read_of_many_at_once(store: JobStore, ask: Ask) -> None:
    first, second = ask(), ask()
    store.cancel(second.id)
    unknown = [f"att_{number}" for number in range(2000)]
    assert store.versions([first.id, *unknown, second.id]) == {first.id: 1, second.id: 2}
    assert store.versions([]) == {}


def test_depth_and_age_of_the_queue(store: JobStore, ask: Ask) -> None:
    assert (store.queue_depth(), store.oldest_queued_age(), store.leases.next_queued(HELD)) == (0, None, None)
    first = ask()
    ask()
    assert store.queue_depth() == 2
    assert store.leases.next_queued(HELD) == first.id
    assert 0 <= (store.oldest_queued_age() or 0.0) < 5


def test_workers_are_fresh_until_three_beats_are_missed(settings: Settings, store: JobStore) -> None:
    store.workers.heartbeat("a", {"engine": "loading"})
    (worker,) = store.workers.known()
    assert (worker.fresh, worker.ready) == (True, False)
    store.workers.heartbeat("a", {"engine": "ready"})
    assert store.workers.known()[0].ready
    impatient = JobStore(
        settings.model_copy(update={"heartbeat_seconds": 1e-6}), database=store.database, notify=print
    )
    assert not impatient.workers.known()[0].ready
    store.workers.retire("a")
    assert list(store.workers.known()) == []


def test_a_silent_worker_stays_on_the_list_for_an_hour(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.workers.heartbeat("a", {"engine": "ready"})
    for minutes, listed in ((50, 1), (70, 0)):
        later = utc_now() + timedelta(minutes=minutes)
        with monkeypatch.context() as patched:
            patched.setattr("jobs.workers.utc_now", lambda moment=later: moment)
            store.workers.forget_silent()
        assert len(store.workers.known()) == listed


def test_tidying_removes_images_nobody_has_a_right_to_keep(
    png: bytes, settings: Settings, store: JobStore, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, half_erased = ask(), ask()
    with monkeypatch.context() as patched:
        patched.setattr(BlobStore, "delete", _fails)
        with pytest.raises(StorageError):
            store.erase(half_erased.id)
    store.blobs.put("att_orphan", png)
    (settings.data_dir / "blobs" / ".0123456789abcdef.partial").write_bytes(png[:5])
    store.upkeep.tidy()
    assert len(_blobs(settings)) == 3, "what is young may belong to an upload that is just being accepted"
    monkeypatch.setattr("jobs.upkeep.ORPHAN_AFTER", timedelta(seconds=-1))
    store.upkeep.tidy()
    assert [path.name for path in (settings.data_dir / "blobs").iterdir()] == [f"{kept.id}.png"]


def _fails(self: BlobStore, job_id: str) -> None:
    raise StorageError("not now")


def _blobs(settings: Settings) -> list[Path]:
    return sorted((settings.data_dir / "blobs").glob("*.png"))


def _question(job: Job) -> NewJob:
    return NewJob(
        index_id=job.index_id, method=job.method, candidates=job.candidates, top_k=job.top_k, input=job.input
    )
