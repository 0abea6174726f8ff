"""What is kept for how long, by the settings and by keys: on either database, and in several processes at once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from jobs.audit import SERVICE, AuditFilters
from jobs.batch_rows import NewItem
from jobs.batches import Batches
from jobs.credentials import Scope
from jobs.errors import KeyRefused, StorageError
from jobs.keys import Keys, NewKey
from jobs.models import Job, utc_now
from jobs.retention import Removed, Retention
from jobs.settings import Settings
from jobs.store import JobStore

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
NOTHING = Removed()


@pytest.fixture
def retention(store: JobStore) -> Retention:
    return Retention(store, Batches(store))


@pytest.fixture
def owner(store: JobStore) -> Callable[..., str]:
    """The owner of a new key's questions."""

    def owner(**times: timedelta) -> str:
        new = NewKey(name="a key", scopes=frozenset({Scope.ASK}), **times)  # type: ignore[arg-type]
        return Keys(store.database).create(new).key.owner

    return owner


@pytest.fixture
def ended(store: JobStore, ask: Callable[..., Job]) -> Callable[..., Job]:
    """A question that has been cancelled just now."""

    def ended(owner: str, **changes: object) -> Job:
        return store.cancel(ask(owner=owner, **changes).id)

    return ended


def test_a_picture_goes_before_its_answer(
    store: JobStore,
    retention: Retention,
    owner: Callable[..., str],
    ended: Callable[..., Job],
    ask: Callable[..., Job],
) -> None:
    whose = owner()
    job, waiting = ended(whose, prompt="a prompt"), ask(owner=whose)
    now = utc_now()
    assert job.finished_at is not None
    assert store.keeping.expires_at(job) == job.finished_at + 90 * DAY
    assert store.keeping.expires_at(waiting) is None
    assert retention.round(now + DAY - HOUR) == NOTHING
    assert retention.round(now + DAY + HOUR).uploads == [job.id]
    assert retention.round(now + DAY + HOUR) == NOTHING, "what is gone isn't looked for again"
    left = store.get(job.id)
    assert left is not None
    assert (left.state, left.prompt, left.version) == ("cancelled", "a prompt", job.version + 1)
    assert left.upload_gone_at == now + DAY + HOUR
    with pytest.raises(StorageError):
        store.image(job.id)
    assert retention.round(now + 91 * DAY).results == [job.id]
    erased = store.get(job.id)
    assert erased is not None
    assert (erased.state, erased.prompt, store.keeping.expires_at(erased)) == ("erased", None, None)
    assert store.image(waiting.id), "what hasn't ended is kept"
    entries = store.audit.list(AuditFilters(action="question.erased")).events
    assert [(one.actor, one.object) for one in entries] == [(SERVICE.name, job.id)]


def test_what_was_asked_without_a_key_is_kept_until_it_is_deleted(
    store: JobStore, retention: Retention, ended: Callable[..., Job]
) -> None:
    job = ended("local")
    assert store.keeping.expires_at(job) is None
    assert retention.round(utc_now() + 3000 * DAY) == NOTHING
    assert store.image(job.id)


def test_unless_the_settings_say_otherwise(
    settings: Settings, store: JobStore, owner: Callable[..., str], ended: Callable[..., Job]
) -> None:
    own, keyed = ended("local"), ended(owner())
    set_ = settings.model_copy(update={"keep_uploads_seconds": 0, "keep_results_seconds": 3600})
    other = JobStore(set_, database=store.database, notify=store.notify)
    retention = Retention(other, Batches(other))
    assert own.finished_at is not None
    assert other.keeping.expires_at(own) == own.finished_at + HOUR
    assert sorted(retention.round(utc_now() + timedelta(seconds=1)).uploads) == sorted([own.id, keyed.id])
    assert sorted(retention.round(utc_now() + 2 * HOUR).results) == sorted([own.id, keyed.id])


def test_a_key_has_times_of_its_own_and_so_has_the_one_that_replaces_it(
    store: JobStore, retention: Retention, owner: Callable[..., str], ended: Callable[..., Job]
) -> None:
    brief = ended(owner(keep_uploads=timedelta(), keep_results=HOUR))
    long = ended(owner(keep_uploads=9 * DAY, keep_results=900 * DAY))
    keys = Keys(store.database)
    replaced = keys.rotate(long.owner.removeprefix("key_")).key
    assert (replaced.keep_uploads, replaced.keep_results) == (9 * 86_400, 900 * 86_400)
    usual = ended(owner())
    now = utc_now()
    spans = [store.keeping.expires_at(job) - job.finished_at for job in (brief, long, usual)]  # type: ignore[operator]
    assert spans == [HOUR, 900 * DAY, 90 * DAY]
    assert retention.round(now + timedelta(seconds=1)).uploads == [brief.id]
    assert retention.round(now + 2 * HOUR).results == [brief.id]
    assert retention.round(now + 2 * DAY).uploads == [usual.id]
    assert retention.round(now + 10 * DAY).uploads == [long.id]
    assert retention.round(now + 100 * DAY).results == [usual.id]
    assert retention.round(now + 901 * DAY).results == [long.id]


@pytest.mark.parametrize(
    ("times", "why"),
    [
        ({"keep_results": timedelta()}, "a minute to 3660 days"),
        ({"keep_results": 4000 * DAY}, "a minute to 3660 days"),
        ({"keep_uploads": 4000 * DAY}, "0 to 3660 days"),
        ({"keep_uploads": -DAY}, "0 to 3660 days"),
    ],
)
def test_times_that_cant_be(times: dict[str, timedelta], why: str) -> None:
    with pytest.raises(KeyRefused, match=why):
        NewKey(name="x", scopes=frozenset({Scope.ASK}), **times)  # type: ignore[arg-type]


def test_a_round_takes_so_many(
    retention: Retention,
    owner: Callable[..., str],
    ended: Callable[..., Job],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("jobs.retention.RESULTS_AT_ONCE", 2)
    monkeypatch.setattr("jobs.retention.UPLOADS_AT_ONCE", 2)
    whose = owner()
    ids = [ended(whose).id for _ in range(3)]
    assert [retention.round(utc_now() + 2 * DAY).uploads for _ in range(3)] == [ids[:2], ids[2:], []]
    assert [retention.round(utc_now() + 91 * DAY).results for _ in range(3)] == [ids[:2], ids[2:], []]


def test_several_at_once_remove_each_once(
    settings: Settings, store: JobStore, owner: Callable[..., str], ended: Callable[..., Job]
) -> None:
    whose = owner()
    ids = [ended(whose).id for _ in range(12)]
    stores = [JobStore(settings, notify=store.notify) for _ in range(3)]
    try:
        with ThreadPoolExecutor(3) as threads:
            for days, of in ((2, "uploads"), (91, "results")):
                later = utc_now() + days * DAY
                done = list(threads.map(lambda one: Retention(one, Batches(one)).round(later), stores))  # noqa: B023
                assert sorted({job_id for removed in done for job_id in getattr(removed, of)}) == ids
    finally:
        for one in stores:
            one.close()
    erased = store.audit.list(AuditFilters(action="question.erased"), limit=100).events
    assert sorted(str(one.object) for one in erased) == ids, "each is recorded once"


def test_a_picture_that_couldnt_be_removed_is_removed_by_tidying_up(
    store: JobStore,
    retention: Retention,
    owner: Callable[..., str],
    ended: Callable[..., Job],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whose = owner()
    first, second = ended(whose), ended(whose)
    delete = store.blobs.delete

    def fails_for_one(job_id: str) -> None:
        if job_id == first.id:
            raise StorageError("the disk is away")
        delete(job_id)

    with monkeypatch.context() as away:
        away.setattr(store.blobs, "delete", fails_for_one)
        with pytest.raises(StorageError, match="the disk is away"):
            retention.round(utc_now() + 2 * DAY)
    assert store.image(first.id)
    with pytest.raises(StorageError):
        store.image(second.id)
    monkeypatch.setattr("jobs.upkeep.ORPHAN_AFTER", timedelta(seconds=-60))
    store.upkeep.tidy()
    with pytest.raises(StorageError):
        store.image(first.id)


def test_a_batch_goes_once_no_question_of_it_is_left(
    store: JobStore, retention: Retention, owner: Callable[..., str], ask: Callable[..., Job]
) -> None:
    batches = Batches(store)
    whose = owner(keep_results=HOUR)
    refused = NewItem({"client_tag": "a tag"}, "a name.png", problem={"code": "too-large", "detail": "x"})
    only_refused = batches.create(whose, [refused], client_tag="a batch")
    waiting = batches.create(whose, [refused, NewItem({}, "b.png", b"a picture")])
    kept = batches.create("local", [refused])
    now = utc_now()
    assert retention.round(now + HOUR / 2) == NOTHING
    assert retention.round(now + 2 * HOUR).batches == [only_refused.id]
    (item,) = batches.items(only_refused.id, 0, 10)
    assert (item.name, item.client_tag, item.problem, item.state) == (None, None, None, "erased")
    claim = batches.take()
    assert claim is not None
    assert batches.fail(claim, {"code": "x", "detail": "y"})
    assert retention.round(now + 2 * HOUR).batches == [waiting.id]
    left = batches.get(kept.id)
    assert left is not None
    assert left.state == "open"
    entries = store.audit.list(AuditFilters(action="batch")).events
    assert sorted(str(one.object) for one in entries) == sorted([only_refused.id, waiting.id])
